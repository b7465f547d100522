"""Alerts are raised once and cleared once, also when the watcher is restarted meanwhile; and a network that
is cut for ten minutes punishes nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s_daas.chain.errors import ChainUnreachable, WrongNetwork
from k3s_daas.registry.model import WorkerStatus
from k3s_daas_watcher.agent import AgentState
from k3s_daas_watcher.alerts import NAMES, judge
from k3s_daas_watcher.views import report
from k3s_daas_watcher.watcher import RESTART_CAP

DAY_MS = 86_400_000


@pytest.fixture
def said(monkeypatch):
    """What was logged of alerts: [("raised" or "cleared", name)]."""
    lines: list[tuple[str, str]] = []

    class Log:
        def error(self, event, **fields):
            lines.append((event.removeprefix("alert "), fields["alert"]))

        info = error

    monkeypatch.setattr("k3s_daas_watcher.alerts.log", Log())
    return lines


async def test_a_well_worker_has_none(make_watcher, master, said):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    assert (watcher.store.state.alerts, said) == ({}, [])


async def test_a_restart_neither_forgets_nor_repeats(make_watcher, master, chain, clock, said):
    watcher = make_watcher()
    await watcher.check_chain()
    chain.error = ChainUnreachable({})
    await watcher.check_chain()
    assert said == [], "a minute is not worth an alert"
    clock.advance(61)
    await watcher.check_chain()
    raised_at = clock.now_ms()
    assert said == [("raised", "chain_unusable")]
    await watcher.check_chain()
    again = make_watcher()
    assert again.store.state.alerts["chain_unusable"].raised_at_ms == raised_at
    clock.advance(100)
    # Its first heartbeat comes before anything can be judged of the chain.
    await again.beat()
    await again.check_chain()
    assert said == [("raised", "chain_unusable")]
    assert again.store.state.alerts["chain_unusable"].raised_at_ms == raised_at
    third = make_watcher()
    chain.error = None
    await third.check_chain()
    assert said == [("raised", "chain_unusable"), ("cleared", "chain_unusable")]
    assert make_watcher().store.state.alerts == {}


async def test_the_wrong_network_is_told_at_once(make_watcher, master, chain, said):
    watcher = make_watcher()
    await watcher.check_chain()
    chain.error = WrongNetwork("a", "b", "c")
    await watcher.check_chain()
    assert said == [("raised", "chain_unusable")]


@pytest.mark.parametrize("shift_h", [-1, 1])
async def test_a_clock_that_is_an_hour_off_does_not_hide_a_dark_chain(
    make_watcher, master, chain, clock, said, shift_h
):
    watcher = make_watcher()
    await watcher.check_chain()
    clock.wall_ms += shift_h * 3_600_000
    chain.error = ChainUnreachable({})
    await watcher.check_chain()
    assert said == [("raised", "chain_unusable")]


@pytest.mark.parametrize(
    ("answer", "alert"),
    [
        ((401, "token_unknown"), "token_refused"),
        ((401, "token_revoked"), "token_refused"),
        ((503, "not_ready"), "heartbeat_refused"),
        ((400, "clock_skew"), "heartbeat_refused"),
    ],
)
async def test_what_three_failed_heartbeats_mean(make_watcher, master, refusal, said, answer, alert):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(*answer)
    for _ in range(2):
        await watcher.beat()
    assert said == []
    await watcher.beat()
    await watcher.beat()
    assert said == [("raised", alert)]
    master.on_heartbeat = None
    await watcher.beat()
    assert said == [("raised", alert), ("cleared", alert)]


async def test_a_cause_that_changes_changes_the_alert(make_watcher, master, refusal, chain, said):
    watcher = make_watcher()
    await watcher.check_chain()
    master.on_heartbeat = lambda _: refusal(401, "token_unknown")
    for _ in range(3):
        await watcher.beat()
    chain.set_master(endpoint="https://127.0.0.1:1", epoch=2)
    await watcher.check_chain()
    await watcher.beat()
    assert said[0] == ("raised", "token_refused")
    assert sorted(said[1:]) == [("cleared", "token_refused"), ("raised", "master_unreachable")]


async def test_an_ill_agent_and_one_that_is_given_up(make_watcher, master, refusal, probe, clock, said):
    watcher = make_watcher()
    await watcher.check_chain()
    probe.state = AgentState.UNHEALTHY
    master.on_heartbeat = lambda _: refusal(503, "not_ready")
    request = Path(watcher.config.state_dir) / "agent-control.json"
    for _ in range(3):
        await watcher.beat()
    assert ("raised", "agent_unhealthy") in said
    for _ in range(RESTART_CAP):
        clock.advance(3601)
        request.unlink(missing_ok=True)
        await watcher.beat()
    assert said[-1] == ("raised", "agent_restarts_given_up")
    # Heartbeats work again, the agent does not yet: nobody but the alert would look.
    master.on_heartbeat = None
    await watcher.beat()
    assert "agent_unhealthy" in watcher.store.state.alerts
    probe.state = AgentState.HEALTHY
    await watcher.beat()
    assert watcher.store.state.alerts == {}
    looks = probe.looks
    await watcher.beat()
    assert probe.looks == looks, "and then nobody looks again"


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        (lambda chain, now: chain.set_token(expires_at_ms=now + 14 * DAY_MS), "token_expires_soon"),
        (lambda chain, now: chain.set_token(expires_at_ms=now), "token_expired"),
        (lambda chain, now: chain.set_status(WorkerStatus.JAILED), None),
        (
            lambda chain, now: setattr(
                chain, "sighting", type(chain.sighting)(None, None, chain.sighting.master)
            ),
            "worker_not_registered",
        ),
    ],
)
async def test_what_the_records_say(make_watcher, master, chain, clock, said, change, alert):
    watcher = make_watcher()
    await watcher.check_chain()
    good = chain.sighting
    change(chain, clock.now_ms())
    await watcher.check_chain()
    assert list(watcher.store.state.alerts) == ([alert] if alert else [])
    chain.sighting = good
    await watcher.check_chain()
    assert watcher.store.state.alerts == {}


async def test_a_proposed_slash(make_watcher, master, chain, said):
    from dataclasses import replace

    from k3s_daas.registry.model import SlashProposal

    watcher = make_watcher()
    proposal = SlashProposal(1, bytes(32), 1, 2, WorkerStatus.ACTIVE)
    chain.sighting = replace(chain.sighting, worker=replace(chain.sighting.worker, proposal=proposal))
    await watcher.check_chain()
    assert said == [("raised", "slash_proposed")]


async def test_a_full_disk_is_said_and_stops_nothing(make_watcher, master, clock, said, monkeypatch, caplog):
    watcher = make_watcher()
    await watcher.check_chain()
    beats = len(master.heartbeats)

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("k3s_daas_watcher.state.write_atomic", full)
        for _ in range(3):
            clock.advance(10)
            await watcher.check_chain()
            assert await watcher.beat()
        assert len(master.heartbeats) == beats + 3
        assert said == [("raised", "state_unwritable")]
        assert report(watcher, clock).problems == ["state_unwritable"]
    clock.advance(10)
    await watcher.check_chain()
    await watcher.check_chain()
    assert said[-1] == ("cleared", "state_unwritable")
    assert report(watcher, clock).problems == []


async def test_every_alert_has_a_name_that_metrics_know(make_watcher, master, clock):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    watcher.live.agent = await watcher._probe.look()
    assert set(judge(watcher.config, watcher.store.state, watcher.live, clock.now_ms())) == set(NAMES)


# --- the network is cut ---


async def test_ten_minutes_without_a_network_punish_nobody(
    make_watcher, master, chain, clock, probe, said, tmp_path
):
    """Chain and master are gone for ten minutes, the agent is well: nothing is restarted or stopped, and all
    is as before when the network is back. The watcher itself is restarted in the middle."""
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    url = chain.sighting.master.endpoint
    started = clock.now_ms()
    known = watcher.store.state.master

    def cut() -> None:
        chain.error = ChainUnreachable({})
        # Nothing listens there: what a cut looks like to the one that sends.
        watcher._announced = None
        watcher.store.state.master = known.model_copy(update={"endpoint": "https://127.0.0.1:1"})

    cut()
    for step in range(60):
        clock.advance(10)
        await watcher.check_chain()
        if step % 3 == 2:
            assert not await watcher.beat()
        if step == 30:
            watcher = make_watcher()
    assert clock.now_ms() - started == 600_000
    assert not (tmp_path / "state" / "agent-control.json").exists(), "nobody asked root for anything"
    assert not (tmp_path / "state" / "slashed").exists()
    state = watcher.store.state
    assert (state.restarts, state.status, state.consecutive_failures) == (0, "active", 20)
    assert state.last_validation_ms == started
    assert sorted(state.alerts) == ["chain_unusable", "master_unreachable"]
    assert said == [("raised", name) for name in ("chain_unusable", "master_unreachable")]

    chain.error = None
    assert chain.sighting.master.endpoint == url
    await watcher.check_chain()
    assert await watcher.beat()
    assert watcher.store.state.alerts == {}
    assert watcher.store.state.consecutive_failures == 0
    assert report(watcher, clock).status == "ok"
    assert not (tmp_path / "state" / "agent-control.json").exists()
