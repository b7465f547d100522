"""Two agents that joined by seal token, and what each may be."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

from agent_kit import KUBELET, SERVING, Agent, Pair, connect

Nodes = Callable[[], dict[str, dict[str, Any]]]


def test_it_is_a_real_k3s(stage: dict[str, Any], hosts: dict[str, Host]) -> None:
    assert "STAND-IN" not in stage["k3s"]
    assert hosts["master"].check_output("k3s --version").startswith("k3s version v1.")


def test_both_workers_are_ready(nodes: Nodes) -> None:
    found = nodes()
    assert set(found) == {"worker-1", "worker-2"}
    for node in found.values():
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert node["spec"]["podCIDR"]


def test_a_worker_gets_no_certificate_of_anothers_name(attacker: Callable[[], Agent]) -> None:
    worker = attacker()
    for what in (KUBELET, SERVING):
        # The token is good: for its own name it is given one.
        assert worker.ask(what).status_code == 200
        for password in (worker.password, secrets.token_hex(16)):
            answer = worker.ask(what, "worker-2", password)
            assert answer.status_code == 403
            assert "unable to verify password for node worker-2" in answer.text


def test_every_certificate_of_a_worker_in_use_opens_what_it_is_for(
    api: str, server_ca: Any, certificates: dict[str, dict[str, Pair]]
) -> None:
    """So each was claimed: the watcher told the master which they are."""
    for worker, pairs in certificates.items():
        for name, path in (
            ("client-kubelet", f"/api/v1/nodes/{worker}"),
            ("client-kube-proxy", "/api/v1/services"),
            ("client-k3s-controller", "/api/v1/pods"),
        ):
            with connect(api, server_ca, pairs[name]) as client:
                answer = client.get(path)
                assert answer.status_code == 200, f"{worker} {name}: {answer.text}"


def test_what_all_nodes_share_writes_about_no_node(
    api: str, server_ca: Any, certificates: dict[str, dict[str, Pair]]
) -> None:
    elsewhere = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}}
    with connect(api, server_ca, certificates["worker-1"]["client-k3s-controller"]) as client:
        answer = client.patch(
            "/api/v1/nodes/worker-2/status",
            content=json.dumps(elsewhere),
            headers={"content-type": "application/merge-patch+json"},
        )
    assert answer.status_code == 403
    assert "identity that all nodes share" in answer.text
