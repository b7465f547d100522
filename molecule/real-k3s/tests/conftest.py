"""What the tests ask a real cluster with: an owner's kubectl, the certificates of a node, pods.

The files are in the order in which they run: the cluster, the owner, and last what becomes of worker-2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from agent_kit import Agent, Pair, load
from k3s_daas import tenancy
from owner_kit import Kubectl, deployment, until
from pages import told
from scenario import STAGE, play

AGENT = "/var/lib/rancher/k3s/agent"
SHARED = ("client-kube-proxy", "client-k3s-controller")


@pytest.fixture(scope="session")
def kubectl_dir() -> Path:
    return STAGE / "kubectl"


@pytest.fixture(scope="session")
def owner(stage: dict[str, Any], kubectl_dir: Path) -> Kubectl:
    """kubectl for the owner of both workers, as an operator sets it up."""
    run = play(*told("docs/kubectl.md", "playbooks/kubectl.yml"), f"--extra-vars=kubectl_dir={kubectl_dir}")
    assert run.code == 0, run.output
    kubectl = Kubectl(stage["k3s_binary"], kubectl_dir / "kubeconfig")
    # The API server keeps the answer that the token is nobody's for some seconds, and unpacking takes some.
    until(lambda: kubectl.run("get", "pods").returncode == 0, 60)
    return kubectl


@pytest.fixture(scope="session")
def space(stage: dict[str, Any]) -> str:
    return tenancy.tenant_namespace(stage["operator"])


@pytest.fixture(scope="session")
def admin(hosts: dict[str, Host]) -> Callable[..., str]:
    """`admin("get …", stdin)`: k3s' own kubectl on the master, for what is nobody's right."""

    def run(arguments: str, stdin: str | None = None) -> str:
        pipe = "" if stdin is None else "cat <<'END' | "
        tail = "" if stdin is None else f"\n{stdin}\nEND"
        return hosts["master"].check_output(f"{pipe}k3s kubectl {arguments}{tail}".replace("%", "%%"))

    return run


@pytest.fixture(scope="session")
def images() -> None:
    if not os.environ.get("K3S_IMAGES"):
        pytest.skip(
            "no pods: set K3S_IMAGES=/dir of image archives with localhost/echo:1 and k3s' pause image"
        )


@pytest.fixture(scope="session")
def web(owner: Kubectl, images: None) -> str:
    """The cluster address of the owner's Service `web`: a pod on worker-1; `near` is a pod on worker-2."""
    owner("apply", "-f", "-", stdin=deployment("web", "worker-1"))
    owner("apply", "-f", "-", stdin=deployment("near", "worker-2"))
    owner("expose", "deployment", "web", "--port=80", "--target-port=8080")
    for name in ("web", "near"):
        owner("rollout", "status", f"deployment/{name}", "--timeout=90s")
    return owner("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")


@pytest.fixture(scope="session")
def api(stage: dict[str, Any]) -> str:
    return f"https://{stage['hosts']['master']}:6443"


@pytest.fixture(scope="session")
def server_ca(hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "server-ca.crt"
    file.write_text(hosts["master"].check_output("cat /var/lib/rancher/k3s/server/tls/server-ca.crt"))
    return file


_REGISTER = """\
set -e
folder=$(mktemp -d)
trap 'rm -r $folder' EXIT
/opt/k3s-daas/venv/bin/k3s-daas-watcher register --config /etc/k3s-daas/watcher.json --wait 20 \\
  --seal-token-file /etc/k3s-daas/seal-token --joined-marker $folder/none --agent-dir $folder \\
  --token-out $folder/token --password-out $folder/password >&2
cat $folder/token; echo; cat $folder/password
"""


@pytest.fixture(scope="session")
def attacker(
    hosts: dict[str, Host], api: str, server_ca: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Agent]:
    """`attacker()`: worker-1 with all that it rightly has: a fresh bootstrap token, its name, its password.

    The token is good for some seconds: the master deletes it as soon as it sees that the node has joined.
    """

    def register() -> Agent:
        token, password = hosts["worker-1"].check_output(_REGISTER.replace("%", "%%")).split()
        folder = tmp_path_factory.mktemp("attacker")
        return Agent(api, server_ca, folder, token.rpartition("::")[2], "worker-1", password)

    return register


@pytest.fixture(scope="session")
def certificates(
    hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Pair]]:
    """The three client certificates of each worker, copied from its disk."""
    folder = tmp_path_factory.mktemp("certificates")
    names = ("client-kubelet", *SHARED)
    return {
        worker: {
            name: load(
                hosts[worker].check_output(f"cat {AGENT}/{name}.crt {AGENT}/{name}.key"),
                folder / f"{worker}-{name}.pem",
            )
            for name in names
        }
        for worker in ("worker-1", "worker-2")
    }
