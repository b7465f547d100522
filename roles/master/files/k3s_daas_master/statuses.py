"""Who is active and who is offline, written on-chain: in batches, and seldom for one and the same worker.

A worker's first activation is written at once. After that its status changes at most once in 10 minutes: one
that comes and goes costs no more than one that stays. The time of the last change is the chain's own, so a
restart forgets nothing. What isn't written yet is shown all the same: `/api/v1/workers` has the last
heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from k3s_daas.chain import MoveAbort, Receipt
from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import NodeView
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.pacing import Pacing

#: A heartbeat (every 30 s) or lease (renewed every 10 s) older than this says nothing about now.
FRESH_MS = 65_000
#: A worker's status changes at most once in this time, in ms; its first activation doesn't wait.
SETTLED_MS = 600_000
# Changes that aren't a first activation are gathered for this long.
_GATHER_S = 10.0
# A status that was sent is not sent again while its event is on the way.
_RESEND_S = 15.0
# Most workers in one status transaction: the names are one argument of at most 16 KB.
_BATCH = 200

_log = get_logger("k3s_daas_master.statuses")


class WritesStatuses(Protocol):
    async def set_statuses(self, statuses: Mapping[str, WorkerStatus]) -> Receipt: ...


def wanted_status(
    worker: WorkerView,
    node: NodeView | None,
    last_heartbeat_ms: int | None,
    *,
    now_ms: int,
    started_ms: int,
    offline_after_ms: int,
) -> WorkerStatus | None:
    """The status the worker should have on-chain, or None when its present one is right.

    Silence is counted from the later of its last heartbeat and our own start: a master that was down
    punishes nobody for what it didn't hear.
    """
    if worker.status in (WorkerStatus.ACTIVE, WorkerStatus.BUSY):
        silent_ms = now_ms - max(last_heartbeat_ms or 0, started_ms)
        return WorkerStatus.OFFLINE if silent_ms > offline_after_ms else None
    if worker.status not in (WorkerStatus.PENDING, WorkerStatus.OFFLINE):
        return None
    heard = last_heartbeat_ms is not None and now_ms - last_heartbeat_ms <= FRESH_MS
    return WorkerStatus.ACTIVE if heard and node_is_up(node, now_ms) else None


def node_is_up(node: NodeView | None, now_ms: int) -> bool:
    """Ready, and its kubelet said so lately: a dead node stays Ready until the control plane notices."""
    return (
        node is not None
        and node.ready
        and node.lease_renewed_ms is not None
        and now_ms - node.lease_renewed_ms <= FRESH_MS
    )


class StatusWriter:
    """Writes what differs. `started_ms`: silence before it is nobody's."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        registry: WritesStatuses,
        pacing: Pacing,
        gas: GasWatch,
        offline_after_ms: int,
        clock: Clock,
    ) -> None:
        self._index = index
        self._view = view
        self._registry = registry
        self._pacing = pacing
        self._gas = gas
        self._offline_after_ms = offline_after_ms
        self._clock = clock
        self._started_ms = clock.now_ms()
        self._sent: dict[str, tuple[WorkerStatus, float]] = {}
        self._gathered = 0.0
        self.written = 0

    def nearly(self, nodes: Mapping[str, NodeView], heard_ms: Mapping[str, int]) -> bool:
        """Whether a worker lacks nothing but its node's first lease, which comes a moment after Ready."""
        now_ms = self._clock.now_ms()
        return any(
            worker.status is WorkerStatus.PENDING
            and now_ms - heard_ms.get(worker.node_id, 0) <= FRESH_MS
            and (node := nodes.get(worker.node_id)) is not None
            and node.ready
            and not node_is_up(node, now_ms)
            for worker in self._index.workers.values()
        )

    async def write(self, nodes: Mapping[str, NodeView], heard_ms: Mapping[str, int]) -> None:
        """Raises ChainError."""
        if not self._pacing.may_write("statuses") or self._gas.reserved():
            return
        now = self._clock.monotonic()
        changes = self._due(nodes, heard_ms)
        urgent = any(self._index.workers[name].status is WorkerStatus.PENDING for name in changes)
        if not changes or not (urgent or now - self._gathered >= _GATHER_S):
            return
        self._gathered = now
        names = sorted(changes)
        for start in range(0, len(names), _BATCH):
            await self._send({name: changes[name] for name in names[start : start + _BATCH]})

    def _due(self, nodes: Mapping[str, NodeView], heard_ms: Mapping[str, int]) -> dict[str, WorkerStatus]:
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        changes: dict[str, WorkerStatus] = {}
        for worker in self._index.workers.values():
            wanted = wanted_status(
                worker,
                nodes.get(worker.node_id),
                heard_ms.get(worker.node_id),
                now_ms=now_ms,
                started_ms=self._started_ms,
                offline_after_ms=self._offline_after_ms,
            )
            sent = self._sent.get(worker.node_id)
            under_way = sent is not None and sent[0] is wanted and now - sent[1] < _RESEND_S
            if wanted is not None and not under_way and self._settled(worker):
                changes[worker.node_id] = wanted
        return changes

    def _settled(self, worker: WorkerView) -> bool:
        if worker.status is WorkerStatus.PENDING:
            return True
        return self._view.now_ms() - worker.status_changed_at_ms >= SETTLED_MS

    async def _send(self, changes: dict[str, WorkerStatus]) -> None:
        try:
            with self._pacing.backing_off("statuses", unless=MoveAbort if len(changes) > 1 else ()):
                receipt = await self._registry.set_statuses(changes)
        except MoveAbort:
            if len(changes) == 1:
                raise
            # One worker whose status changed meanwhile fails them all; alone it fails alone.
            for node_id, status in changes.items():
                try:
                    await self._send({node_id: status})
                except MoveAbort as refused:
                    _log.warning("status refused", node_id=node_id, status=status.value, error=str(refused))
            return
        for node_id, status in changes.items():
            self._sent[node_id] = (status, self._clock.monotonic())
            _log.info("status written", node_id=node_id, status=status.value, digest=receipt.digest)
        self.written += len(changes)
