"""Heartbeats: accepted once each, from the worker itself, also when the chain can't be seen."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas import seal
from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus


async def staked(bench: Any, node_id: str = "worker-1", **how: Any) -> str:
    token: str = bench.chain.stake(node_id, **how)
    await bench.catch_up()
    return token


@pytest.mark.parametrize("status", ["pending", "active", "busy", "offline", "jailed", "unbonding"])
async def test_a_heartbeat_is_answered_with_the_status_on_chain(bench: Any, status: str) -> None:
    token = await staked(bench, status=WorkerStatus(status))
    response = await bench.beat(token, "worker-1", stake_status="whatever the worker thinks")
    assert (response.status_code, response.json()) == (200, {"status": status})


async def test_its_figures_are_shown(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1", running_pods=7)
    (row,) = (await bench.api.get("/api/v1/workers")).json()["workers"]
    assert row["last_heartbeat_ms"] == bench.clock.ms
    assert row["running_pods"] == 7
    assert row["resource_usage"] == {"cpu_percent": 1.5}


async def test_timestamps_must_grow_also_over_a_restart(bench: Any) -> None:
    token = await staked(bench)
    assert (await bench.beat(token, "worker-1")).status_code == 200
    assert bench.refusal(await bench.beat(token, "worker-1")) == (409, "timestamp_replayed")
    later = await bench.beat(token, "worker-1", timestamp_ms=bench.clock.ms + 1)
    assert later.status_code == 200
    await bench.restart()
    assert bench.refusal(await bench.beat(token, "worker-1")) == (409, "timestamp_replayed")
    last = (await bench.api.get("/api/v1/workers")).json()["workers"][0]["last_heartbeat_ms"]
    assert last == bench.clock.ms, "who was heard is known after a restart"


async def test_registrations_and_heartbeats_count_apart(bench: Any) -> None:
    token = await staked(bench)
    assert (await bench.register(token, "worker-1")).status_code == 200
    assert (await bench.beat(token, "worker-1")).status_code == 200


@pytest.mark.parametrize("skew_ms", [-60_001, 60_001])
async def test_a_minute_is_the_limit(bench: Any, skew_ms: int) -> None:
    token = await staked(bench)
    response = await bench.beat(token, "worker-1", timestamp_ms=bench.clock.ms + skew_ms)
    assert bench.refusal(response) == (400, "clock_skew")
    inside = await bench.beat(
        token, "worker-1", timestamp_ms=bench.clock.ms + skew_ms - skew_ms // abs(skew_ms)
    )
    assert inside.status_code == 200


async def test_refused_timestamps_are_not_remembered(bench: Any) -> None:
    token = await staked(bench)
    await bench.beat(token, "worker-1", timestamp_ms=bench.clock.ms + 3_600_000)
    assert (await bench.beat(token, "worker-1")).status_code == 200


async def test_one_machine_beating_for_another(bench: Any) -> None:
    one = await staked(bench, "worker-1")
    await staked(bench, "worker-2")
    assert bench.refusal(await bench.beat(one, "worker-2")) == (403, "node_mismatch")
    assert "worker-2" not in bench.state.heartbeats.last_ms


async def test_unknown_and_revoked_tokens(bench: Any) -> None:
    token = await staked(bench)
    assert bench.refusal(await bench.beat(seal.make(), "worker-1")) == (401, "token_unknown")
    bench.chain.revoke("worker-1")
    await bench.catch_up()
    assert bench.refusal(await bench.beat(token, "worker-1")) == (401, "token_revoked")


async def test_a_slashed_worker_is_refused_at_once(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert bench.refusal(await bench.beat(token, "worker-1")) == (403, "worker_slashed")


async def test_an_expired_token_keeps_a_joined_node(bench: Any) -> None:
    token = await staked(bench)
    bench.clock.advance(91 * 86_400)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert (await bench.beat(token, "worker-1")).status_code == 200


async def test_a_dark_chain_throws_nobody_out(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.refuse_reads = ChainUnreachable({})
    bench.clock.advance(3600)
    assert (await bench.beat(token, "worker-1")).status_code == 200


async def test_before_the_registry_was_read_nobody_can_be_told_apart(bench: Any) -> None:
    token = await staked(bench)
    bench.state.index.loaded = False
    assert bench.refusal(await bench.beat(token, "worker-1")) == (503, "not_ready")


@pytest.mark.parametrize(
    "change",
    [
        {"stake_mist": -1},
        {"stake_mist": "1"},
        {"running_pods": 10**9},
        {"resource_usage": {str(i): 1 for i in range(40)}},
        {"resource_usage": {"cpu": {"nested": 1}}},
        {"resource_usage": {"cpu": "x" * 100}},
        {"stake_status": "x" * 40},
    ],
)
async def test_bad_figures(bench: Any, change: dict[str, Any]) -> None:
    token = await staked(bench)
    assert bench.refusal(await bench.beat(token, "worker-1", **change)) == (400, "bad_request")
    assert "worker-1" not in bench.state.heartbeats.last_ms


async def test_fields_of_a_newer_watcher_are_let_through(bench: Any) -> None:
    token = await staked(bench)
    assert (await bench.beat(token, "worker-1", invented_later=[1])).status_code == 200
