"""Hearing of a node that gets Ready when it does, instead of at the next comparison of fleet and chain.

Only a hint: the fleet looks for itself when woken, and every few seconds without being woken, so nothing is
lost when the watch is down, or not allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from k3s_daas.logs import get_logger
from k3s_daas_master.cluster import Cluster, ClusterError

_RETRY_S = 5.0
_log = get_logger("k3s_daas_master.nodewatch")


class NodeWatch:
    """Calls `wake` for every node that turns Ready or stops being it."""

    def __init__(
        self,
        cluster: Cluster,
        wake: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._wake = wake
        self._sleep = sleep
        self._ready: dict[str, bool] = {}
        self._problem: str | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                async for name, ready in self._cluster.watch_nodes():
                    self._problem = None
                    if self._ready.get(name, False) != ready:
                        self._ready[name] = ready
                        self._wake()
            except ClusterError as error:
                if str(error) != self._problem:
                    _log.warning("nodes can't be watched, they are polled", error=str(error))
                self._problem = str(error)
            await self._sleep(_RETRY_S)
