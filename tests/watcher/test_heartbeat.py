"""Heartbeats: what is sent, which failures are told apart, and when an agent is restarted."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas_watcher.agent import AgentState
from k3s_daas_watcher.watcher import RESTART_CAP, Slashed


def request_file(watcher) -> Path:
    return Path(watcher.config.state_dir) / "agent-control.json"


async def test_a_heartbeat_says_what_the_master_wants_to_hear(make_watcher, master, clock, token):
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    assert master.heartbeats == [
        {
            "node_id": "worker-1",
            "timestamp_ms": clock.now_ms(),
            "stake_status": "active",
            "stake_mist": 1_500_000_000,
            "running_pods": 4,
            "resource_usage": {
                "cpu_percent": 1.0,
                "memory_percent": 2.0,
                "disk_percent": 3.0,
                "network_received_bytes": 500,
                "network_sent_bytes": 600,
            },
        }
    ]
    assert master.tokens == [token]


async def test_no_heartbeat_goes_out_before_a_master_is_known(make_watcher, master, chain):
    chain.error = ChainUnreachable({})
    watcher = make_watcher()
    await watcher.check_chain()
    assert not await watcher.beat()
    assert watcher.store.state.last_failure == "master_not_announced"
    assert master.tokens == []


async def test_heartbeats_go_on_while_the_chain_is_dark_also_over_a_restart(make_watcher, master, chain):
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    chain.error = ChainUnreachable({})
    again = make_watcher()
    await again.check_chain()
    assert await again.beat()
    assert len(master.heartbeats) == 2


async def test_a_master_that_moved_is_followed(make_watcher, master, chain, new_ca, serving):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    other = type(master)(new_ca("second"), b"")
    other.served_ca = other.ca.pem
    async with serving(other.app(), other.ca) as url:
        chain.set_master(endpoint=url, api_server=url, ca_hash=other.ca.hash, epoch=2)
        await watcher.check_chain()
        assert await watcher.beat()
        assert len(other.heartbeats) == 1
        await watcher.close()
    assert len(master.heartbeats) == 1


async def test_a_moved_master_with_the_wrong_ca_gets_no_token(make_watcher, master, chain, new_ca, serving):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    evil = type(master)(new_ca("evil"), b"")
    evil.served_ca = evil.ca.pem
    async with serving(evil.app(), evil.ca) as url:
        chain.set_master(endpoint=url, api_server=url, epoch=2)
        await watcher.check_chain()
        assert not await watcher.beat()
    assert watcher.store.state.last_failure == "ca_mismatch"
    assert evil.tokens == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "token_unknown"),
        (401, "token_revoked"),
        (403, "node_mismatch"),
        (400, "clock_skew"),
        (409, "timestamp_replayed"),
        (503, "not_ready"),
        (429, "rate_limited"),
    ],
)
async def test_kinds_of_refusal_are_told_apart(make_watcher, master, refusal, status, code):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(status, code)
    assert not await watcher.beat()
    assert watcher.store.state.last_failure == code


async def test_an_unreachable_master_is_a_kind_of_its_own(make_watcher, chain):
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    chain.set_master(endpoint="https://127.0.0.1:1", epoch=2)
    await watcher.check_chain()
    assert not await watcher.beat()
    assert watcher.store.state.last_failure == "master_unreachable"


async def test_success_ends_the_counting(make_watcher, master, refusal):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(503, "not_ready") if len(master.heartbeats) < 3 else None
    assert [await watcher.beat() for _ in range(3)] == [False, False, True]
    assert watcher.store.state.consecutive_failures == 0
    assert watcher.store.state.last_failure is None


# --- timestamps ---


async def test_timestamps_rise_over_a_restart_and_a_clock_set_back(make_watcher, master, clock):
    for step in (0.0, 0.0, -30.0, -30.0, 0.001, 90.0):
        clock.advance(step)
        watcher = make_watcher()
        await watcher.check_chain()
        assert await watcher.beat()
    sent = [beat["timestamp_ms"] for beat in master.heartbeats]
    assert sent == sorted(set(sent))
    assert sent[-1] == clock.now_ms()


async def test_a_beat_whose_answer_was_lost_is_not_repeated_with_its_timestamp(make_watcher, master, chain):
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    # Recorded by the master, then no answer that could be read.
    from starlette.responses import PlainTextResponse

    master.on_heartbeat = lambda _: PlainTextResponse("lost", 502)
    await watcher.beat()
    master.on_heartbeat = None
    again = make_watcher()
    await again.check_chain()
    assert await again.beat()
    sent = [beat["timestamp_ms"] for beat in master.heartbeats]
    assert sent == sorted(set(sent))
    assert len(sent) == 3


def checking(master, clock_of_master, refusal):
    """The master's own rule: within 60 s of its clock, and later than the last accepted."""
    last = {"ms": 0}

    def answer(body):
        now = clock_of_master()
        if abs(body["timestamp_ms"] - now) > 60_000:
            return refusal(400, "clock_skew")
        if body["timestamp_ms"] <= last["ms"]:
            return refusal(409, "timestamp_replayed")
        last["ms"] = body["timestamp_ms"]
        return None

    master.on_heartbeat = answer


@pytest.mark.parametrize("answered", [True, False])
async def test_a_clock_that_was_an_hour_ahead_silences_nobody_once_it_is_right(
    make_watcher, master, clock, refusal, answered
):
    right = clock.now_ms()
    checking(master, lambda: right, refusal)
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    clock.advance(3600)
    if not answered:
        from starlette.responses import PlainTextResponse

        rule, master.on_heartbeat = master.on_heartbeat, lambda _: PlainTextResponse("lost", 502)
        assert not await watcher.beat()
        master.on_heartbeat = rule
    else:
        assert not await watcher.beat()
        assert watcher.store.state.last_failure == "clock_skew"
    right += 60_000
    clock.wall_ms = right
    results = [await watcher.beat() for _ in range(2)]
    assert results[-1] is True


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(min_value=-3_600_000, max_value=3_600_000), min_size=1, max_size=30))
def test_what_is_sent_always_rises_unless_it_was_refused(make_watcher, clock, steps):
    watcher = make_watcher()
    state, sent = watcher.store.state, []
    state.timestamp_floor_ms = 0
    for step in steps:
        clock.wall_ms += step
        state.timestamp_floor_ms = watcher._timestamp()
        sent.append(state.timestamp_floor_ms)
    assert all(before < after for before, after in itertools.pairwise(sent))


# --- the agent ---


async def failing(make_watcher, master, refusal, times):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(503, "not_ready")
    for _ in range(times):
        assert not await watcher.beat()
    return watcher


async def test_two_failures_are_nobodys_concern(make_watcher, master, refusal, probe):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 2)
    assert probe.looks == 0
    assert not request_file(watcher).exists()


@pytest.mark.parametrize("state", [AgentState.HEALTHY, AgentState.STARTING, AgentState.UNKNOWN])
async def test_an_agent_that_is_not_ill_is_left_alone(make_watcher, master, refusal, probe, state):
    probe.state = state
    watcher = await failing(make_watcher, master, refusal, 10)
    assert probe.looks == 8
    assert not request_file(watcher).exists()
    assert watcher.store.state.restarts == 0


async def test_three_failures_and_an_ill_agent_ask_for_a_restart(make_watcher, master, refusal, probe):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 3)
    request = json.loads(request_file(watcher).read_text())
    assert (request["action"], request["reason"], request["node_id"]) == (
        "restart",
        "agent_unhealthy",
        "worker-1",
    )


async def test_restarts_come_slower_and_end(make_watcher, master, refusal, probe, clock):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 2)
    start, asked = clock.now_ms(), []
    # Over four hours: two after the last one that is allowed.
    for _ in range(250):
        request_file(watcher).unlink(missing_ok=True)
        await watcher._failed(_some_refusal())
        if request_file(watcher).exists():
            asked.append((clock.now_ms() - start) // 1000)
        clock.advance(60)
    assert len(asked) == RESTART_CAP
    waits = [after - before for before, after in itertools.pairwise(asked)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600]


async def test_the_backoff_survives_a_restart_of_the_watcher(make_watcher, master, refusal, probe, clock):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 3)
    request_file(watcher).unlink()
    again = make_watcher()
    clock.advance(30)
    await again._failed(_some_refusal())
    assert not request_file(again).exists()
    clock.advance(31)
    await again._failed(_some_refusal())
    assert request_file(again).exists()


async def test_a_clock_set_back_does_not_put_a_restart_off_for_ever(
    make_watcher, master, refusal, probe, clock
):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 3)
    request_file(watcher).unlink()
    clock.wall_ms -= 86_400_000
    await watcher._failed(_some_refusal())
    assert request_file(watcher).exists()


async def test_a_good_heartbeat_gives_the_agent_its_chances_back(make_watcher, master, refusal, probe):
    probe.state = AgentState.UNHEALTHY
    watcher = await failing(make_watcher, master, refusal, 3)
    assert watcher.store.state.restarts == 1
    master.on_heartbeat = None
    assert await watcher.beat()
    assert watcher.store.state.restarts == 0


async def test_the_masters_word_alone_is_no_slash(make_watcher, master, refusal, chain):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(403, "worker_slashed")
    before = chain.reads
    assert not await watcher.beat()
    assert chain.reads == before + 1


async def test_the_masters_word_makes_us_look_at_once(make_watcher, master, refusal, chain):
    from k3s_daas.registry.model import WorkerStatus

    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(403, "worker_slashed")
    chain.set_status(WorkerStatus.SLASHED)
    with pytest.raises(Slashed):
        await watcher.beat()


async def test_no_token_in_logs_or_state(make_watcher, master, refusal, token, caplog, chain):
    caplog.set_level(logging.DEBUG)
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    master.on_heartbeat = lambda _: refusal(401, "token_unknown", found=token, message=token, fix=token)
    for _ in range(4):
        await watcher.beat()
    body = token.removeprefix("seal_")
    everything = caplog.text + "".join(
        path.read_text() for path in Path(watcher.config.state_dir).iterdir() if path.is_file()
    )
    assert body[:20] not in everything
    assert body[:20] not in watcher.live.failure_detail


def _some_refusal():
    from k3s_daas_watcher.errors import Refusal

    return Refusal("master_unreachable", "m", found="f", wanted="w", fix="x")


async def test_a_timestamp_is_on_disk_before_it_is_sent(make_watcher, master, tmp_path):
    """Killed between sending and the answer, the next one must still be later."""
    on_disk = []

    def look(_body):
        on_disk.append(json.loads((tmp_path / "state" / "state.json").read_text())["timestamp_floor_ms"])

    master.on_heartbeat = look
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    assert on_disk == [master.heartbeats[0]["timestamp_ms"]]
