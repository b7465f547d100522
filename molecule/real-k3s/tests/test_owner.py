"""What an owner does with kubectl and a seal token, until it is revoked."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from owner_kit import Kubectl, echo, until
from pages import told
from scenario import play


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_with(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return line
    pytest.fail(f"it ended without {word!r}: {''.join(seen)}")


def test_get_is_of_the_own_namespace(owner: Kubectl) -> None:
    assert owner("get", "node", "worker-1", "-o", "name").strip() == "node/worker-1"
    # It sees all nodes, as the holder of the OperatorCap; Secrets of others nobody sees.
    done = owner.run("get", "secrets", "-n", "kube-system")
    assert done.returncode != 0
    assert "orbidden" in done.stderr


def test_a_watch_hears_of_what_comes(owner: Kubectl) -> None:
    with running(owner.start("get", "configmaps", "--watch", "-o", "name")) as watch:
        line_with(watch, "kube-root-ca.crt")
        owner("create", "configmap", "news")
        line_with(watch, "configmap/news")


def test_its_deployment_runs_on_a_worker(owner: Kubectl, web: str) -> None:
    pods = json.loads(owner("get", "pods", "-o", "json"))["items"]
    where = {pod["metadata"]["labels"]["app"]: pod["spec"]["nodeName"] for pod in pods}
    assert where == {"web": "worker-1", "near": "worker-2"}
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}


def test_its_service_is_reached_from_another_node(owner: Kubectl, web: str) -> None:
    """Also exec: the API server reaches the kubelet through the tunnel that the agent opened."""
    answer = owner("exec", "deployment/near", "--", "/echo", "get", f"http://{web}/from-near")
    assert answer.startswith("web-")


def test_logs(owner: Kubectl, web: str) -> None:
    assert "echo: web-" in owner("logs", "deployment/web")


def test_port_forward(owner: Kubectl, web: str) -> None:
    with running(owner.start("port-forward", "service/web", ":80")) as forward:
        port = int(line_with(forward, "Forwarding from 127.0.0.1:").split(":")[1].split()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/forwarded", timeout=20) as answer:
            assert answer.read().startswith(b"web-")


@pytest.fixture(scope="module")
def elsewhere(admin: Callable[..., str], web: str) -> Iterator[Callable[[str], str]]:
    """`elsewhere(name)`: the address of a pod in a namespace that isn't the owner's and has no policy."""
    admin("create namespace elsewhere")
    for name, node in (("one", "worker-1"), ("two", "worker-2")):
        body = {"apiVersion": "v1", "kind": "Pod", **echo(name, node)}
        admin("apply -n elsewhere -f -", json.dumps(body))
    admin("wait -n elsewhere --for=condition=Ready pod/one pod/two --timeout=90s")

    def address(name: str) -> str:
        return admin(f"get pod -n elsewhere {name} -o jsonpath={{.status.podIP}}")

    yield address
    admin("delete namespace elsewhere --wait=false")


def test_other_namespaces_dont_reach_its_pods(
    owner: Kubectl, admin: Callable[..., str], elsewhere: Callable[[str], str], hosts: dict
) -> None:
    """Packets, over the pods' network between two nodes."""
    web_pod = owner("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}")
    get = "exec -n elsewhere two -- /echo get"
    assert admin(f"{get} http://{elsewhere('one')}:8080/").strip() == "one"
    shut = hosts["master"].run(f"k3s kubectl {get} http://{web_pod}:8080/")
    assert shut.rc != 0
    assert any(word in shut.stderr for word in ("Timeout", "refused", "deadline", "unreachable")), shut.stderr
    out = owner.run("exec", "deployment/web", "--", "/echo", "get", f"http://{elsewhere('one')}:8080/")
    assert out.returncode != 0
    assert any(word in out.stderr for word in ("Timeout", "refused", "deadline", "unreachable")), out.stderr


def test_after_revocation_all_of_it_is_refused(owner: Kubectl, kubectl_dir: Path) -> None:
    command = told("docs/kubectl.md", "playbooks/kubectl.yml", "kubectl_state=revoked")
    run = play(*command, f"--extra-vars=kubectl_dir={kubectl_dir}")
    assert run.code == 0, run.output
    since = time.monotonic()
    until(lambda: owner.run("get", "pods").returncode != 0, 20)
    # The chain's next checkpoint, and the API server's cache of 8 s; kubectl itself takes its time.
    assert time.monotonic() - since < 20
    for arguments in (
        ("get", "pods"),
        ("get", "pods", "--watch"),
        ("logs", "deployment/web"),
        ("exec", "deployment/web", "--", "/echo", "hostname"),
        ("port-forward", "service/web", ":80"),
    ):
        done = owner.run(*arguments)
        assert done.returncode != 0
        assert "Unauthorized" in done.stderr or "must be logged in" in done.stderr, done.stderr
