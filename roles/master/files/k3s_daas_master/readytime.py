"""Ready time: how long each worker was active with its Node Ready, reported on-chain, where it is paid.

Counted is what was seen: the time between two looks at both of which the worker was active (or busy) on-chain
and its Node Ready with a fresh lease. Nothing is counted while this master is down, while its view of the
chain is stale, or while the registry would pay nothing for it (rate, cap or pool are 0): so there is nothing
to send then, either. Looks are apart by the monotonic clock: setting the host's time makes no Ready time.

A report says how long since the worker's last one, and the contract counts at most the time that passed since
`ready_reported_until_ms`. Before a report is sent, it is written down together with that mark. When its fate
isn't known (no answer, a crash), the chain is asked: the mark moved, so it arrived; it didn't, so it is sent
again. Either way no time is reported twice.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from k3s_daas.chain import ChainError, Receipt
from k3s_daas.logs import get_logger
from k3s_daas.registry import MAX_READY_BATCH, RegistryConfig, Worker, WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import NodeView
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.ready_store import ReadyRow, ReadyStore
from k3s_daas_master.statuses import FRESH_MS, node_is_up

_log = get_logger("k3s_daas_master.readytime")

_LOOK_S = 10.0
#: How old the rates may be by which it is counted and reported.
RATES_S = 60.0
#: After a failure the next try waits so long, twice as long after each more, but at most the second.
RETRY_S, LONGEST_RETRY_S = 60.0, 3600.0
_HOUR_MS = 3_600_000
_AT_WORK = (WorkerStatus.ACTIVE, WorkerStatus.BUSY)


class ReportsReady(Protocol):
    """What is asked of the registry; each raises ChainError."""

    async def config(self) -> RegistryConfig: ...

    async def workers_by_id(self, node_ids: Iterable[str]) -> dict[str, Worker]: ...

    async def report_ready(self, ready_ms: Mapping[str, int]) -> Receipt: ...


class ReadyTime:
    """`report_ms`: once a worker has this much that isn't reported, all workers' time is. `nodes`: the last
    look at the cluster. `address` is this master's wallet."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        registry: ReportsReady,
        rows: ReadyStore,
        gas: GasWatch,
        nodes: Callable[[], Mapping[str, NodeView]],
        address: str,
        report_ms: int,
        clock: Clock,
    ) -> None:
        self._index = index
        self._view = view
        self._registry = registry
        self._rows = rows
        self._gas = gas
        self._nodes = nodes
        self._address = address
        self._report_ms = report_ms
        self._clock = clock
        # Who was up at the last look (with when it staked), and when that was.
        self._up: dict[str, int] = {}
        self._looked = clock.monotonic()
        #: MIST for an hour that is paid at the moment; 0 before it is known.
        self._rate_mist = 0
        self._rate_read: float | None = None
        self._failures = 0
        # A report that was under way at a crash gets the time to arrive.
        under_way = any(row.sent_ms for row in rows.all().values())
        self._resume = clock.monotonic() + (RETRY_S if under_way else 0)
        #: Why nothing is reported, while something is wrong.
        self.problem: str | None = None

    async def run(self) -> None:
        """Look every 10 s and report what is due, until cancelled."""
        while True:
            await self.turn()
            await asyncio.sleep(_LOOK_S)

    async def turn(self) -> None:
        """Count, and report if it is time to. What fails is noted in `problem` and tried again later."""
        try:
            self._count()
            if self._clock.monotonic() < self._resume or not self._in_charge():
                return
            await self._learn_rate()
            await self._report()
        except (ChainError, sqlite3.Error) as error:
            self._failed(str(error))
            _log.warning("ready time will be tried again", retry_s=self._pause_s(), error=str(error))
        except Exception as error:
            # A mistake of ours over one worker must not end the service for all the others.
            self._failed(f"{type(error).__name__}: {error}")
            _log.exception("ready time broke and will be tried again", retry_s=self._pause_s())
        else:
            if self.problem is not None:
                _log.info("ready time works again")
            self.problem, self._failures = None, 0

    def _failed(self, why: str) -> None:
        self.problem = why
        self._failures += 1
        self._resume = self._clock.monotonic() + self._pause_s()

    def _pause_s(self) -> float:
        # The exponent is bounded, too: 2 ** 1100 is no float.
        return min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(self._failures - 1, 10))

    def _in_charge(self) -> bool:
        """Whether this is the live master and knows the present."""
        master = self._index.master
        known = self._index.loaded and self._index.settled and self._view.fresh()
        return known and master is not None and master.account == self._address

    # -- counting -----------------------------------------------------------------------------------------

    def _count(self) -> None:
        now, up = self._clock.monotonic(), self._who_is_up()
        passed_ms = int((now - self._looked) * 1000)
        both = {node_id: stake for node_id, stake in up.items() if self._up.get(node_id) == stake}
        self._up, self._looked = up, now
        self._forget_others()
        # After a longer time without a look nobody knows what was in between.
        if both and 0 < passed_ms <= FRESH_MS:
            self._rows.add(both, passed_ms)

    def _who_is_up(self) -> dict[str, int]:
        if not self._rate_mist or not self._in_charge():
            return {}
        nodes, now_ms = self._nodes(), self._clock.now_ms()
        return {
            worker.node_id: worker.registered_at_ms
            for worker in self._index.workers.values()
            if worker.status in _AT_WORK and node_is_up(nodes.get(worker.node_id), now_ms)
        }

    def _forget_others(self) -> None:
        """What was counted for stakes that are gone; and everything once another master reports."""
        if not (self._index.loaded and self._index.settled):
            return
        master, workers = self._index.master, self._index.workers
        replaced = master is not None and master.account != self._address
        gone = [
            node_id
            for node_id, row in self._rows.all().items()
            if replaced or node_id not in workers or workers[node_id].registered_at_ms != row.registered_at_ms
        ]
        if gone:
            self._rows.forget(gone)

    # -- reporting ----------------------------------------------------------------------------------------

    async def _learn_rate(self) -> None:
        now = self._clock.monotonic()
        if self._rate_read is not None and now - self._rate_read < RATES_S:
            return
        config = await self._registry.config()
        pays = config.pool_mist and config.rates.cap_per_epoch_mist
        rate = config.rates.per_ready_hour_mist if pays else 0
        if rate != self._rate_mist:
            _log.info("ready time is paid" if rate else "ready time isn't paid", mist_per_hour=rate)
        self._rate_mist, self._rate_read = rate, now

    async def _report(self) -> None:
        if not self._gas.ample():
            return
        rows = self._rows.all()
        if under_way := {node_id: row for node_id, row in rows.items() if row.sent_ms}:
            await self._settle(under_way)
            rows = self._rows.all()
        if not self._rate_mist or not any(row.counted_ms >= self._report_ms for row in rows.values()):
            return
        # What is worth less than 1 MIST would be lost.
        names = sorted(name for name, row in rows.items() if row.counted_ms * self._rate_mist >= _HOUR_MS)
        for start in range(0, len(names), MAX_READY_BATCH):
            await self._send(rows, names[start : start + MAX_READY_BATCH])

    async def _settle(self, under_way: Mapping[str, ReadyRow]) -> None:
        """Find out what became of reports that nobody saw arrive."""
        workers = await self._registry.workers_by_id(under_way)
        lost = {
            node_id
            for node_id, row in under_way.items()
            if (worker := workers.get(node_id)) is not None
            and worker.registered_at_ms == row.registered_at_ms
            and worker.ready_reported_until_ms == row.sent_after_ms
        }
        self._rows.settle(under_way.keys() - lost, lost)
        _log.info("reports of ready time settled", arrived=len(under_way) - len(lost), lost=len(lost))

    async def _send(self, rows: Mapping[str, ReadyRow], names: Sequence[str]) -> None:
        workers = await self._registry.workers_by_id(names)
        reports: dict[str, tuple[int, int]] = {}
        for name in names:
            worker = workers.get(name)
            if worker is None or worker.registered_at_ms != rows[name].registered_at_ms:
                continue  # it left; the event that says so is on the way
            # As the contract caps it.
            until_ms = worker.ready_reported_until_ms
            ready_ms = min(rows[name].counted_ms, self._view.now_ms() - until_ms)
            if ready_ms > 0:
                reports[name] = (ready_ms, until_ms)
        if not reports:
            return
        self._rows.sending(reports)
        ready = {name: ready_ms for name, (ready_ms, _) in reports.items()}
        receipt = await self._registry.report_ready(ready)
        self._rows.settle(reports)
        hours = round(sum(ready.values()) / _HOUR_MS, 2)
        _log.info("ready time reported", workers=len(ready), hours=hours, digest=receipt.digest)
