"""What goes on while the master's view of the chain grows old, rule by rule, and how it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus

HOUR_S = 3600


async def owner_token(bench: Any) -> str:
    token: str = bench.chain.mint("", bench.owner_a)
    await bench.catch_up()
    return token


async def come_back(bench: Any) -> None:
    bench.chain.refuse_reads = None
    bench.chain.checkpoint()
    await bench.catch_up()


def cut(bench: Any, seconds: float) -> None:
    bench.chain.refuse_reads = ChainUnreachable({"https://fullnode.invalid": "cut"})
    bench.clock.advance(seconds)


@pytest.mark.parametrize(
    ("age_s", "registers", "groups"),
    [
        (60, 200, ["k3s-daas:owners"]),
        (61, 503, ["k3s-daas:owners-readonly"]),
        (900, 503, ["k3s-daas:owners-readonly"]),
        (901, 503, None),
    ],
)
async def test_the_ladder(bench: Any, age_s: int, registers: int, groups: list[str] | None) -> None:
    worker = await bench.join("worker-1")
    owner = await owner_token(bench)
    cut(bench, age_s)
    assert (await bench.register(worker, "worker-1")).status_code == registers
    review = await bench.review(owner)
    assert review.get("user", {}).get("groups") == groups
    assert (await bench.beat(worker, "worker-1")).json() == {"status": "active"}, "whatever the age"


async def test_nothing_joined_is_thrown_out_and_all_rights_come_back(bench: Any) -> None:
    worker = await bench.join("worker-1")
    owner = await owner_token(bench)
    cut(bench, 2 * HOUR_S)
    await bench.state.fleet.reconcile()
    await bench.state.remover.sweep()
    assert "worker-1" in bench.kube.nodes
    assert not bench.kube.nodes["worker-1"]["spec"].get("unschedulable")
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.ACTIVE
    await bench.beat(worker, "worker-1")
    await come_back(bench)
    await bench.state.fleet.reconcile()
    assert (await bench.review(owner))["user"]["groups"] == ["k3s-daas:owners"]
    bench.clock.advance(1)
    assert (await bench.register(worker, "worker-1")).status_code == 200
    assert bench.chain.status_calls[1:] == [], "heard just now: the dark time is nobody's silence"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_an_hour_off_stops_all_that_could_harm(bench: Any, hours: int) -> None:
    worker = await bench.join("worker-1")
    owner = await owner_token(bench)
    calls = len(bench.chain.status_calls)
    bench.clock.ms += hours * HOUR_S * 1000
    # The chain goes on at its own, right, time.
    bench.clock.elapsed += 1
    bench.state.view.seen(bench.state.view.sequence + 1, bench.clock.ms - hours * HOUR_S * 1000)
    right = bench.clock.ms - hours * HOUR_S * 1000
    assert (await bench.register(worker, "worker-1")).status_code == 503
    assert not (await bench.review(owner))["authenticated"]
    refused = await bench.beat(worker, "worker-1", timestamp_ms=right + 1)
    assert bench.refusal(refused) == (400, "clock_skew")
    await bench.state.fleet.reconcile()
    assert len(bench.chain.status_calls) == calls, "its own wrong clock makes nobody offline"
    bench.clock.ms = right + 2
    assert (await bench.beat(worker, "worker-1")).status_code == 200
    assert (await bench.register(worker, "worker-1")).status_code == 200
    assert (await bench.review(owner))["user"]["groups"] == ["k3s-daas:owners"]
