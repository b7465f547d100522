"""What the tests ask a real cluster with: an owner's kubectl, the certificates of a node, pods.

The files are in the order in which they run: the cluster, the owner, and last what becomes of worker-2.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from agent_kit import Agent, Pair, load
from k3s_daas import tenancy
from scenario import STAGE, play

IMAGE = "localhost/echo:1"
AGENT = "/var/lib/rancher/k3s/agent"
SHARED = ("client-kube-proxy", "client-k3s-controller")

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def until(what: Callable[[], Any], timeout_s: float) -> Any:
    """What `what` returns, as soon as it is something."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s"
        time.sleep(0.3)
    return found


@dataclass(frozen=True)
class Kubectl:
    """kubectl on the control node, by a kubeconfig and nothing else."""

    binary: str
    kubeconfig: Path

    def command(self, *arguments: str) -> list[str]:
        return [self.binary, "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    @property
    def environment(self) -> dict[str, str]:
        # A k3s unpacks itself; what it unpacks goes with the stage.
        return os.environ | {"K3S_DATA_DIR": str(STAGE / "k3s-client"), "HOME": str(STAGE)}


@pytest.fixture(scope="session")
def kubectl_dir() -> Path:
    return STAGE / "kubectl"


@pytest.fixture(scope="session")
def owner(stage: dict[str, Any], kubectl_dir: Path) -> Kubectl:
    """kubectl for the owner of both workers, as an operator sets it up."""
    run = play("playbooks/kubectl.yml", f"--extra-vars=kubectl_dir={kubectl_dir}")
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


def echo(name: str, node: str) -> dict[str, Any]:
    """A pod of the test image: HTTP at 8080, and a few commands."""
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "echo", "image": IMAGE, "securityContext": RESTRICTED}],
            "terminationGracePeriodSeconds": 1,
        },
    }


def deployment(name: str, node: str) -> str:
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": name}},
                "template": echo(name, node),
            },
        }
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
  --seal-token-file /etc/k3s-daas/seal-token --joined-marker $folder/none \\
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
