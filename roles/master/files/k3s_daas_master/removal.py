"""Taking slashed workers out of the cluster: lock the name, cordon, drain, delete, cut what they have open.

The list of removals is durable and each step may be repeated, so a restart goes on where it was. Nothing is
removed on an event's word alone: the worker's record is read from the chain once more first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from k3s_daas.chain import ChainError
from k3s_daas.logs import get_logger
from k3s_daas.registry import Worker, WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError, PodView
from k3s_daas_master.cut import CutRequest
from k3s_daas_master.nodepasswords import NodePasswordKeeper
from k3s_daas_master.store import Store

_log = get_logger("k3s_daas_master.removal")

_POLL_S = 0.5
_RETRY_S = 5.0


class ReadsWorkers(Protocol):
    """The one thing that removal asks the chain."""

    async def worker(self, node_id: str) -> Worker | None: ...


class Remover:
    """Works through the open removals of the store."""

    def __init__(
        self,
        *,
        registry: ReadsWorkers,
        cluster: Cluster,
        passwords: NodePasswordKeeper,
        cut: CutRequest,
        store: Store,
        clock: Clock,
        drain_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._cluster = cluster
        self._passwords = passwords
        self._cut = cut
        self._store = store
        self._clock = clock
        self._drain_timeout_s = drain_timeout_s
        self._sleep = sleep
        self._wake = asyncio.Event()
        self.finished = 0

    def wake(self) -> None:
        """Look at the list now."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; what fails is tried again."""
        while True:
            self._wake.clear()
            await self.sweep()
            try:
                await asyncio.wait_for(self._wake.wait(), _RETRY_S if self._store.open_removals() else None)
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Try every open removal once, side by side: one that hangs holds up no other."""
        await asyncio.gather(*(self._try(node_id) for node_id in self._store.open_removals()))

    async def _try(self, node_id: str) -> None:
        try:
            await self.remove(node_id)
        except (ChainError, ClusterError) as error:
            _log.warning("removal will be tried again", node_id=node_id, error=str(error))
        except Exception:
            # A mistake of ours over one node must not end the service for all the others.
            _log.exception("removal broke and will be tried again", node_id=node_id)

    async def remove(self, node_id: str) -> bool:
        """Remove one slashed worker's node; False, and nothing touched, if the chain doesn't say slashed.

        Raises ChainError and ClusterError; calling it again goes on.
        """
        worker = await self._registry.worker(node_id)
        if worker is None or worker.status is not WorkerStatus.SLASHED:
            # Stays on the list: an endpoint that lags behind the event will agree soon.
            _log.error(
                "removal refused",
                node_id=node_id,
                found="no such worker" if worker is None else worker.status.value,
                wanted="slashed",
            )
            return False
        await self._passwords.lock(node_id)
        for token in await self._cluster.bootstrap_tokens():
            if token.node_id == node_id:
                await self._cluster.delete_bootstrap_token(token.token_id)
        if await self._cluster.cordon(node_id):
            _log.info("node cordoned", node_id=node_id)
            await self._drain(node_id)
            await self._cluster.delete_node(node_id)
            _log.info("node deleted", node_id=node_id)
        # Also when the node was gone before: we may have deleted it before a crash.
        await self._passwords.lock(node_id, afresh=True)
        # No await between these two: killed here, it is asked for again.
        self._cut.ask([node_id], self._clock.now_ms())
        self._store.finish_removal(node_id, self._clock.now_ms())
        self.finished += 1
        _log.info("slashed worker removed", node_id=node_id)
        return True

    async def _drain(self, node_id: str) -> None:
        """Evict the pods, wait for them to go, and after the timeout delete those that are left."""
        deadline = self._clock.monotonic() + self._drain_timeout_s
        asked: set[PodView] = set()
        while pods := await self._cluster.pods_to_drain(node_id):
            if self._clock.monotonic() >= deadline:
                for pod in pods:
                    await self._cluster.delete_pod(pod)
                _log.warning("pods deleted after the drain's timeout", node_id=node_id, count=len(pods))
                return
            for pod in pods:
                if not pod.terminating and pod not in asked and await self._evict(pod):
                    asked.add(pod)
            await self._sleep(_POLL_S)
        _log.info("node drained", node_id=node_id, evicted=len(asked))

    async def _evict(self, pod: PodView) -> bool:
        try:
            return await self._cluster.evict(pod)
        except ClusterError as error:
            # The timeout deals with a pod that can't be evicted.
            _log.warning("eviction failed", pod=f"{pod.namespace}/{pod.name}", error=str(error))
            return False
