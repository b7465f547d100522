"""The join checks of the k3s stand-in are real: what it accepts and refuses, k3s accepts and refuses."""

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lightkube.core.exceptions import ApiError
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node, Secret

from k3s_daas import join

Wait = Callable[..., Any]


def csr() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.DER
    )


def ask(cluster: Any, node: str, password: str, what: str = "client-kubelet.crt", **who: Any) -> Any:
    with cluster.http(**who) as client:
        headers = {"k3s-Node-Name": node, "k3s-Node-Password": password, "k3s-Node-IP": "127.0.0.1"}
        return client.post(f"/v1-k3s/{what}", content=csr(), headers=headers)


def conditions(cluster: Any, name: str) -> dict[str, str]:
    try:
        node = cluster.kube().get(Node, name)
    except ApiError as error:
        if error.status.code != 404:
            raise
        return {}
    return {c.type: c.status for c in node.status.conditions}


def missing(cluster: Any, kind: Any, name: str) -> bool:
    try:
        cluster.kube().get(kind, name)
    except ApiError as error:
        return error.status.code == 404
    return False


def test_a_worker_joins_as_the_master_prepared_it(cluster: Any) -> None:
    password = join.node_password()
    cluster.add_password("worker-1", password)
    token = cluster.add_token()
    assert join.fetch_cacerts(cluster.url, cluster.ca_hash) == cluster.ca_path.read_bytes()

    agent = cluster.start_agent("worker-1", cluster.full(token), password=password)
    agent.ready()

    node = cluster.kube().get(Node, "worker-1")
    assert "STAND-IN" in node.status.nodeInfo.kubeletVersion
    assert conditions(cluster, "worker-1")["Ready"] == "True"
    assert (
        cluster.kube().get(Lease, "worker-1", namespace="kube-node-lease").spec.holderIdentity == "worker-1"
    )
    assert [n.metadata.name for n in cluster.kube().list(Node)] == ["worker-1"]
    assert (cluster.agent_root("worker-1") / "usr/libexec/kubernetes/kubelet-plugins").is_dir()
    written = cluster.server.log.read_text() + agent.log.read_text()
    assert "STAND-IN" in written
    for secret in (token.split(".")[1], password):
        assert secret not in written


def test_an_agent_joins_with_the_servers_own_token(
    start_cluster: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start_cluster(**{"token": "known to all"})
    monkeypatch.setenv("K3S_TOKEN", "known to all")
    root = cluster.agent_root("worker-1")
    options = [f"--server={cluster.url}", "--node-name=worker-1", "--kubelet-arg=healthz-port=0"]
    cluster.start(root, "worker-1.log", ["agent", *options]).ready()
    assert conditions(cluster, "worker-1") == {"Ready": "True"}


def test_with_a_token_for_agents_the_servers_own_joins_nobody(start_cluster: Callable[..., Any]) -> None:
    cluster = start_cluster(**{"token": "the server's", "agent-token": "the agents'"})
    with cluster.http() as client:
        answers = [
            client.get("/v1-k3s/config", auth=("node", token)).status_code
            for token in ("the server's", "the agents'", "")
        ]
        elsewhere = client.get("/api/v1/nodes", auth=("node", "the agents'"))
    assert answers == [401, 200, 401]
    assert elsewhere.status_code == 401


def test_keys_and_the_datastore_are_for_root_alone(cluster: Any) -> None:
    files = [*cluster.root.rglob("*.key"), *cluster.root.rglob("state.db"), cluster.kubeconfig]
    assert len(files) >= 5
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_an_agent_with_another_ca_hash_never_shows_its_token(cluster: Any, wait: Wait) -> None:
    token = cluster.add_token()
    wrong = join.full_token(bytes(32), *token.split("."))
    agent = cluster.start_agent("worker-1", wrong)
    wait(lambda: "token CA hash does not match" in agent.log.read_text())
    assert "worker-1" not in cluster.server.log.read_text()
    assert missing(cluster, Node, "worker-1")
    assert agent.process.poll() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime_s": -1},
        {"usage-bootstrap-authentication": None},
        {"usage-bootstrap-authentication": "false"},
        {"token-secret": "0123456789abcdef"},
        {"token-id": "zzzzzz"},
    ],
)
def test_bootstrap_tokens_that_k3s_refuses(shared: Any, changes: dict[str, Any]) -> None:
    assert ask(shared, "worker-1", "p", token=shared.add_token(**changes)).status_code == 401


def test_a_deleted_token_is_refused(shared: Any) -> None:
    token = shared.add_token()
    assert ask(shared, "deleted-token", "p", token=token).status_code == 200
    shared.kube().delete(Secret, f"bootstrap-token-{token.split('.')[0]}")
    assert ask(shared, "deleted-token", "p", token=token).status_code == 401


def test_an_expired_token_is_cleaned_up(shared: Any, wait: Wait) -> None:
    token = shared.add_token(lifetime_s=-1)
    wait(lambda: missing(shared, Secret, f"bootstrap-token-{token.split('.')[0]}"))


def test_nobody_joins_without_credentials(shared: Any) -> None:
    assert ask(shared, "worker-1", "p").status_code == 403


@pytest.mark.parametrize(("node", "password"), [("", "p"), ("worker-1", "")])
def test_a_node_needs_name_and_password(shared: Any, node: str, password: str) -> None:
    assert ask(shared, node, password, token=shared.add_token()).status_code == 400


@pytest.mark.parametrize("what", ["client-kubelet.crt", "serving-kubelet.crt"])
def test_worker_a_cannot_have_worker_bs_name(shared: Any, what: str) -> None:
    name = f"worker-b-{what.partition('-')[0]}"
    shared.add_password(name, "b's own")
    token = shared.add_token()
    assert ask(shared, name, "a's own", what, token=token).status_code == 403
    assert ask(shared, name.upper(), "a's own", what, token=token).status_code == 403
    assert ask(shared, name, "b's own", what, token=token).status_code == 200


def test_a_name_without_a_password_belongs_to_whoever_asks_first(shared: Any) -> None:
    token = shared.add_token()
    assert ask(shared, "unclaimed", "first", token=token).status_code == 200
    secret = shared.kube().get(Secret, "unclaimed.node-password.k3s")
    assert (secret.type, secret.immutable) == (join.NODE_PASSWORD_SECRET_TYPE, True)
    assert ask(shared, "unclaimed", "second", token=token).status_code == 403


def test_certificates_name_the_node_and_nothing_else(shared: Any) -> None:
    answer = ask(shared, "Worker-C", "p", token=shared.add_token())
    certificate = x509.load_pem_x509_certificate(answer.content)
    assert certificate.subject.rfc4514_string() == "CN=system:node:worker-c,O=system:nodes"


def test_a_joined_node_restarts_without_a_live_token(cluster: Any, wait: Wait) -> None:
    token = cluster.add_token()
    agent = cluster.start_agent("worker-1", cluster.full(token))
    agent.ready()
    agent.stop()
    cluster.kube().delete(Secret, f"bootstrap-token-{token.split('.')[0]}")
    again = cluster.start_agent("worker-1", cluster.full(token))
    again.ready()
    wait(lambda: conditions(cluster, "worker-1").get("Ready") == "True")


def test_the_cluster_survives_a_restart_of_its_server(cluster: Any, wait: Wait) -> None:
    cluster.start_agent("worker-1", cluster.full(cluster.add_token())).ready()
    digest, uid = cluster.ca_hash, cluster.kube().get(Node, "worker-1").metadata.uid
    cluster.server.process.kill()
    cluster.server.process.wait(10)
    cluster.start_server()
    assert cluster.ca_hash == digest
    assert cluster.kube().get(Node, "worker-1").metadata.uid == uid
    seen = cluster.kube().get(Lease, "worker-1", namespace="kube-node-lease").spec.renewTime
    wait(lambda: cluster.kube().get(Lease, "worker-1", namespace="kube-node-lease").spec.renewTime > seen)


def test_a_silent_node_is_not_ready_and_comes_back(start_cluster: Any, wait: Wait) -> None:
    cluster = start_cluster(**{"kube-controller-manager-arg": ["node-monitor-grace-period=1s"]})
    token = cluster.full(cluster.add_token())
    agent = cluster.start_agent("worker-1", token)
    agent.ready()
    agent.process.kill()
    wait(lambda: conditions(cluster, "worker-1")["Ready"] == "Unknown")
    cluster.start_agent("worker-1", token).ready()
    wait(lambda: conditions(cluster, "worker-1")["Ready"] == "True")


def test_a_deleted_node_loses_its_password_and_cannot_come_back_by_its_certificate(
    cluster: Any, wait: Wait
) -> None:
    token = cluster.add_token()
    agent = cluster.start_agent("worker-1", cluster.full(token), password="its own")  # noqa: S106
    agent.ready()
    name = join.node_password_secret_name("worker-1")
    wait(lambda: cluster.kube().get(Secret, name).metadata.ownerReferences)
    certificate = cluster.node_certificate("worker-1")
    assert ask(cluster, "worker-1", "its own", cert=certificate).status_code == 200
    assert ask(cluster, "worker-2", "its own", cert=certificate).status_code == 400

    cluster.kube().delete(Secret, f"bootstrap-token-{token.split('.')[0]}")
    cluster.kube().delete(Node, "worker-1")

    wait(lambda: missing(cluster, Secret, name))
    wait(lambda: "node heartbeat failed" in agent.log.read_text())
    assert agent.process.poll() is None
    assert ask(cluster, "worker-1", "its own", cert=certificate).status_code == 401
    agent.stop()
    # As with k3s 1.34, not even a new token helps while the old certificate is there.
    fresh = cluster.full(cluster.add_token())
    again = cluster.start_agent("worker-1", fresh)
    wait(lambda: "serving-kubelet.crt: 401" in again.log.read_text())
    assert missing(cluster, Node, "worker-1")
    for path in certificate:
        Path(path).unlink()
    again.ready()
    assert conditions(cluster, "worker-1")["Ready"] == "True"


def test_a_random_password_keeps_a_removed_name_taken(cluster: Any, wait: Wait) -> None:
    token = cluster.add_token()
    agent = cluster.start_agent("worker-1", cluster.full(token), password="its own")  # noqa: S106
    agent.ready()
    name = join.node_password_secret_name("worker-1")
    wait(lambda: cluster.kube().get(Secret, name).metadata.ownerReferences)
    cluster.kube().delete(Node, "worker-1")
    wait(lambda: missing(cluster, Secret, name))
    cluster.add_password("worker-1", join.node_password())
    assert ask(cluster, "worker-1", "its own", token=token).status_code == 403


def test_the_server_token_is_rotated_and_the_old_one_goes_with_the_next_start(cluster: Any) -> None:
    """Held against k3s 1.34.10, by molecule/rotate: it reads its passwords when it starts."""
    file = cluster.root / "var/lib/rancher/k3s/server/token"
    old = file.read_text().strip()
    assert re.fullmatch(f"K10{cluster.ca_hash.hex()}::server:[0-9a-f]{{32}}", old)
    assert file.stat().st_mode & 0o777 == 0o600

    def asked(token: str) -> int:
        """405: it is the server's token, and GET is no way to change it."""
        user, _, password = token.rpartition("::")[2].partition(":")
        with cluster.http() as client:
            return client.get("/v1-k3s/token", auth=(user, password)).status_code

    # Agents have the same password where the server was given no other for them, and may not ask for this.
    assert (asked(old), asked(old + "0"), asked("node:" + old.rpartition(":")[2])) == (405, 401, 403)
    done = cluster.run("token", "rotate", f"--server={cluster.url}")
    assert "Token rotated, restart k3s nodes" in done.stdout, done.stderr
    new = file.read_text().strip()
    assert new != old
    assert new.rpartition("::")[0] == old.rpartition("::")[0]
    assert new.rpartition(":")[2] not in done.stdout + done.stderr
    assert (asked(old), asked(new)) == (405, 401)
    cluster.server.stop()
    cluster.start_server()
    assert (asked(old), asked(new)) == (401, 405)
    assert file.read_text().strip() == new


def test_a_bootstrap_token_changes_no_server_token(cluster: Any) -> None:
    with cluster.http(cluster.add_token()) as client:
        assert client.put("/v1-k3s/token", json={"newToken": "x"}).status_code == 403
