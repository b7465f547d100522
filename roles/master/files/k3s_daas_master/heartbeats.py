"""Heartbeats: a worker says it is alive, and hears what the chain says of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from k3s_daas_master.authenticate import check_timestamp, worker_of
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import Store

KIND = "heartbeat"


@dataclass(frozen=True)
class Reported:
    """What a worker last said about itself. For display only: nothing is decided on it."""

    stake_status: str
    stake_mist: int | None
    running_pods: int | None
    resource_usage: dict[str, Any]


class Heartbeats:
    """Accepts heartbeats and knows when each worker was last heard (ms, our clock)."""

    def __init__(self, index: TokenIndex, store: Store, clock: Clock) -> None:
        self._index = index
        self._store = store
        self._clock = clock
        self.last_ms = {node_id: seen.received_ms for node_id, seen in store.all_seen(KIND).items()}
        self.reported: dict[str, Reported] = {}

    def beat(self, header: str | None, node_id: str, timestamp_ms: int, reported: Reported) -> str:
        """Accept a heartbeat and return the worker's on-chain status. Raises ApiError.

        Works on a stale view too: a chain that can't be reached throws nobody out.
        """
        if not self._index.loaded:
            raise ApiError(
                "not_ready",
                "The master hasn't read the registry yet.",
                "no view of the chain",
                "the registry read once",
                "Try again in a few seconds; if it lasts, check the master's Sui endpoints.",
            )
        _, worker = worker_of(self._index, header, node_id)
        try:
            self.last_ms[node_id] = check_timestamp(self._store, self._clock, KIND, node_id, timestamp_ms)
        except sqlite3.Error:
            # Refused, because it could be replayed; yet nobody falls silent over our full disk.
            self.last_ms[node_id] = self._clock.now_ms()
            raise
        self.reported[node_id] = reported
        return worker.status.value
