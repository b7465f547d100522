"""The part of the Kubernetes API that the master service and the roles use, and who may use it."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import Container, NodeSpec, PodSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.core_v1 import Node, Pod, Secret
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding
from lightkube.types import PatchType

from k3s_daas_watcher.pods import KubeletPods

Wait = Callable[..., Any]


class Webhook:
    """A TokenReview endpoint that knows one token."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.tokens = {"seal_known": {"username": "0xowner", "uid": "7", "groups": ["k3s-daas:owners"]}}
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.asked.append({"path": self.path, **review})
                user = webhook.tokens.get(review["spec"]["token"])
                status = {"authenticated": True, "user": user} if user else {"authenticated": False}
                body = json.dumps({**review, "status": status}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        self.kubeconfig = folder / "token-review.kubeconfig"
        config = {
            "clusters": [
                {
                    "name": "m",
                    "cluster": {"server": f"http://127.0.0.1:{self.httpd.server_port}/token-review"},
                }
            ],
            "users": [{"name": "api-server"}],
            "contexts": [{"name": "c", "context": {"cluster": "m", "user": "api-server"}}],
            "current-context": "c",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def stop(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    webhook = Webhook(tmp_path)
    yield webhook
    webhook.stop()


@pytest.fixture
def guarded(start_cluster: Any, webhook: Webhook) -> Any:
    arguments = [
        f"authentication-token-webhook-config-file={webhook.kubeconfig}",
        "authentication-token-webhook-version=v1",
        "authentication-token-webhook-cache-ttl=1h",
    ]
    return start_cluster(**{"kube-apiserver-arg": arguments})


@pytest.fixture
def kube(shared: Any) -> Client:
    return shared.kube()


def code(caught: pytest.ExceptionInfo[ApiError]) -> int:
    assert caught.value.status.code is not None
    return caught.value.status.code


def node(name: str) -> Node:
    return Node(metadata=ObjectMeta(name=name), spec=NodeSpec())


def test_version_says_stand_in(shared: Any) -> None:
    assert "STAND-IN" in shared.run("--version").stdout


@pytest.mark.parametrize("path", ["/readyz", "/version", "/api/v1/nodes", "/api/v1/namespaces/default/pods"])
def test_there_is_no_anonymous_access(shared: Any, path: str) -> None:
    with shared.http() as client:
        assert client.get(path).status_code == 401
        assert client.get("/cacerts").content == shared.ca_path.read_bytes()


def test_secrets_are_created_read_listed_and_deleted(kube: Client) -> None:
    meta = ObjectMeta(name="one", namespace="kube-system", labels={"k3s-daas/test": "yes"})
    kube.create(Secret(metadata=meta, stringData={"a": "b"}))
    assert kube.get(Secret, "one").data == {"a": "Yg=="}
    assert [s.metadata.name for s in kube.list(Secret, labels={"k3s-daas/test": "yes"})] == ["one"]
    assert [
        s.metadata.name for s in kube.list(Secret, fields={"type": "Opaque"}, labels={"k3s-daas/test": "no"})
    ] == []
    with pytest.raises(ApiError) as caught:
        kube.create(Secret(metadata=ObjectMeta(name="one", namespace="kube-system")))
    assert code(caught) == 409
    kube.delete(Secret, "one")
    with pytest.raises(ApiError) as caught:
        kube.delete(Secret, "one")
    assert code(caught) == 404


def test_an_immutable_secret_stays_as_it_is(kube: Client) -> None:
    meta = ObjectMeta(name="fixed", namespace="kube-system")
    kube.create(Secret(metadata=meta, immutable=True, data={"hash": "YQ=="}))
    with pytest.raises(ApiError) as caught:
        kube.patch(Secret, "fixed", {"data": {"hash": "Yg=="}})
    assert code(caught) == 422
    kube.patch(Secret, "fixed", {"metadata": {"labels": {"x": "y"}}})


def test_what_has_a_finalizer_is_only_marked_until_it_is_taken_off(kube: Client) -> None:
    meta = ObjectMeta(name="kept", namespace="kube-system", finalizers=["example.com/kept"])
    kube.create(Secret(metadata=meta, data={"a": "YQ=="}))
    kube.delete(Secret, "kept")
    found = kube.get(Secret, "kept")
    assert found.metadata.deletionTimestamp is not None
    assert found.data == {"a": "YQ=="}
    found.metadata.finalizers = []
    kube.replace(found)
    with pytest.raises(ApiError, match="not found"):
        kube.get(Secret, "kept")


def test_a_watch_tells_what_is_there_and_then_each_change(kube: Client) -> None:
    kube.create(Node(metadata=ObjectMeta(name="w-1"), spec=NodeSpec()))
    events = kube.watch(Node, server_timeout=20)
    assert [(e, n.metadata.name) for e, n in [next(events)]] == [("ADDED", "w-1")]
    kube.create(Secret(metadata=ObjectMeta(name="other", namespace="default")))
    kube.patch(Node, "w-1", {"spec": {"unschedulable": True}}, patch_type=PatchType.MERGE)
    event, node = next(events)
    assert (event, node.spec.unschedulable) == ("MODIFIED", True)
    kube.delete(Node, "w-1")
    assert next(events)[0] == "DELETED"
    kube.create(Node(metadata=ObjectMeta(name="w-2"), spec=NodeSpec()))
    later = kube.watch(Node, server_timeout=1, resource_version=node.metadata.resourceVersion)
    assert [(e, n.metadata.name) for e, n in (next(later), next(later))] == [
        ("DELETED", "w-1"),
        ("ADDED", "w-2"),
    ]
    kube.delete(Node, "w-2")


def test_a_watch_from_too_long_ago_is_told_so(kube: Client) -> None:
    for number in range(65):
        kube.create(Secret(metadata=ObjectMeta(name=f"s-{number}", namespace="default")))
    with pytest.raises(httpx2.HTTPStatusError, match="410"):
        next(kube.watch(Node, resource_version="1"))


def test_a_stale_write_conflicts(kube: Client) -> None:
    old = kube.create(node("stale"))
    kube.patch(Node, "stale", {"spec": {"unschedulable": True}})
    with pytest.raises(ApiError) as caught:
        kube.replace(old)
    assert code(caught) == 409


def test_a_node_is_cordoned_drained_and_deleted(kube: Client, wait: Wait) -> None:
    kube.create(node("drained"))
    pod = Pod(
        metadata=ObjectMeta(name="work", namespace="default"),
        spec=PodSpec(nodeName="drained", containers=[Container(name="c")]),
    )
    kube.create(pod)
    kube.create(Pod(metadata=ObjectMeta(name="stays", namespace="default"), spec=pod.spec))
    kube.patch(Node, "drained", {"spec": {"unschedulable": True}})
    assert kube.get(Node, "drained").spec.unschedulable is True
    assert len(list(kube.list(Pod, namespace="*", fields={"spec.nodeName": "drained"}))) == 2
    assert list(kube.list(Pod, namespace="*", fields={"spec.nodeName": "other"})) == []
    # No kubelet runs there: as with k3s, an eviction only marks the pod, a grace period of 0 ends it.
    kube.create(
        Pod.Eviction(metadata=ObjectMeta(name="work", namespace="default")), "work", namespace="default"
    )
    assert kube.get(Pod, "work", namespace="default").metadata.deletionTimestamp
    kube.delete(Pod, "work", namespace="default", grace_period=0)
    assert [p.metadata.name for p in kube.list(Pod, namespace="default")] == ["stays"]
    kube.delete(Node, "drained")
    wait(lambda: not list(kube.list(Pod, namespace="default")))


def test_a_living_node_ends_its_evicted_pods(cluster: Any, wait: Wait) -> None:
    cluster.start_agent("worker-1", cluster.full(cluster.add_token())).ready()
    kube = cluster.kube()
    spec = PodSpec(nodeName="worker-1", containers=[Container(name="c")])
    for name in ("evicted", "stays"):
        kube.create(Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))
    eviction = Pod.Eviction(metadata=ObjectMeta(name="evicted", namespace="default"))
    kube.create(eviction, "evicted", namespace="default")
    wait(lambda: [p.metadata.name for p in kube.list(Pod, namespace="default")] == ["stays"])


def whoami(cluster: Any, token: str) -> Any:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with cluster.http(token=token) as client:
        return client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=body)


def test_bearer_tokens_are_asked_about_once_per_cache_time(guarded: Any, webhook: Webhook) -> None:
    for _ in range(2):
        answer = whoami(guarded, "seal_known")
        assert answer.status_code == 201
    info = answer.json()["status"]["userInfo"]
    assert info["username"] == "0xowner"
    assert info["groups"] == ["k3s-daas:owners", "system:authenticated"]
    assert whoami(guarded, "seal_unknown").status_code == 401
    assert whoami(guarded, "seal_unknown").status_code == 401
    assert [review["spec"]["token"] for review in webhook.asked] == ["seal_known", "seal_unknown"]
    assert {review["apiVersion"] for review in webhook.asked} == {"authentication.k8s.io/v1"}
    assert {review["path"] for review in webhook.asked} == {"/token-review?timeout=30s"}  # as k3s 1.34 asks
    assert "seal_" not in guarded.server.log.read_text()


def test_when_the_webhook_is_down_nobody_is_let_in(guarded: Any, webhook: Webhook) -> None:
    webhook.httpd.server_close()
    webhook.httpd.shutdown()
    assert whoami(guarded, "seal_known").status_code == 401
    assert "webhook failed" in guarded.server.log.read_text()


def test_an_owner_reads_what_rbac_gives_and_no_more(guarded: Any) -> None:
    kube = guarded.kube()
    for name in ("mine", "theirs"):
        kube.create(node(name))
    with guarded.http(token="seal_known") as owner:  # noqa: S106
        assert owner.get("/api/v1/nodes/mine").status_code == 403
        rule = PolicyRule(verbs=["get"], apiGroups=[""], resources=["nodes"], resourceNames=["mine"])
        kube.create(ClusterRole(metadata=ObjectMeta(name="r"), rules=[rule]))
        binding = ClusterRoleBinding(
            metadata=ObjectMeta(name="b"),
            roleRef=RoleRef(apiGroup="rbac.authorization.k8s.io", kind="ClusterRole", name="r"),
            subjects=[Subject(kind="Group", name="k3s-daas:owners", apiGroup="rbac.authorization.k8s.io")],
        )
        kube.create(binding)
        assert owner.get("/api/v1/nodes/mine").json()["metadata"]["name"] == "mine"
        for path in ("/api/v1/nodes/theirs", "/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets"):
            assert owner.get(path).status_code == 403
        assert owner.delete("/api/v1/nodes/mine").status_code == 403
        assert owner.get("/v1-k3s/config").status_code == 403


def test_a_node_may_touch_itself_only(cluster: Any) -> None:
    cluster.start_agent("worker-1", cluster.full(cluster.add_token())).ready()
    cluster.kube().create(node("worker-2"))
    with cluster.http(cert=cluster.node_certificate("worker-1")) as client:
        assert client.get("/api/v1/nodes/worker-1").status_code == 200
        assert client.get("/api/v1/nodes/worker-2").status_code == 403
        assert client.delete("/api/v1/nodes/worker-1").status_code == 403
        assert client.get("/api/v1/namespaces/kube-system/secrets").status_code == 403
        for selector, wanted in (
            ("spec.nodeName=worker-1,status.phase=Running", 200),
            ("status.phase=Running", 403),
            ("spec.nodeName=worker-2", 403),
            ("", 403),
        ):
            assert client.get("/api/v1/pods", params={"fieldSelector": selector}).status_code == wanted


async def test_the_watcher_counts_a_nodes_running_pods(cluster: Any) -> None:
    cluster.start_agent("worker-1", cluster.full(cluster.add_token())).ready()
    folder = Path(cluster.node_certificate("worker-1")[0]).parent
    counter, ca = KubeletPods("worker-1", folder), cluster.ca_path.read_text()
    assert await counter.count(cluster.url, ca) == 0
    # The stand-in calls a pod Running as soon as it has a node.
    for name, host in (("mine", "worker-1"), ("theirs", "worker-2"), ("nobodys", None)):
        spec = PodSpec(containers=[Container(name="c")], nodeName=host)
        cluster.kube().create(Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=spec))
    assert await counter.count(cluster.url, ca) == 1
    assert await KubeletPods("worker-2", folder).count(cluster.url, ca) is None
    await counter.close()


def test_a_bootstrap_token_opens_nothing_but_the_join(shared: Any) -> None:
    with shared.http(token=shared.add_token()) as client:
        assert client.get("/v1-k3s/config").status_code == 200
        assert client.get("/api/v1/nodes").status_code == 403


def test_token_commands(shared: Any) -> None:
    made = shared.run("token", "create", "--ttl", "10m", "--description", "for worker-9").stdout.strip()
    assert made.startswith(f"K10{shared.ca_hash.hex()}::")
    token_id = made.partition("::")[2].partition(".")[0]
    listed = shared.run("token", "list").stdout
    assert token_id in listed
    assert "for worker-9" in listed
    assert made.partition(".")[2] not in listed
    assert shared.run("token", "delete", token_id).returncode == 0
    assert token_id not in shared.run("token", "list").stdout
    assert shared.run("token", "delete", token_id).returncode != 0


def test_a_dry_run_answers_and_keeps_nothing(shared: Any) -> None:
    base, tls = "/api/v1/namespaces/default/configmaps", shared.root / "var/lib/rancher/k3s/server/tls"
    body = {"metadata": {"name": "rehearsed"}, "data": {"a": "1"}}
    with shared.http(cert=(str(tls / "client-admin.crt"), str(tls / "client-admin.key"))) as client:
        assert client.post(f"{base}?dryRun=All", json=body).json()["data"] == {"a": "1"}
        assert client.get(f"{base}/rehearsed").status_code == 404
        assert client.post(base, json=body).status_code == 201
        before = client.get(f"{base}/rehearsed").json()
        patch = {"Content-Type": "application/merge-patch+json"}
        client.patch(f"{base}/rehearsed?dryRun=All", json={"data": {"a": "2"}}, headers=patch)
        rehearsed = client.request("DELETE", f"{base}/rehearsed", json={"dryRun": ["All"]})
        assert rehearsed.status_code == 200
        assert client.get(f"{base}/rehearsed").json() == before
        # As the API server has it: with a body the query's options count for nothing.
        client.request("DELETE", f"{base}/rehearsed?dryRun=All", json={"propagationPolicy": "Background"})
        assert client.get(f"{base}/rehearsed").status_code == 404


def test_kubectl_commands(shared: Any, kube: Client) -> None:
    assert shared.run("kubectl", "get", "--raw", "/readyz").stdout.strip() == "ok"
    kube.create(node("by-kubectl"))
    assert "by-kubectl" in shared.run("kubectl", "get", "nodes", "-o", "wide").stdout
    assert (
        json.loads(shared.run("kubectl", "get", "node", "by-kubectl", "-o", "json").stdout)["kind"] == "Node"
    )
    assert shared.run("kubectl", "drain", "by-kubectl", "--ignore-daemonsets", "--force").returncode == 0
    assert "SchedulingDisabled" in shared.run("kubectl", "get", "nodes").stdout
    mark = '{"metadata":{"annotations":{"a/b":"c"}},"spec":{"unschedulable":null}}'
    patch = ("kubectl", "patch", "node", "by-kubectl", "--type=merge", f"--patch={mark}")
    assert shared.run(*patch).stdout == "node/by-kubectl patched\n"
    assert shared.run(*patch).stdout == "node/by-kubectl patched (no change)\n"
    patched = kube.get(Node, "by-kubectl")
    assert (patched.metadata.annotations, patched.spec.unschedulable) == ({"a/b": "c"}, None)
    assert shared.run("kubectl", "delete", "node/by-kubectl").returncode == 0
    gone = shared.run("kubectl", "get", "node", "by-kubectl", "--ignore-not-found", "--output=name")
    assert (gone.returncode, gone.stdout) == (0, "")
    assert shared.run("kubectl", "get", "node", "by-kubectl").returncode != 0


def test_unknown_options_are_named_and_a_server_with_agent_is_refused(start_cluster: Any) -> None:
    cluster = start_cluster(**{"flannel-backend": "none"})
    assert "option flannel-backend means nothing" in cluster.server.log.read_text()
    refused = cluster.run("server", "--config", "/dev/null")
    assert refused.returncode != 0
    assert "disable-agent" in refused.stderr


def test_it_calls_itself_by_its_files_name_as_k3s_does(shared: Any, tmp_path: Path) -> None:
    assert shared.run("--version").stdout.startswith("k3s version v1.")
    other = tmp_path / "k3s.next"
    other.write_text((Path(__file__).parents[2] / "molecule/resources/standin/k3s").read_text())
    said = subprocess.run([sys.executable, other, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("k3s.next version v1.")
    assert "STAND-IN" in said.stdout
