"""worker-2 is slashed: its node goes, and stays out with everything that it had."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from agent_kit import KUBELET, SERVING, Agent, Pair, Tunnel, Watch, connect
from owner_kit import until
from pages import told
from scenario import play

Nodes = Callable[[], dict[str, dict[str, Any]]]
Pairs = dict[str, Pair]


@dataclass(frozen=True)
class Removed:
    """What was open before the slash, and worker-2's certificates from then."""

    watch: Watch
    tunnel: Tunnel
    pairs: Pairs


@pytest.fixture(scope="module")
def removed(api: str, server_ca: Path, certificates: dict[str, Pairs], nodes: Nodes) -> Removed:
    pairs = certificates["worker-2"]
    watch = Watch(api, server_ca, pairs["client-k3s-controller"])
    watch.start()
    assert watch.opened.wait(20)
    tunnel = Tunnel(api, server_ca, pairs["client-kubelet"])
    run = play(*told("docs/slash.md", "playbooks/slash.yml", node_id="worker-2", confirm="worker-2"))
    assert run.code == 0, run.output
    assert set(nodes()) == {"worker-1"}
    return Removed(watch, tunnel, pairs)


def test_the_other_one_stays_ready(removed: Removed, nodes: Nodes) -> None:
    def ready() -> bool:
        conditions = nodes()["worker-1"]["status"]["conditions"]
        return {one["type"]: one["status"] for one in conditions}["Ready"] == "True"

    assert ready()


def test_k3s_own_server_connected_again(removed: Removed, hosts: dict[str, Host]) -> None:
    """It has a certificate of a user that all nodes share, and nobody staked for it."""
    journal = hosts["master"].check_output("journalctl --unit k3s.service --output cat")
    assert 'User "system:k3s-controller" cannot' not in journal.replace("\\", "")


def test_its_open_watch_was_cut(removed: Removed) -> None:
    assert removed.watch.ended.wait(15)


def test_its_tunnel_was_cut(removed: Removed) -> None:
    assert removed.tunnel.closed_within(15)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("client-kubelet", "/api/v1/nodes/worker-2"),
        ("client-kubelet", "/api/v1/services"),
        ("client-kube-proxy", "/api/v1/services"),
        ("client-k3s-controller", "/api/v1/pods"),
        ("client-k3s-controller", "/api/v1/nodes"),
    ],
)
def test_its_certificates_open_nothing(
    removed: Removed, api: str, server_ca: Path, name: str, path: str
) -> None:
    with connect(api, server_ca, removed.pairs[name]) as client:
        until(lambda: client.get(path).status_code == 403, 12)
        assert client.get(path).json()["reason"] == "Forbidden"


def test_it_does_not_become_a_node_again(removed: Removed, api: str, server_ca: Path, nodes: Nodes) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-2"}}
    with connect(api, server_ca, removed.pairs["client-kubelet"]) as client:
        assert client.post("/api/v1/nodes", content=json.dumps(body)).status_code == 403
    assert set(nodes()) == {"worker-1"}


def test_it_gets_no_new_kubelet_certificate(
    removed: Removed, api: str, server_ca: Path, hosts: dict[str, Host], tmp_path: Path
) -> None:
    password = hosts["worker-2"].check_output("cat /etc/rancher/node/password")
    itself = Agent(api, server_ca, tmp_path, "none", "worker-2", password)
    for what in (KUBELET, SERVING):
        assert itself.fetch_as(removed.pairs["client-kubelet"], what).status_code == 401


def test_what_k3s_still_signs_for_it_opens_nothing(
    removed: Removed, api: str, server_ca: Path, tmp_path: Path
) -> None:
    itself = Agent(api, server_ca, tmp_path, "none", "worker-2", "x")
    for what, path in (("client-kube-proxy", "/api/v1/services"), ("client-k3s-controller", "/api/v1/pods")):
        minted = itself.mint_as(removed.pairs["client-kubelet"], what)
        with connect(api, server_ca, minted) as client:
            assert client.get(path).status_code == 403


def test_nobody_takes_its_name(removed: Removed, attacker: Callable[[], Agent]) -> None:
    worker = attacker()
    for what in (KUBELET, SERVING):
        assert worker.ask(what).status_code == 200
        answer = worker.ask(what, "worker-2")
        assert answer.status_code == 403
        assert "unable to verify password for node worker-2" in answer.text


def test_the_other_ones_certificates_are_still_good(
    removed: Removed, api: str, server_ca: Path, certificates: dict[str, Pairs]
) -> None:
    for name, path in (
        ("client-kubelet", "/api/v1/nodes/worker-1"),
        ("client-kube-proxy", "/api/v1/services"),
        ("client-k3s-controller", "/api/v1/pods"),
    ):
        with connect(api, server_ca, certificates["worker-1"][name]) as client:
            assert client.get(path).status_code == 200
