"""Watching drains: pods that run on after they should have gone, on a node that says it is Ready.

A drain is what an operator, or this master, asks of a node: it is cordoned and its pods are deleted or
evicted. Each pod then has a deadline of its own (its deletion timestamp). One that is still Running a minute
after that is looked at once a minute; three such looks are the observations that the contract's offence 2
asks for. Only looks of this process count: after a restart it begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from k3s_daas.evidence import DRAIN_APART_MS, DRAIN_OBSERVATIONS, Observation, RefusedDrain
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, NodeView, OverduePod
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.statuses import node_is_up

#: A kubelet may be slow; this much later than the deadline it isn't slow any more.
GRACE_MS = 60_000
_DONE = (WorkerStatus.JAILED, WorkerStatus.SLASHED)


class DrainWatch:
    """Remembers, for each node, each overdue pod with the looks at it."""

    def __init__(self, index: TokenIndex, cluster: Cluster, registry_id: str, clock: Clock) -> None:
        self._index = index
        self._cluster = cluster
        self._registry_id = registry_id
        self._clock = clock
        self._looked_ms: int | None = None
        self._seen: dict[str, dict[OverduePod, list[Observation]]] = {}

    async def look(self, nodes: Mapping[str, NodeView]) -> list[RefusedDrain]:
        """Look once a minute; returns what is proven now. Raises ClusterError."""
        now_ms = self._clock.now_ms()
        # Also when the clock was set back: then the old looks are worth nothing.
        if self._looked_ms is not None and 0 <= now_ms - self._looked_ms < DRAIN_APART_MS:
            return []
        self._looked_ms = now_ms
        draining = {name: node for name, node in nodes.items() if node.unschedulable and self._concerns(name)}
        self._seen = {name: self._seen.get(name, {}) for name in draining}
        return [
            found
            for name, node in draining.items()
            if (found := self._proven(name, await self._look_at(node, now_ms)))
        ]

    def _concerns(self, name: str) -> bool:
        worker = self._index.workers.get(name)
        return worker is not None and worker.status not in _DONE

    async def _look_at(self, node: NodeView, now_ms: int) -> dict[OverduePod, list[Observation]]:
        if not node_is_up(node, now_ms):
            # A node that is down can't be asked anything.
            self._seen[node.name] = {}
            return {}
        overdue = await self._cluster.overdue_pods(node.name, now_ms - GRACE_MS)
        before = self._seen[node.name]
        self._seen[node.name] = {
            pod: [*before.get(pod, []), Observation(now_ms, pod.uid, True)] for pod in overdue
        }
        return self._seen[node.name]

    def _proven(self, name: str, seen: dict[OverduePod, list[Observation]]) -> RefusedDrain | None:
        enough = {pod: looks for pod, looks in seen.items() if len(looks) >= DRAIN_OBSERVATIONS}
        if not enough:
            return None
        # One set of looks, always the first ones: the same evidence each time.
        observations = [one for looks in enough.values() for one in looks[:DRAIN_OBSERVATIONS]]
        return RefusedDrain(
            self._registry_id,
            name,
            min(pod.requested_ms for pod in enough),
            max(pod.deadline_ms for pod in enough),
            tuple(sorted(observations, key=lambda one: (one.at_ms, one.pod_uid))),
        )
