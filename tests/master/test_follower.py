"""The chain follower: nothing lost, nothing taken twice, nothing believed that was overtaken."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable, CheckpointEvents, Event, ForkedChain, ReplayGap
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.follower import Follower, mark_of
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import MARKS, Store


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_each_change_on_chain_reaches_the_index(bench: Any) -> None:
    first = bench.chain.stake("worker-1", bench.owner_a)
    await bench.catch_up()
    index = bench.state.index
    assert index.find(first).generation == 1
    second = bench.chain.mint("worker-1")
    await bench.catch_up()
    assert index.find(first) is None
    assert index.find(second).generation == 2
    bench.chain.revoke("worker-1")
    await bench.catch_up()
    assert index.find(second).revoked
    bench.chain.set_status("worker-1", WorkerStatus.JAILED)
    await bench.catch_up()
    assert index.workers["worker-1"].status is WorkerStatus.JAILED
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert index.workers["worker-1"].status is WorkerStatus.SLASHED
    assert index.workers["worker-1"].stake_mist == 9 * 10**8
    assert bench.state.store.open_removals() == ["worker-1"]


async def test_a_stake_that_was_raised_is_shown(bench: Any) -> None:
    bench.chain.stake("worker-1")
    bench.chain.deposit("worker-1", 5 * 10**8)
    await bench.catch_up()
    assert bench.state.index.workers["worker-1"].stake_mist == 15 * 10**8


async def test_a_master_that_is_voided_is_none_any_more(bench: Any) -> None:
    await bench.catch_up()
    master = bench.state.index.master
    bench.chain.emit("nautilus::MasterVoidedEvent", epoch=str(master.epoch - 1), account=master.account)
    await bench.catch_up()
    assert bench.state.index.master == master
    bench.chain.emit("nautilus::MasterVoidedEvent", epoch=str(master.epoch), account=master.account)
    await bench.catch_up()
    assert bench.state.index.master is None


async def test_a_worker_that_left_is_gone_with_its_token(bench: Any) -> None:
    token = bench.chain.stake("worker-1")
    bench.chain.withdraw("worker-1")
    await bench.catch_up()
    assert bench.state.index.workers == {}
    assert bench.state.index.find(token) is None


async def test_slashed_is_final_even_for_later_events(bench: Any) -> None:
    bench.chain.stake("worker-1")
    bench.chain.slash("worker-1")
    await bench.catch_up()
    bench.chain.set_status("worker-1", WorkerStatus.ACTIVE)
    await bench.catch_up()
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.SLASHED


async def test_a_new_master_is_noticed(bench: Any) -> None:
    await bench.state.fleet.reconcile()
    await bench.catch_up()
    assert bench.state.fleet.announced()
    bench.chain.master = None
    bench.chain.emit("nautilus::MasterAppointedEvent", epoch="2", account="0x" + "dd" * 32)
    await bench.catch_up()
    assert bench.state.index.master.epoch == 2
    assert not bench.state.fleet.announced()
    assert (await bench.api.get("/readyz")).status_code == 503


async def test_other_packages_and_registries_are_not_ours(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    before = bench.state.follower.events
    fields = {
        "node_id": "worker-1",
        "owner": bench.owner_a,
        "amount": "1",
        "remaining": "0",
        "timestamp_ms": "1",
    }
    bench.chain.emit("slashing::WorkerSlashedEvent", registry="0x" + "ee" * 32, **fields)
    bench.chain.emit("slashing::WorkerSlashedEvent", package="0x" + "ee" * 32, **fields)
    await bench.catch_up()
    assert bench.state.follower.events == before
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.PENDING
    assert bench.state.store.open_removals() == []


async def test_a_restart_reads_a_snapshot_and_goes_on_from_the_cursor(bench: Any) -> None:
    token = bench.chain.stake("worker-1")
    bench.chain.mint("worker-1")
    await bench.catch_up()
    cursor = bench.state.store.cursor()
    assert cursor == bench.chain.log[-1].sequence
    bench.chain.clock.advance(1)
    await bench.restart()
    assert bench.chain.opened_after[-1] == cursor
    assert bench.state.follower.events == 0, "nothing is handled twice"
    assert bench.state.index.find(token) is None
    assert bench.state.index.worker_token("worker-1").generation == 2


async def test_what_happened_while_down_is_caught_up_with(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    cursor = bench.state.store.cursor()

    # The chain moves between the end of one master and the start of the next.
    original = bench.chain.snapshot

    async def snapshot() -> Any:
        if bench.state.store is not None and "worker-2" not in bench.chain.workers:
            bench.chain.stake("worker-2")
            bench.chain.slash("worker-1")
        return await original()

    bench.chain.snapshot = snapshot
    await bench.restart()
    assert bench.chain.opened_after[-1] == cursor
    assert bench.state.follower.events == 3
    assert set(bench.state.index.workers) == {"worker-1", "worker-2"}
    assert bench.state.store.open_removals() == ["worker-1"]


async def test_nobody_registers_while_known_events_come_again(bench: Any) -> None:
    old = bench.chain.stake("worker-1", bench.owner_a)
    bench.chain.withdraw("worker-1")
    bench.clock.advance(1)
    bench.chain.stake("worker-1", bench.owner_b)
    await bench.catch_up()
    # A snapshot that began before all that and ended after it: the old token comes again for a moment.
    original = bench.chain.snapshot

    async def slow_snapshot() -> Any:
        return replace(await original(), checkpoint=100)

    stream = bench.chain.checkpoints
    seen: list[tuple[int, str]] = []

    async def watched(after: int | None, packages: Any = None, digest: Any = None) -> Any:
        async for batch in stream(after, packages):
            yield batch
            await bench.state.fleet._learn_ca()
            if not bench.state.index.settled:
                seen.append(bench.refusal(await bench.register(old, "worker-1")))

    bench.chain.snapshot, bench.chain.checkpoints = slow_snapshot, watched
    bench.state.store.set_cursor(100)
    await bench.restart()
    assert len(seen) >= 3
    assert set(seen) == {(503, "not_ready")}
    assert bench.refusal(await bench.register(old, "worker-1")) == (401, "token_unknown")


def make(chain: Any, clock: Any, deployment: Any, path: Any, **how: Any) -> Follower:
    return Follower(
        chain=chain,
        registry=chain,
        deployment=deployment,
        index=TokenIndex(),
        view=ChainView(clock),
        store=Store(path),
        clock=clock,
        retry_s=(0.0,),
        **how,
    )


async def test_duplicates_are_dropped(chain: Any, clock: Any, deployment: Any, tmp_path: Any) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    follower._index.load(await chain.snapshot())
    token = chain.stake("worker-1")
    batches = list(chain.log[1:])
    events = [event for batch in batches for event in batch.events]
    twice = CheckpointEvents(101, clock.ms, [*events, *events])
    follower.take(twice, 100)
    assert follower.events == len(events)
    handled = follower._store.handled()
    assert handled == (len(events), sum(map(mark_of, events)) % MARKS)
    follower.take(twice, 100)
    assert follower.events == len(events), "the checkpoint was taken in already"
    assert follower._store.handled() == handled
    assert follower._index.find(token) is not None


async def test_events_older_than_the_snapshot_do_not_turn_it_back(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    chain.stake("worker-1")
    chain.set_status("worker-1", WorkerStatus.ACTIVE)
    chain.set_status("worker-1", WorkerStatus.JAILED)
    follower = make(chain, clock, deployment, tmp_path)
    snapshot = await chain.snapshot()
    follower._index.load(snapshot)
    for batch in chain.log[1:]:
        follower.take(batch, snapshot.checkpoint)
        assert follower._index.workers["worker-1"].status is WorkerStatus.JAILED
    assert follower.events == 4, "their effects were still looked at"


async def test_an_older_generation_that_comes_again_displaces_nothing(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    chain.stake("worker-1")
    created = chain.log[-1]
    newest = chain.mint("worker-1")
    follower = make(chain, clock, deployment, tmp_path)
    follower._index.load(await chain.snapshot())
    follower.take(created, 100)
    assert follower._index.find(newest).generation == 2


async def test_cursor_and_effect_are_committed_together(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    store = follower._store
    chain.stake("worker-1")
    chain.slash("worker-1")
    slashed = chain.log[-1]

    def power_cut(*_: Any) -> None:
        raise OSError("gone")

    monkeypatch.setattr(store, "set_cursor", power_cut)
    with pytest.raises(OSError, match="gone"):
        follower.take(slashed, 100)
    monkeypatch.undo()
    assert store.open_removals() == []
    assert store.cursor() is None
    assert store.handled() == (0, 0)
    follower.take(slashed, 100)
    assert store.open_removals() == ["worker-1"]
    assert store.cursor() == slashed.sequence


async def test_a_lost_chain_is_found_again(bench: Any) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    bench.state.follower._retry_s = (0.0,)
    bench.chain.refuse_reads = ChainUnreachable({"https://fullnode.invalid": "refused"})
    bench.chain.checkpoint()
    await until(lambda: bench.state.follower.problem and "refused" in bench.state.follower.problem)
    bench.chain.refuse_reads = None
    bench.chain.stake("worker-2")
    await until(lambda: "worker-2" in bench.state.index.workers)
    assert bench.state.follower.problem is None


async def test_a_replay_gap_is_counted_and_bridged_by_a_snapshot(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    follower._store.set_cursor(5)
    stream = chain.checkpoints

    async def pruned(after: int | None, packages: Any = None, digest: Any = None) -> Any:
        if after == 5:
            raise ReplayGap(5, 90)
        async for batch in stream(after, packages):
            yield batch

    chain.checkpoints = pruned
    chain.stake("worker-1")
    chain.slash("worker-1")
    task = asyncio.create_task(follower.run())
    await until(lambda: follower.replay_gaps == 1 and follower._store.cursor() is not None)
    chain.stake("worker-2")
    await until(lambda: "worker-2" in follower._index.workers)
    assert follower._store.open_removals() == ["worker-1"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_event_that_cannot_be_read_leads_to_a_new_snapshot(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    task = asyncio.create_task(follower.run())
    await until(lambda: chain.opened_after)
    chain.workers["worker-9"] = replace(
        (chain.stake("worker-1"), chain.workers["worker-1"])[1], node_id="worker-9"
    )
    type_ = f"{deployment.package_id}::worker_registry::WorkerRegisteredEvent"
    chain.checkpoint(
        [Event("bad", 0, type_, {"registry": deployment.registry_id, "node_id": "NOT A NAME"}, "0x1")]
    )
    await until(lambda: "worker-9" in follower._index.workers)
    assert follower._store.cursor() == chain.log[-1].sequence
    chain.stake("worker-2")
    await until(lambda: "worker-2" in follower._index.workers)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -- what is not believed ---------------------------------------------------------------------------------


async def test_the_cursor_keeps_the_digest_that_tells_another_history(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    follower._index.load(await chain.snapshot())
    chain.stake("worker-1")
    follower.take(replace(chain.log[-1], digest="d-of-it"), 100)
    assert follower._store.cursor_digest() == "d-of-it"
    follower._store.close()
    again = make(chain, clock, deployment, tmp_path)
    asked: list[Any] = []
    stream = chain.checkpoints

    def watched(after: int | None, packages: Any = None, digest: Any = None) -> Any:
        asked.append((after, digest))
        return stream(after, packages)

    chain.checkpoints = watched
    task = asyncio.create_task(again.run())
    await until(lambda: asked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert asked == [(chain.log[-1].sequence, "d-of-it")]


async def test_a_registry_older_than_what_was_seen_is_not_loaded(bench: Any) -> None:
    token = bench.chain.stake("worker-1")
    await bench.catch_up()
    lagging = await bench.chain.snapshot()
    bench.chain.slash("worker-1")
    await bench.catch_up()
    bench.state.follower._retry_s = (0.0,)
    truth = bench.chain.snapshot

    async def old() -> Any:
        return lagging

    bench.chain.snapshot = old
    bench.chain.refuse_reads = ChainUnreachable({"x": "cut"})
    bench.chain.checkpoint()
    await until(lambda: bench.state.follower.problem and "cut" in bench.state.follower.problem)
    bench.chain.refuse_reads = None
    await until(lambda: bench.chain.endpoints_left > 1)
    assert "older than" in bench.state.follower.problem
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.SLASHED
    assert bench.refusal(await bench.beat(token, "worker-1")) == (403, "worker_slashed")
    bench.chain.snapshot = truth
    await bench.catch_up()
    await until(lambda: bench.state.follower.problem is None)


async def test_two_histories_are_an_alert_and_nothing_is_taken_in(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    stream, lying = chain.checkpoints, True

    async def forked(after: int | None, packages: Any = None, digest: Any = None) -> Any:
        if lying:
            raise ForkedChain("another history")
        async for batch in stream(after, packages):
            yield batch

    chain.checkpoints = forked
    task = asyncio.create_task(follower.run())
    await until(lambda: follower.forked)
    chain.stake("worker-1")
    await until(lambda: follower.problem == "another history")
    assert follower.forks == 1, "one fork, however often it is met"
    assert follower.events == 0
    lying = False
    chain.stake("worker-2")
    await until(lambda: "worker-2" in follower._index.workers and not follower.forked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_gap_stays_an_alert_over_restarts_until_somebody_looked(bench: Any) -> None:
    assert (await bench.api.get("/readyz")).json()["alerts"] == []
    bench.state.store.note_gap(5, 90, bench.clock.ms)
    await bench.restart()
    await bench.state.fleet.reconcile()
    ready = await bench.api.get("/readyz")
    assert ready.status_code == 200, "tokens and heartbeats work: the gap holds back slashes only"
    (alert,) = ready.json()["alerts"]
    assert "after checkpoint 5 until 90" in alert
    assert "acknowledge-gap" in alert
    assert "k3s_daas_replay_gap_open 1.0" in (await bench.api.get("/metrics")).text
    assert bench.state.store.acknowledge_gaps(bench.clock.ms) == 1
    assert (await bench.api.get("/readyz")).json()["alerts"] == []
    assert bench.state.follower.gap() is None


async def test_a_gap_is_remembered_before_anything_is_read_past_it(
    chain: Any, clock: Any, deployment: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = make(chain, clock, deployment, tmp_path)
    follower._store.set_cursor(5)
    stream, note = chain.checkpoints, follower._store.note_gap

    async def pruned(after: int | None, packages: Any = None, digest: Any = None) -> Any:
        if after == 5:
            raise ReplayGap(5, 90)
        async for batch in stream(after, packages):
            yield batch

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    chain.checkpoints = pruned
    monkeypatch.setattr(follower._store, "note_gap", full)
    task = asyncio.create_task(follower.run())
    await until(lambda: follower.problem == "database or disk is full")
    assert follower.gap() is not None
    assert follower._store.cursor() == 5
    monkeypatch.setattr(follower._store, "note_gap", note)
    await until(lambda: follower.problem is None)
    assert follower._store.open_gaps() == [(clock.ms, 5, 90)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_with_a_full_disk_the_index_is_still_fed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    bench.state.follower._retry_s = (0.0,)
    real = bench.state.store.set_cursor

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.state.store, "set_cursor", full)
    bench.chain.slash("worker-1")
    await until(lambda: bench.state.follower.problem == "database or disk is full")
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.SLASHED
    assert bench.state.view.fresh()
    monkeypatch.setattr(bench.state.store, "set_cursor", real)
    bench.chain.checkpoint()
    await until(lambda: bench.state.store.open_removals() == ["worker-1"])


# -- freshness --------------------------------------------------------------------------------------------


def test_nothing_seen_is_not_fresh(clock: Any) -> None:
    view = ChainView(clock)
    assert view.age_ms() is None
    assert not view.fresh()
    assert view.dark()


def test_age_is_by_timestamp_and_by_arrival(clock: Any) -> None:
    view = ChainView(clock)
    view.seen(1, clock.ms - 59_000)
    assert view.fresh()
    clock.advance(2)
    assert not view.fresh()
    view.seen(2, clock.ms)
    clock.elapsed += 61
    assert not view.fresh(), "our wall clock standing still must not keep it fresh"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_of_ours_fails_closed(clock: Any, hours: int) -> None:
    view = ChainView(clock)
    view.seen(1, clock.ms + hours * 3_600_000)
    assert not view.fresh()


def test_a_localnet_may_be_turned_forward(clock: Any) -> None:
    view = ChainView(clock, chain_may_lead=True)
    view.seen(1, clock.ms + 91 * 86_400_000)
    assert view.fresh()
    assert view.now_ms() == clock.ms + 91 * 86_400_000


def test_a_backfilled_checkpoint_does_not_age_the_view(clock: Any) -> None:
    view = ChainView(clock)
    view.seen(10, clock.ms)
    view.seen(3, clock.ms - 3_600_000)
    assert view.sequence == 10
    assert view.fresh()
