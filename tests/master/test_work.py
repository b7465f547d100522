"""Served and missed requests: counted once each, over restarts and replays."""

from __future__ import annotations

from typing import Any


def completed(bench: Any, node_id: str, request_id: int = 1) -> None:
    bench.chain.emit(
        "k8s_scheduler::K8sAPIRequestCompletedEvent",
        request_id=str(request_id),
        node_id=node_id,
        payload_hash="",
        result_hash="",
        deposit="0",
        reward="0",
    )


def timed_out(bench: Any, node_id: str, *, missed: bool) -> None:
    bench.chain.emit(
        "k8s_scheduler::K8sAPIRequestTimedOutEvent",
        request_id="9",
        node_id=node_id,
        requester="0x1",
        refund="0",
        missed=missed,
    )


async def row(bench: Any) -> dict[str, Any]:
    await bench.catch_up()
    (found,) = (await bench.api.get("/api/v1/workers")).json()["workers"]
    return dict(found)


async def test_each_request_is_counted_once_also_over_a_restart(bench: Any) -> None:
    bench.chain.stake("worker-1")
    completed(bench, "worker-1")
    completed(bench, "worker-1", 2)
    timed_out(bench, "worker-1", missed=True)
    timed_out(bench, "worker-1", missed=False)
    found = await row(bench)
    assert (found["served"], found["missed"]) == (2, 1), "nobody claimed the fourth: it is nobody's miss"
    await bench.restart()
    found = await row(bench)
    assert (found["served"], found["missed"]) == (2, 1)
    completed(bench, "worker-1", 3)
    assert (await row(bench))["served"] == 3


async def test_a_name_that_changes_hands_starts_anew(bench: Any) -> None:
    bench.chain.stake("worker-1")
    completed(bench, "worker-1")
    assert (await row(bench))["served"] == 1
    bench.chain.withdraw("worker-1")
    bench.clock.advance(1)
    bench.chain.stake("worker-1", bench.owner_b)
    assert (await row(bench))["served"] == 0


async def test_reputation_follows_the_chain(bench: Any) -> None:
    bench.chain.stake("worker-1")
    assert (await row(bench))["reputation"] == 100
    bench.chain.emit(
        "k8s_scheduler::WorkerReputationChangedEvent", node_id="worker-1", reputation="90", required_stake="0"
    )
    assert (await row(bench))["reputation"] == 90


async def test_requests_of_another_registry_count_nothing(bench: Any) -> None:
    bench.chain.stake("worker-1")
    bench.chain.emit(
        "k8s_scheduler::K8sAPIRequestCompletedEvent",
        registry="0x" + "99" * 32,
        request_id="1",
        node_id="worker-1",
        payload_hash="",
        result_hash="",
        deposit="0",
        reward="0",
    )
    assert (await row(bench))["served"] == 0
