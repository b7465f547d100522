"""The durable side of Ready time: for each worker, what was counted and not reported yet, and what is being
reported. See `readytime`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from k3s_daas_master.transactions import durable_transaction, transaction

SCHEMA = """
CREATE TABLE ready_time (
    node_id TEXT PRIMARY KEY, registered_at_ms INTEGER NOT NULL, counted_ms INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL DEFAULT 0, sent_after_ms INTEGER NOT NULL DEFAULT 0);
"""


@dataclass(frozen=True)
class ReadyRow:
    """One worker, of the stake of `registered_at_ms`. In ms: `counted_ms` is to be reported; `sent_ms` is
    being reported (0: nothing is); `sent_after_ms` is until when the chain had accounted before that."""

    registered_at_ms: int
    counted_ms: int
    sent_ms: int = 0
    sent_after_ms: int = 0


class ReadyStore:
    """Used from the event loop's thread only. Raises sqlite3.Error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def all(self) -> dict[str, ReadyRow]:
        found = self._db.execute(
            "SELECT node_id, registered_at_ms, counted_ms, sent_ms, sent_after_ms FROM ready_time"
        )
        return {node_id: ReadyRow(*numbers) for node_id, *numbers in found}

    def add(self, registered_at_ms: Mapping[str, int], ready_ms: int) -> None:
        """These workers (of these stakes) were Ready for `ready_ms` more; all of them or none."""
        with transaction(self._db):
            self._db.executemany(
                "INSERT INTO ready_time (node_id, registered_at_ms, counted_ms) VALUES (?, ?, ?) "
                "ON CONFLICT (node_id) DO UPDATE SET counted_ms = counted_ms + excluded.counted_ms",
                [(node_id, stake, ready_ms) for node_id, stake in registered_at_ms.items()],
            )

    def sending(self, reports: Mapping[str, tuple[int, int]]) -> None:
        """From here on a report of (ms Ready, until when the chain had accounted) may be on-chain. What was
        counted beyond it is more than the chain would pay for, and is forgotten."""
        with durable_transaction(self._db):
            self._db.executemany(
                "UPDATE ready_time SET counted_ms = 0, sent_ms = ?, sent_after_ms = ? WHERE node_id = ?",
                [(ready_ms, after_ms, node_id) for node_id, (ready_ms, after_ms) in reports.items()],
            )

    def settle(self, arrived: Iterable[str], lost: Iterable[str] = ()) -> None:
        """The reports of `arrived` are on-chain; those of `lost` aren't and are to be sent again."""
        with durable_transaction(self._db):
            self._db.executemany(
                "UPDATE ready_time SET sent_ms = 0, sent_after_ms = 0 WHERE node_id = ?",
                [(node_id,) for node_id in arrived],
            )
            self._db.executemany(
                "UPDATE ready_time SET counted_ms = counted_ms + sent_ms, sent_ms = 0, sent_after_ms = 0 "
                "WHERE node_id = ?",
                [(node_id,) for node_id in lost],
            )

    def forget(self, node_ids: Iterable[str]) -> None:
        """Nothing of theirs will be reported."""
        with durable_transaction(self._db):
            self._db.executemany("DELETE FROM ready_time WHERE node_id = ?", [(name,) for name in node_ids])

    def forget_all(self) -> int:
        """In a store that was restored: it may have been reported since. Returns of how many workers."""
        return self._db.execute("DELETE FROM ready_time").rowcount
