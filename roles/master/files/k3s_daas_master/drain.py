"""Emptying a worker's node because its owner wants to leave: cordon, then ask its pods to go.

A voluntary leave has no deadline. So no pod is deleted against a disruption budget: the caller asks again
until nothing is left, and hears what is in the way. An operator's `kubectl uncordon` takes it back.
"""

from __future__ import annotations

from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.authenticate import check_timestamp, worker_of
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import Store

#: How many of the pods in the way are named.
_SHOWN = 20
_log = get_logger("k3s_daas_master.drain")


class Drainer:
    """Takes one step of a drain each time it is asked."""

    def __init__(
        self, *, index: TokenIndex, view: ChainView, store: Store, cluster: Cluster, clock: Clock
    ) -> None:
        self._index = index
        self._view = view
        self._store = store
        self._cluster = cluster
        self._clock = clock

    async def drain(
        self, header: str | None, node_id: str, timestamp_ms: int
    ) -> dict[str, str | bool | int | list[str]]:
        """Cordon the node of the token's own worker and evict its pods; says which are left. Raises ApiError.

        `joined` is false when there is no such node: then nothing is left either.
        """
        if not self._index.loaded or not self._view.fresh():
            raise ApiError(
                "not_ready",
                "The master's view of the chain isn't good enough to drain a node.",
                "a view that is missing or too old",
                f"at most {STALE_MS // 1000} s",
                "Try again in a few seconds; if it lasts, check the master's Sui endpoints and clock.",
            )
        _, worker = worker_of(self._index, header, node_id)
        if worker.status is WorkerStatus.JAILED:
            raise ApiError(
                "worker_not_eligible",
                "A jailed worker can't leave.",
                "status jailed on-chain",
                "a worker without a proposed slash",
                "Wait until the slash is cancelled or executed.",
            )
        check_timestamp(self._store, self._clock, "drain", node_id, timestamp_ms)
        try:
            joined = await self._cluster.cordon_for_leave(node_id)
            left: list[str] = []
            if joined:
                for pod in await self._cluster.pods_to_drain(node_id):
                    if not pod.terminating:
                        await self._cluster.evict(pod)
                left = [f"{pod.namespace}/{pod.name}" for pod in await self._cluster.pods_to_drain(node_id)]
        except ClusterError as error:
            _log.error("drain failed", node_id=node_id, error=str(error))
            raise ApiError(
                "not_ready",
                "The master can't drain the node now.",
                "a Kubernetes API that refuses or doesn't answer",
                "a running k3s server",
                "Try again in a few seconds; if it lasts, look into the master's journal.",
            ) from None
        _log.info("node drained at its owner's wish", node_id=node_id, joined=joined, pods_left=len(left))
        return {
            "node_id": node_id,
            "joined": joined,
            "drained": not left,
            "pods_left": len(left),
            "waiting_for": left[:_SHOWN],
        }
