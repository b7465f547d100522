"""A worker whose owner wants to leave has its node emptied: its own, gently, and as often as it asks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from k3s_daas import seal
from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus

NODE = "/api/v1/nodes/worker-1"


async def drain(bench: Any, token: str | None, node_id: str = "worker-1", **changes: Any) -> httpx.Response:
    body = {"node_id": node_id, "timestamp_ms": bench.clock.ms, **changes}
    headers = {} if token is None else {"X-Seal-Token": token}
    answer: httpx.Response = await bench.api.post("/api/v1/nodes/drain", json=body, headers=headers)
    return answer


async def test_the_node_is_cordoned_and_its_pods_go(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.kube.add_pod("app", "worker-1")
    bench.kube.add_pod("elsewhere", "worker-2")
    bench.kube.add_pod("agent", "worker-1", owner_kind="DaemonSet")
    bench.kube.requests.clear()
    answer = await drain(bench, token)
    assert (answer.status_code, answer.json()) == (
        200,
        {"node_id": "worker-1", "joined": True, "drained": True, "pods_left": 0, "waiting_for": []},
    )
    assert bench.kube.asked("PATCH", "POST", "DELETE") == [
        f"PATCH {NODE}",
        "POST /api/v1/namespaces/default/pods/app/eviction",
    ]
    assert set(bench.kube.pods) == {"elsewhere", "agent"}
    assert bench.kube.nodes["worker-1"]["spec"]["unschedulable"] is True


async def test_it_stays_cordoned(bench: Any) -> None:
    """The pass that takes back the cordon of a jailed worker leaves this one alone."""
    token = await bench.join("worker-1")
    await drain(bench, token)
    await bench.state.fleet.reconcile()
    await bench.state.fleet.reconcile()
    assert bench.kube.nodes["worker-1"]["spec"]["unschedulable"] is True


@pytest.mark.parametrize("eviction", ["refused", "stuck"])
async def test_a_pod_that_does_not_go_is_named_and_not_forced(bench: Any, eviction: str) -> None:
    token = await bench.join("worker-1")
    bench.kube.add_pod("app", "worker-1")
    bench.kube.eviction = eviction
    for _ in range(2):
        body = (await drain(bench, token)).json()
        assert (body["drained"], body["pods_left"], body["waiting_for"]) == (False, 1, ["default/app"])
        bench.clock.advance(2)
    assert not [line for line in bench.kube.asked("DELETE") if "/pods/" in line]
    asked = [line for line in bench.kube.asked("POST") if line.endswith("/eviction")]
    assert len(asked) == (2 if eviction == "refused" else 1), "one that is on its way is not asked again"
    bench.kube.pods.clear()
    assert (await drain(bench, token)).json()["drained"] is True


async def test_many_pods_in_the_way_are_not_all_named(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.kube.eviction = "refused"
    for number in range(25):
        bench.kube.add_pod(f"app-{number}", "worker-1")
    body = (await drain(bench, token)).json()
    assert (body["pods_left"], len(body["waiting_for"])) == (25, 20)


async def test_a_worker_that_never_joined_has_nothing_to_drain(bench: Any) -> None:
    token = bench.chain.stake("worker-1")
    await bench.catch_up()
    body = (await drain(bench, token)).json()
    assert (body["joined"], body["drained"], body["pods_left"]) == (False, True, 0)


async def test_nobody_drains_another_workers_node(bench: Any) -> None:
    one = await bench.join("worker-1")
    await bench.join("worker-2")
    bench.kube.add_pod("app", "worker-2")
    bench.kube.requests.clear()
    assert bench.refusal(await drain(bench, one, "worker-2")) == (403, "node_mismatch")
    assert bench.refusal(await drain(bench, seal.make(), "worker-2")) == (401, "token_unknown")
    assert bench.refusal(await drain(bench, None, "worker-2")) == (400, "token_malformed")
    owner = bench.chain.mint("")
    await bench.catch_up()
    assert bench.refusal(await drain(bench, owner, "worker-2")) == (401, "token_unknown")
    assert bench.kube.requests == []


async def test_a_request_counts_once(bench: Any) -> None:
    token = await bench.join("worker-1")
    assert (await drain(bench, token)).status_code == 200
    assert bench.refusal(await drain(bench, token)) == (409, "timestamp_replayed")


@pytest.mark.parametrize(
    ("status", "code"),
    [(WorkerStatus.JAILED, "worker_not_eligible"), (WorkerStatus.SLASHED, "worker_slashed")],
)
async def test_who_may_not_leave(bench: Any, status: WorkerStatus, code: str) -> None:
    token = await bench.join("worker-1")
    bench.chain.set_status("worker-1", status)
    await bench.catch_up()
    bench.kube.requests.clear()
    assert bench.refusal(await drain(bench, token)) == (403, code)
    assert bench.kube.requests == []


async def test_on_an_old_view_nothing_is_drained(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.chain.refuse_reads = ChainUnreachable({})
    bench.clock.advance(61)
    assert bench.refusal(await drain(bench, token)) == (503, "not_ready")


async def test_a_broken_cluster_is_no_mistake_of_ours(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.kube.broken = True
    assert bench.refusal(await drain(bench, token)) == (503, "not_ready")
    bench.kube.broken = False
    bench.clock.advance(1)
    assert (await drain(bench, token)).status_code == 200


async def test_drains_are_counted(bench: Any) -> None:
    token = await bench.join("worker-1")
    await drain(bench, token)
    await drain(bench, seal.make())
    text = (await bench.api.get("/metrics")).text
    assert 'k3s_daas_drains_total{outcome="ok"} 1.0' in text
    assert 'k3s_daas_drains_total{outcome="token_unknown"} 1.0' in text
