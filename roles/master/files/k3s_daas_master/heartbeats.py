"""Heartbeats: a worker says it is alive, and hears what the chain says of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from k3s_daas.evidence import Evidence
from k3s_daas_master.authenticate import check_timestamp, worker_of
from k3s_daas_master.certificates import Certificates
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.signatures import Signatures
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

    def __init__(
        self,
        index: TokenIndex,
        store: Store,
        clock: Clock,
        signatures: Signatures,
        certificates: Certificates,
        on_offence: Callable[[str, Evidence], None],
    ) -> None:
        self._signatures = signatures
        self._certificates = certificates
        self._on_offence = on_offence
        self._index = index
        self._store = store
        self._clock = clock
        self.last_ms = {node_id: seen.received_ms for node_id, seen in store.all_seen(KIND).items()}
        self.reported: dict[str, Reported] = {}

    def beat(
        self,
        header: str | None,
        node_id: str,
        timestamp_ms: int,
        reported: Reported,
        body: bytes = b"",
        signature: str | None = None,
        certificates: Sequence[str] = (),
    ) -> str:
        """Accept a heartbeat and return the worker's on-chain status. Raises ApiError.

        `body` is what was sent, byte for byte, and `signature` the header over it; `certificates` are those
        that the worker says are its own (SHA-256, hex).
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
        signed = self._signatures.verify(worker, body, signature)
        if signed is not None:
            # Whether it is accepted or not: two bodies of one moment are the offence.
            conflict = self._signatures.conflict(worker, timestamp_ms, signed)
            if conflict is not None:
                self._on_offence(node_id, conflict)
        try:
            self.last_ms[node_id] = check_timestamp(self._store, self._clock, KIND, node_id, timestamp_ms)
        except sqlite3.Error:
            # Refused, because it could be replayed; yet nobody falls silent over our full disk.
            self.last_ms[node_id] = self._clock.now_ms()
            raise
        if signed is not None:
            self._signatures.accepted(worker, timestamp_ms, signed)
        self._certificates.claim(worker, certificates)
        self.reported[node_id] = reported
        return worker.status.value
