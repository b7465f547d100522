"""What only a real k3s does with the roles' configuration. Skipped, by name, where the stand-in runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

AUDIT_LOG = "/var/lib/rancher/k3s/server/logs/audit.log"
# What the audit policy of Kubernetes calls bodies.
BODIES = {"requestObject", "responseObject"}


@pytest.fixture(scope="module", autouse=True)
def _real(stage: dict[str, Any]) -> None:
    if stage["k3s"].startswith("STAND-IN"):
        pytest.skip("needs a real k3s: set K3S_BINARY")


def test_the_image_was_imported(hosts: dict[str, Host]) -> None:
    images = hosts["worker-1"].check_output("k3s ctr --namespace k8s.io images list --quiet")
    assert "localhost/airgap:1" in images.splitlines()


def test_containerd_asks_the_mirror_alone(hosts: dict[str, Host]) -> None:
    folder = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
    text = hosts["worker-1"].check_output(f"cat {folder}/_default/hosts.toml")
    assert ':5000/v2"' in text
    assert "server =" not in text


def test_what_k3s_makes_of_the_password_is_root_s_alone(hosts: dict[str, Host]) -> None:
    folder = "/var/lib/rancher/k3s/agent"
    found = hosts["worker-1"].check_output(f"grep -rl canary-of-the-registry {folder}/etc").splitlines()
    assert found, "containerd doesn't know it"
    for path in found:
        assert hosts["worker-1"].run("runuser -u nobody -- cat %s", path).rc != 0, path


@pytest.fixture(scope="module")
def kubelet(hosts: dict[str, Host]) -> dict[str, Any]:
    """The kubelet's own word on its configuration."""
    path = "/api/v1/nodes/worker-1/proxy/configz"
    found: dict[str, Any] = json.loads(hosts["master"].check_output(f"k3s kubectl get --raw {path}"))
    return found["kubeletconfig"]


def test_the_kubelet_runs_with_the_role_s_settings(kubelet: dict[str, Any]) -> None:
    assert kubelet["maxPods"] == 110
    assert kubelet["protectKernelDefaults"] is True
    assert kubelet["failSwapOn"] is False
    assert kubelet["authentication"]["anonymous"]["enabled"] is False
    assert kubelet["authentication"]["webhook"] == {"enabled": True, "cacheTTL": "10s"}
    assert kubelet["authorization"]["mode"] == "Webhook"
    assert kubelet["authorization"]["webhook"]["cacheAuthorizedTTL"] == "10s"
    assert kubelet["readOnlyPort"] == 0 if "readOnlyPort" in kubelet else True


@pytest.fixture(scope="module")
def audited(hosts: dict[str, Host]) -> list[dict[str, Any]]:
    """The audit log, after a Secret was made and read, and a token asked for."""
    kubectl = hosts["master"].check_output
    kubectl("k3s kubectl create secret generic audited --from-literal=word=canary-of-the-secret")
    kubectl("k3s kubectl get secret audited -o json")
    kubectl("k3s kubectl create token default")
    kubectl("k3s kubectl delete secret audited")
    log = hosts["master"].file(AUDIT_LOG)
    assert (log.user, log.mode) == ("root", 0o600)
    assert hosts["master"].file(AUDIT_LOG.rpartition("/")[0]).mode == 0o700
    assert "canary" not in log.content_string
    return [json.loads(line) for line in log.content_string.splitlines()]


def test_the_audit_log_tells_who_did_what(audited: list[dict[str, Any]]) -> None:
    told = {
        (event["verb"], event["user"]["username"], event["responseStatus"]["code"])
        for event in audited
        if event.get("objectRef", {}).get("name") == "audited"
    }
    assert told >= {
        ("create", "system:admin", 201), ("get", "system:admin", 200), ("delete", "system:admin", 200),
    }  # fmt: skip


def test_the_audit_log_has_no_body_and_no_token(
    audited: list[dict[str, Any]], hosts: dict[str, Host]
) -> None:
    assert {event["level"] for event in audited} == {"Metadata"}
    assert [event for event in audited if BODIES & set(event)] == []
    # Asked for a token: the answer has one, which a log with bodies would have.
    tokens = [event for event in audited if event.get("objectRef", {}).get("subresource") == "token"]
    assert tokens
    text = json.dumps(audited)
    assert "Bearer" not in text
    seal = hosts["worker-1"].check_output("cat /etc/k3s-daas/seal-token").strip()
    assert seal not in text


def test_the_audit_log_leaves_out_what_would_fill_it(audited: list[dict[str, Any]]) -> None:
    noise = [
        event
        for event in audited
        if event.get("objectRef", {}).get("namespace") == "kube-node-lease" and event["verb"] == "update"
    ]
    assert noise == []
    assert [event for event in audited if event["requestURI"].startswith(("/healthz", "/readyz"))] == []


ASK = """
import base64, ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile="/var/lib/rancher/k3s/server/tls/server-ca.crt")
secret = open(sys.argv[2]).read().strip().rpartition(":")[2]
word = base64.b64encode(f"{sys.argv[1]}:{secret}".encode()).decode()
headers = {"Authorization": f"Basic {word}", "k3s-Node-Name": "stranger", "k3s-Node-Password": "x"}
request = urllib.request.Request("https://127.0.0.1:6443/v1-k3s/serving-kubelet.crt", headers=headers)
try:
    print(urllib.request.urlopen(request, timeout=20, context=context).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.mark.parametrize("user", ["node", "server"])
def test_the_server_token_joins_no_node(hosts: dict[str, Host], user: str) -> None:
    path = "/var/lib/rancher/k3s/server/token"
    assert hosts["master"].check_output("python3 -c %s %s %s", ASK, user, path) in ("401", "403")


def test_the_unused_agent_token_would(hosts: dict[str, Host]) -> None:
    """So the refusals above are the token's, not the request's: this one is asked for its body, a CSR."""
    path = "/etc/rancher/k3s/agent-token"
    assert hosts["master"].check_output("python3 -c %s node %s", ASK, path) not in ("401", "403")
