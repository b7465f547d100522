"""Ready time: counted as it is seen, reported where it is paid, and never twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.chain import ChainUnreachable, MoveAbort, Receipt
from k3s_daas.chain.errors import OutcomeUnknown
from k3s_daas.registry import MAX_READY_BATCH, Master, Worker, WorkerStatus
from k3s_daas.registry.model import RewardRates
from k3s_daas_master.cluster import NodeView
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.readytime import LONGEST_RETRY_S, RETRY_S, ReadyTime
from k3s_daas_master.store import Store

ADDRESS = "0x" + "cc" * 32
HOUR_MS = 3_600_000
SUI = 10**9


class RewardsFake:
    """The contract's arithmetic of Ready time, and the ways in which an answer is lost."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.pool_mist, self.rates = 1_000 * SUI, RewardRates(0, SUI, 1_000 * SUI)
        self.workers: dict[str, Worker] = {}
        self.reports: list[dict[str, int]] = []
        self.reads = 0
        self.now_ms = 0
        # Raised instead of the report's execution, or after it.
        self.refusal: Exception | None = None
        self.lost_answer: BaseException | None = None
        self.unreadable: Exception | None = None
        #: What was counted of each worker, in ms.
        self.credited: dict[str, int] = {}

    def stake(self, name: str) -> None:
        now = self.clock.now_ms()
        self.workers[name] = Worker(
            name, "0x1", SUI, WorkerStatus.ACTIVE, "0x5", "0x1", now, now, SUI, 0, 0, 0, 100
        )
        self.workers[name] = replace(self.workers[name], ready_reported_until_ms=now)

    async def config(self) -> Any:
        self.reads += 1
        if self.unreadable is not None:
            raise self.unreadable
        return SimpleNamespace(pool_mist=self.pool_mist, rates=self.rates)

    async def workers_by_id(self, node_ids: Iterable[str]) -> dict[str, Worker]:
        self.reads += 1
        if self.unreadable is not None:
            raise self.unreadable
        return {name: self.workers[name] for name in node_ids if name in self.workers}

    async def report_ready(self, ready_ms: Mapping[str, int]) -> Receipt:
        self.reports.append(dict(ready_ms))
        if self.refusal is not None:
            raise self.refusal
        now = self.now_ms = max(self.now_ms, self.clock.now_ms())  # a chain's time doesn't go back
        for name, ms in ready_ms.items():
            if (worker := self.workers.get(name)) is not None:
                passed = now - worker.ready_reported_until_ms
                self.credited[name] = self.credited.get(name, 0) + min(ms, passed)
                self.workers[name] = replace(worker, ready_reported_until_ms=now)
        if self.lost_answer is not None:
            raise self.lost_answer
        return Receipt("digest", 1, 1000, [], {})


class Wallet:
    """What the gas watch asks."""

    def __init__(self) -> None:
        self.mist = SUI

    async def balance(self, address: str) -> int:
        return self.mist


class Scene:
    """One master's Ready time around a registry. Time passes in looks."""

    def __init__(self, clock: Any, folder: Path, *, report_ms: int = HOUR_MS) -> None:
        self.clock, self.folder, self.report_ms = clock, folder, report_ms
        self.chain, self.wallet = RewardsFake(clock), Wallet()
        self.index = TokenIndex()
        self.index.loaded = self.index.settled = True
        self.index.master = Master(1, ADDRESS, "", "", b"", 0)
        self.view = ChainView(clock)
        self.nodes: dict[str, NodeView] = {}
        self.ready: set[str] = set()
        self.following = True
        self.sequence = 0
        self.start()

    def start(self) -> None:
        self.store = Store(self.folder)
        self.gas = GasWatch(self.wallet, self.view, ADDRESS, SUI // 10, SUI // 50, self.clock)
        self.subject = ReadyTime(
            index=self.index,
            view=self.view,
            registry=self.chain,
            rows=self.store.ready_time,
            gas=self.gas,
            nodes=lambda: self.nodes,
            address=ADDRESS,
            report_ms=self.report_ms,
            clock=self.clock,
        )

    def restart(self) -> None:
        """As after a crash: nothing is said good-bye to."""
        self.store.close()
        self.start()

    def add(self, *names: str, status: WorkerStatus = WorkerStatus.ACTIVE) -> None:
        for name in names:
            self.chain.stake(name)
            self.index.workers[name] = WorkerView(name, "0x1", SUI, status, self.clock.now_ms())
            self.ready.add(name)

    def status(self, name: str, status: WorkerStatus) -> None:
        self.index.workers[name] = replace(self.index.workers[name], status=status)

    async def look(self, seconds: float = 10) -> None:
        self.clock.advance(seconds)
        now = self.clock.now_ms()
        if self.following:
            self.sequence += 1
            self.view.seen(self.sequence, now)
        self.nodes = {name: NodeView(name, name in self.ready, False, now) for name in self.index.workers}
        await self.gas.look()
        await self.subject.turn()

    async def passes(self, minutes: float) -> None:
        for _ in range(round(minutes * 6)):
            await self.look()

    async def begin(self) -> None:
        """The two looks after which time counts: one learns the rate, one sees who is up."""
        await self.look(0)
        await self.look(0)

    @property
    def counted(self) -> dict[str, int]:
        return {name: row.counted_ms for name, row in self.store.ready_time.all().items() if row.counted_ms}


@pytest.fixture
def make_scene(clock: Any, tmp_path: Path) -> Callable[..., Scene]:
    return lambda **how: Scene(clock, tmp_path, **how)


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()


# -- what is reported --------------------------------------------------------------------------------------


async def test_an_hour_of_ready_time_is_reported_once_an_hour(scene: Scene) -> None:
    scene.add("a", "b")
    await scene.begin()
    await scene.passes(59)
    assert scene.chain.reports == []
    await scene.passes(2)
    assert scene.chain.reports == [{"a": HOUR_MS, "b": HOUR_MS}]
    await scene.passes(120)
    assert scene.chain.reports == [{"a": HOUR_MS, "b": HOUR_MS}] * 3
    assert scene.chain.credited == {"a": 3 * HOUR_MS, "b": 3 * HOUR_MS}
    assert scene.subject.problem is None


async def test_one_who_has_less_goes_with_the_others(scene: Scene) -> None:
    scene.add("a", "b")
    await scene.begin()
    scene.ready.remove("b")
    await scene.passes(20)
    scene.ready.add("b")
    await scene.passes(40)
    # Between not ready and ready is not ready.
    assert scene.chain.reports == [{"a": HOUR_MS, "b": 40 * 60_000 - 10_000}]


@pytest.mark.parametrize("status", [s for s in WorkerStatus if s not in ("active", "busy")])
async def test_only_those_at_work_count(status: WorkerStatus, scene: Scene) -> None:
    scene.add("a", "other")
    scene.add("busy", status=WorkerStatus.BUSY)
    await scene.begin()
    await scene.passes(1)
    scene.status("other", status)
    await scene.passes(10)
    assert scene.counted == {"a": 660_000, "busy": 660_000, "other": 60_000}


async def test_a_node_without_fresh_lease_does_not_count(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(1)
    seen_ms = scene.clock.now_ms()
    for _ in range(30):
        scene.clock.advance(10)
        scene.sequence += 1
        scene.view.seen(scene.sequence, scene.clock.now_ms())
        scene.nodes = {"a": NodeView("a", True, False, seen_ms)}
        await scene.subject.turn()
    assert scene.counted == {"a": 120_000}  # a lease is good for 65 s


async def test_more_workers_than_a_batch_go_in_several(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(report_ms=60_000)
    names = [f"w{number:03}" for number in range(MAX_READY_BATCH + 1)]
    scene.add(*names)
    await scene.begin()
    await scene.passes(1)
    assert [len(report) for report in scene.chain.reports] == [MAX_READY_BATCH, 1]
    assert scene.chain.credited == dict.fromkeys(names, 60_000)


# -- what isn't --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "pool"),
    [((7, 0, SUI), SUI), ((0, SUI, 0), SUI), ((0, SUI, SUI), 0)],
    ids=["no rate", "no cap", "empty pool"],
)
async def test_nothing_is_counted_or_sent_where_nothing_is_paid(
    rates: tuple[int, int, int], pool: int, scene: Scene
) -> None:
    scene.chain.rates, scene.chain.pool_mist = RewardRates(*rates), pool
    scene.add("a")
    await scene.begin()
    await scene.passes(180)
    assert (scene.chain.reports, scene.counted) == ([], {})
    assert scene.chain.reads <= 182  # the rates, once a minute
    # What is paid from now on is for the time from now on.
    scene.chain.rates, scene.chain.pool_mist = RewardRates(0, SUI, 1_000 * SUI), 100 * SUI
    await scene.passes(60)
    assert scene.chain.reports == []
    await scene.passes(2)
    assert [set(report) for report in scene.chain.reports] == [{"a"}]
    assert HOUR_MS <= scene.chain.credited["a"] <= HOUR_MS + 60_000


async def test_what_is_worth_less_than_a_mist_waits(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(report_ms=60_000)
    scene.chain.rates = RewardRates(0, 30, SUI)  # 1 MIST in 2 minutes
    scene.add("a")
    await scene.begin()
    await scene.passes(1.5)
    assert scene.chain.reports == []
    await scene.passes(0.5)
    assert scene.chain.reports == [{"a": 120_000}]


async def test_a_stale_view_counts_and_sends_nothing(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(58)
    scene.following = False
    await scene.passes(30)
    assert scene.chain.reports == []
    assert scene.counted["a"] == 59 * 60_000  # a view is fresh for 60 s
    scene.following = True
    await scene.passes(1.2)
    assert scene.chain.reports == [{"a": HOUR_MS}]


async def test_the_gas_reserve_is_not_spent_on_it(scene: Scene) -> None:
    scene.add("a")
    scene.wallet.mist = SUI // 50 - 1
    await scene.begin()
    await scene.passes(90)
    assert scene.chain.reports == []
    assert "nor Ready time reported" in (scene.gas.alert() or "")
    scene.wallet.mist = SUI
    await scene.passes(1)
    (report,) = scene.chain.reports
    assert 90 * 60_000 <= report["a"] <= 91 * 60_000, "nothing is lost meanwhile"


async def test_before_the_wallet_was_looked_at_nothing_is_sent(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(report_ms=60_000)
    scene.add("a")
    await scene.begin()
    scene.gas.balance_mist = None
    scene.gas._looked = scene.clock.monotonic()  # within its minute
    await scene.passes(0.5)
    scene.store.ready_time.add({"a": scene.index.workers["a"].registered_at_ms}, 60_000)
    await scene.look()
    assert scene.chain.reports == []


async def test_another_master_reports_from_then_on(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(59)
    scene.index.master = Master(2, "0x" + "ee" * 32, "", "", b"", 0)
    await scene.passes(30)
    assert (scene.chain.reports, scene.store.ready_time.all()) == ([], {})
    scene.index.master = Master(3, ADDRESS, "", "", b"", 0)
    await scene.passes(59)
    assert scene.chain.reports == []


async def test_before_the_registry_is_read_nothing_is_known(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(1)
    scene.index.settled = False
    await scene.passes(5)
    assert scene.counted == {"a": 60_000}
    scene.index.settled = True
    await scene.passes(1)
    assert scene.counted == {"a": 110_000}


async def test_a_new_stake_of_the_same_name_starts_at_zero(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(59)
    scene.add("a")
    await scene.passes(2)
    assert scene.chain.reports == []
    assert scene.counted == {"a": 110_000}
    del scene.index.workers["a"]
    await scene.look()
    assert scene.store.ready_time.all() == {}


async def test_a_worker_that_the_chain_has_no_more_is_left_out(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(report_ms=60_000)
    scene.add("a", "gone")
    await scene.begin()
    del scene.chain.workers["gone"]
    await scene.passes(1)
    assert scene.chain.reports == [{"a": 60_000}]
    del scene.chain.workers["a"]
    await scene.passes(5)
    assert len(scene.chain.reports) == 1


async def test_a_long_time_without_a_look_does_not_count(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.look(65)
    assert scene.counted == {"a": 65_000}
    await scene.look(66)
    assert scene.counted == {"a": 65_000}


async def test_a_clock_set_forward_makes_no_ready_time(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(1)
    scene.clock.ms += 10 * HOUR_MS  # the wall clock alone
    await scene.passes(1)
    assert scene.counted == {"a": 120_000}


async def test_more_than_passed_on_chain_is_cut(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(50)
    # Another master had reported, half an hour ago.
    worker = scene.chain.workers["a"]
    mark = scene.clock.now_ms() - HOUR_MS // 2
    scene.chain.workers["a"] = replace(worker, ready_reported_until_ms=mark)
    await scene.passes(11)
    (report,) = scene.chain.reports
    assert report == {"a": HOUR_MS // 2 + 600_000}
    await scene.passes(30)
    assert len(scene.chain.reports) == 1, "what was cut doesn't come back"


# -- failures ----------------------------------------------------------------------------------------------


async def test_a_refusal_is_tried_again_less_and_less_often_and_nothing_is_lost(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    scene.chain.refusal = MoveAbort("worker_registry", "assert_master", 1, "EUnauthorizedMaster", "No master")
    await scene.passes(60)
    assert len(scene.chain.reports) == 1
    assert "No master" in (scene.subject.problem or "")
    await scene.passes(240)
    tries = len(scene.chain.reports)
    assert tries <= 9, "60 s, 2, 4, 8, 16, 32 min, then each hour"
    scene.chain.refusal = None
    await scene.passes(61)
    assert len(scene.chain.reports) in (tries + 1, tries + 2)
    assert scene.subject.problem is None
    assert abs(scene.chain.credited["a"] - 361 * 60_000) <= HOUR_MS
    counted = scene.chain.credited["a"] + scene.counted.get("a", 0)
    assert 360 * 60_000 <= counted <= 361 * 60_000 + 10_000


async def test_a_report_whose_answer_was_lost_is_not_sent_again(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    scene.chain.lost_answer = OutcomeUnknown("digest", {"https://node": "reset"})
    await scene.passes(60)
    assert scene.chain.credited == {"a": HOUR_MS}
    assert scene.subject.problem is not None
    scene.chain.lost_answer = None
    await scene.passes(59)
    assert len(scene.chain.reports) == 1
    await scene.passes(2)
    assert scene.chain.reports == [{"a": HOUR_MS}] * 2
    assert scene.chain.credited == {"a": 2 * HOUR_MS}


async def test_a_report_that_never_arrived_is_sent_again(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    scene.chain.refusal = OutcomeUnknown("digest", {"https://node": "reset"})
    await scene.passes(60)
    assert scene.chain.credited == {}
    scene.chain.refusal = None
    await scene.passes(1)
    assert scene.chain.reports == [{"a": HOUR_MS}, {"a": HOUR_MS + 60_000}]


async def test_what_of_several_batches_arrived_stays(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(report_ms=60_000)
    names = [f"w{number:03}" for number in range(MAX_READY_BATCH + 1)]
    scene.add(*names)
    await scene.begin()
    sent = scene.chain.report_ready

    async def second_fails(ready_ms: Mapping[str, int]) -> Receipt:
        if len(scene.chain.reports) == 1:
            scene.chain.reports.append(dict(ready_ms))
            raise ChainUnreachable({"https://node": "down"})
        return await sent(ready_ms)

    scene.chain.report_ready = second_fails  # type: ignore[method-assign]
    await scene.passes(1)
    assert len(scene.chain.credited) == MAX_READY_BATCH
    await scene.passes(1)
    assert scene.chain.credited == dict.fromkeys(names, 120_000)


async def test_rates_that_cannot_be_read_stop_reports_not_counting(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(30)
    scene.chain.unreadable = ChainUnreachable({"https://node": "down"})
    await scene.passes(40)
    assert (scene.chain.reports, scene.counted["a"]) == ([], 70 * 60_000)
    scene.chain.unreadable = None
    await scene.passes(35)
    assert len(scene.chain.reports) >= 1
    assert scene.subject.problem is None


async def test_a_mistake_of_ours_ends_nothing(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    scene.chain.unreadable = KeyError("shape")
    await scene.passes(2)
    assert scene.subject.problem == "KeyError: 'shape'"


async def test_the_pause_is_bounded(scene: Scene) -> None:
    scene.chain.unreadable = ChainUnreachable({})
    for _ in range(2_000):
        await scene.look(LONGEST_RETRY_S)
    assert scene.subject._pause_s() == LONGEST_RETRY_S


# -- restarts ----------------------------------------------------------------------------------------------


async def test_a_restart_forgets_nothing_and_counts_nothing_meanwhile(scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(30)
    scene.restart()
    scene.clock.advance(7_200)
    await scene.begin()
    assert scene.counted == {"a": 30 * 60_000}
    await scene.passes(29)
    assert scene.chain.reports == []
    await scene.passes(1)
    assert scene.chain.reports == [{"a": HOUR_MS}]


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_crash_while_a_report_is_under_way(arrived: bool, scene: Scene) -> None:
    scene.add("a")
    await scene.begin()
    await scene.passes(59)
    crash = asyncio.CancelledError()
    setattr(scene.chain, "lost_answer" if arrived else "refusal", crash)
    with pytest.raises(asyncio.CancelledError):
        await scene.passes(1)
    scene.chain.lost_answer = scene.chain.refusal = None
    scene.restart()
    reads = scene.chain.reads
    await scene.look(0)
    assert scene.chain.reads == reads, "the report gets the time to arrive"
    await scene.passes(RETRY_S / 60 + 0.5)
    assert scene.chain.credited == {"a": HOUR_MS}
    assert len(scene.chain.reports) == (1 if arrived else 2)


# -- for every order of events -----------------------------------------------------------------------------

# What may happen, how often, and with what. By hypothesis's own choice hardly any run would get to a report.
STEPS: dict[str, tuple[int, list[Any]]] = {
    "look": (30, [0.4, 10, 10, 40, 40, 60, 70]),
    "unseen": (3, [1, 30]),
    "ready": (5, ["a", "b"]),
    "jailed": (2, ["a", "b"]),
    "answers": (4, ["come", "come", "lost", "refused"]),
    "pay": (1, [0, SUI, SUI]),
    "restake": (1, ["a", "b"]),
    "restart": (1, [None]),
    "masters": (1, [None]),
    "wall clock": (1, [-30_000, 30_000]),
}


def some_steps(seed: int) -> list[tuple[str, Any]]:
    dice = random.Random(seed)  # noqa: S311 - no secret
    kinds = dice.choices(list(STEPS), [weight for weight, _ in STEPS.values()], k=200)
    return [(kind, dice.choice(STEPS[kind][1])) for kind in kinds]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
async def test_never_more_is_reported_than_was_ready(
    seed: int, make_chain: Any, tmp_path_factory: Any
) -> None:
    """The sum of what the contract took in is at most the time in which the worker was up, by a clock of the
    test's own, whatever fails in between; what is still to be reported included."""
    clock = make_chain().clock
    scene = Scene(clock, tmp_path_factory.mktemp("state"), report_ms=60_000)
    scene.add("a", "b")
    up = dict.fromkeys(("a", "b"), 0.0)

    def time_passes(seconds: float) -> None:
        for name in up:
            if name in scene.ready and scene.index.workers[name].status is WorkerStatus.ACTIVE:
                up[name] += seconds * 1000

    await scene.begin()
    for kind, value in some_steps(seed):
        match kind:
            case "look":
                time_passes(value)
                await scene.look(value)
            case "unseen":
                time_passes(value)
                clock.advance(value)
            case "ready":
                scene.ready ^= {value}
            case "jailed":
                active = scene.index.workers[value].status is WorkerStatus.ACTIVE
                scene.status(value, WorkerStatus.JAILED if active else WorkerStatus.ACTIVE)
            case "restake":
                was_ready = value in scene.ready
                clock.advance(0.001)  # another stake is of another time
                scene.add(value)
                scene.ready ^= set() if was_ready else {value}
            case "pay":
                scene.chain.rates = RewardRates(0, value, SUI)
            case "answers":
                unknown = OutcomeUnknown("digest", {"https://node": "reset"})
                scene.chain.lost_answer = unknown if value == "lost" else None
                scene.chain.refusal = unknown if value == "refused" else None
            case "restart":
                scene.restart()
            case "masters":  # another one for a while
                scene.index.master = Master(2, "0xee", "", "", b"", 0)
                time_passes(10)
                await scene.look(10)
                scene.index.master = Master(3, ADDRESS, "", "", b"", 0)
            case "wall clock":
                clock.ms += value
    rows = scene.store.ready_time.all()
    scene.store.close()
    for name, real_ms in up.items():
        pending = rows[name].counted_ms if name in rows else 0
        assert scene.chain.credited.get(name, 0) + pending <= real_ms


# -- in the service ----------------------------------------------------------------------------------------


@pytest.fixture
def rewards(chain: Any, clock: Any) -> RewardsFake:
    """The fake registry pays for Ready time, too."""
    fake = RewardsFake(clock)
    chain.config, chain.report_ready, chain.workers_by_id = (
        fake.config,
        fake.report_ready,
        fake.workers_by_id,
    )
    fake.workers = chain.workers
    return fake


async def test_the_running_master_reports_and_says_when_it_cannot(rewards: RewardsFake, bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.chain.workers["worker-1"] = replace(
        bench.chain.workers["worker-1"], ready_reported_until_ms=bench.clock.ms
    )

    async def minutes(number: int) -> None:
        for _ in range(2 * number):
            bench.clock.advance(30)
            bench.kube.renew("worker-1")
            assert (await bench.beat(token, "worker-1")).status_code == 200
            bench.chain.checkpoint()
            await bench.catch_up()
            await bench.state.fleet.reconcile()
            await bench.state.ready_time.turn()

    await bench.state.ready_time.turn()
    await minutes(30)
    await bench.restart()
    await minutes(29)
    assert rewards.reports == []
    rewards.refusal = ChainUnreachable({"https://node": "down"})
    await minutes(3)
    assert any(alert.startswith("ready time: ") for alert in bench.state.alerts())
    rewards.refusal = None
    await minutes(5)
    assert bench.state.alerts() == []
    assert set(rewards.credited) == {"worker-1"}
    bench.kube.broken = True  # the cluster can't be looked at: what was seen last says nothing
    (before,) = bench.state.store.ready_time.all().values()
    await minutes(5)
    (after,) = bench.state.store.ready_time.all().values()
    assert after == before
