"""The durable side of requests: one row per request, see `request_rows`.

A step that something outside depends on is on the disk before that happens: a host that loses power finds it,
too.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from k3s_daas_master.request_rows import FINAL, WHY_TIMED_OUT, RequestState, Row, Scheduled, WorkerStats
from k3s_daas_master.transactions import durable_transaction

SCHEMA = """
CREATE TABLE requests (
    request_id INTEGER PRIMARY KEY, requester TEXT NOT NULL, node_id TEXT NOT NULL,
    payload_hash BLOB NOT NULL, priority INTEGER NOT NULL, deposit_mist TEXT NOT NULL,
    deadline_ms INTEGER NOT NULL, scheduled_ms INTEGER NOT NULL, state TEXT NOT NULL,
    method TEXT, resource TEXT, name TEXT, body BLOB, body_ms INTEGER,
    claim_epoch INTEGER, seen TEXT, result BLOB, result_hash BLOB, executed_ms INTEGER,
    error TEXT, ended_ms INTEGER, checkpoint INTEGER);
CREATE INDEX requests_by_owner ON requests (requester, request_id);
CREATE TABLE request_stats (
    node_id TEXT PRIMARY KEY, succeeded INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0, response_ms INTEGER NOT NULL DEFAULT 0);
"""


_COLUMNS = (
    "request_id, requester, node_id, payload_hash, priority, deposit_mist, deadline_ms, scheduled_ms, state, "
    "method, resource, name, body, body_ms, claim_epoch, seen, result, result_hash, executed_ms, error, "
    "ended_ms, checkpoint"
)


class RequestStore:
    """Used from the event loop's thread only. Each step says which state it expects, and says so when the
    request was in another: events from the chain come in between."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # -- reading ------------------------------------------------------------------------------------------

    def get(self, request_id: int) -> Row | None:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM requests WHERE request_id = ?",  # noqa: S608 - constants
            (request_id,),
        ).fetchone()
        return None if found is None else _row(found)

    def of_owner(self, owner: str, limit: int) -> list[Row]:
        """The owner's newest requests, newest first, without their bodies and results."""
        columns = _COLUMNS.replace("body,", "NULL,", 1).replace("result,", "NULL,", 1)
        found = self._db.execute(
            f"SELECT {columns} FROM requests WHERE requester = ? "  # noqa: S608 - constants
            "ORDER BY request_id DESC LIMIT ?",
            (owner, limit),
        )
        return [_row(one) for one in found]

    def open(self) -> list[tuple[int, RequestState, int]]:
        """(id, state, deadline in ms) of all that haven't ended, the most urgent first."""
        found = self._db.execute(
            "SELECT request_id, state, deadline_ms FROM requests WHERE ended_ms IS NULL "
            "ORDER BY priority DESC, request_id"
        )
        return [(request_id, RequestState(state), deadline) for request_id, state, deadline in found]

    def counts(self) -> dict[str, int]:
        """Requests kept, by state."""
        return dict(self._db.execute("SELECT state, COUNT(*) FROM requests GROUP BY state").fetchall())

    def stats(self) -> dict[str, WorkerStats]:
        found = self._db.execute("SELECT node_id, succeeded, failed, missed, response_ms FROM request_stats")
        return {node_id: WorkerStats(*numbers) for node_id, *numbers in found}

    # -- what the chain says (within the follower's transaction, or alone) ----------------------------------

    def note(self, request: Scheduled, now_ms: int, *, claimed: bool = False) -> None:
        """The chain has this open request. A row of that id with another identity was another registry's."""
        known = self.get(request.request_id)
        if known is not None and _identity(known) != _identity(request):
            self._db.execute("DELETE FROM requests WHERE request_id = ?", (request.request_id,))
            known = None
        if known is None:
            self._db.execute(
                "INSERT INTO requests (request_id, requester, node_id, payload_hash, priority, deposit_mist, "
                "deadline_ms, scheduled_ms, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    request.request_id,
                    request.requester,
                    request.node_id,
                    request.payload_hash,
                    request.priority,
                    str(request.deposit_mist),
                    request.deadline_ms,
                    now_ms,
                    RequestState.SCHEDULED,
                ),
            )
        if claimed:
            self.claimed_by_others(request.request_id)

    def claimed_by_others(self, request_id: int) -> None:
        """The chain says claimed. Unless we were about to, somebody else did, and may have executed it."""
        before = (RequestState.SCHEDULED, RequestState.BODY_RECEIVED, RequestState.REFUSED)
        self._abandon(request_id, before)

    def abandon(self, request_id: int) -> None:
        """The claim wasn't ours after all."""
        self._abandon(request_id, (RequestState.CLAIMING,))

    def abandon_begun(self) -> int:
        """In a store that was restored: whatever was begun may have been executed since. Returns how many."""
        begun = (RequestState.CLAIMING, RequestState.CLAIMED, RequestState.EXECUTING)
        found = [request_id for request_id, state, _ in self.open() if state in begun]
        for request_id in found:
            self._abandon(request_id, begun)
        return len(found)

    def _abandon(self, request_id: int, states: Iterable[RequestState]) -> None:
        error = {
            "code": "claimed_elsewhere",
            "message": "Another master claimed the request, or this one lost its state after it did: whether "
            "it ran isn't known here, so it isn't run. Its deposit comes back after its deadline.",
        }
        for state in states:
            self._db.execute(
                "UPDATE requests SET state = ?, error = ?, body = NULL WHERE request_id = ? AND state = ?",
                (RequestState.ABANDONED, json.dumps(error), request_id, state),
            )

    def completed(self, request_id: int, result_hash: bytes, checkpoint: int, now_ms: int) -> None:
        """The chain has a result. It is ours when its hash is."""
        row = self.get(request_id)
        if row is None or row.state in FINAL:
            return
        if row.result is None or row.result_hash != result_hash:
            error = {
                "code": "completed_elsewhere",
                "message": f"Completed with result hash {result_hash.hex()}, which isn't of this master.",
            }
            self._end(row, RequestState.ENDED, checkpoint, now_ms, error)
            return
        succeeded = json.loads(row.result)["outcome"] == "succeeded"
        state = RequestState.SUCCEEDED if succeeded else RequestState.FAILED
        self._end(row, state, checkpoint, now_ms, row.error)
        took = max(0, (row.executed_ms or now_ms) - (row.body_ms or now_ms))
        self._count(row.node_id, "succeeded" if succeeded else "failed", took)

    def timed_out(self, request_id: int, missed: bool, checkpoint: int | None, now_ms: int) -> None:
        row = self.get(request_id)
        if row is None or row.state in FINAL:
            return
        error = row.error or {"code": "timed_out", "message": WHY_TIMED_OUT[row.state]}
        self._end(row, RequestState.TIMED_OUT, checkpoint, now_ms, error)
        if missed:
            self._count(row.node_id, "missed", 0)

    def lost_sight(self, request_id: int, now_ms: int) -> None:
        """It is past its deadline and no longer open, and no event said how it ended."""
        row = self.get(request_id)
        if row is not None and row.state not in FINAL:
            error = {
                "code": "outcome_missed",
                "message": "It ended on-chain while this master couldn't follow: its events tell how.",
            }
            self._end(row, RequestState.ENDED, None, now_ms, error)

    def _end(
        self,
        row: Row,
        state: RequestState,
        checkpoint: int | None,
        now_ms: int,
        error: dict[str, str] | None,
    ) -> None:
        self._db.execute(
            "UPDATE requests SET state = ?, checkpoint = ?, ended_ms = ?, error = ?, body = NULL "
            "WHERE request_id = ?",
            (state, checkpoint, now_ms, json.dumps(error) if error else None, row.request_id),
        )

    def _count(self, node_id: str, column: str, took_ms: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO request_stats (node_id) VALUES (?)", (node_id,))
        self._db.execute(
            f"UPDATE request_stats SET {column} = {column} + 1, response_ms = response_ms + ? "  # noqa: S608
            "WHERE node_id = ?",
            (took_ms, node_id),
        )

    def forget_worker(self, node_id: str) -> None:
        """Its counts: the name is free, or somebody else's now."""
        self._db.execute("DELETE FROM request_stats WHERE node_id = ?", (node_id,))

    # -- our own steps ------------------------------------------------------------------------------------

    def body(self, request_id: int, raw: bytes, said: tuple[str, str, str | None], now_ms: int) -> None:
        """Keep the body of a request that waits for one; `said` is its method, resource and name."""
        waiting = (RequestState.SCHEDULED, RequestState.REFUSED)
        self._db.execute(
            "UPDATE requests SET state = ?, body = ?, method = ?, resource = ?, name = ?, body_ms = ?, "
            "error = NULL WHERE request_id = ? AND state IN (?, ?)",
            (RequestState.BODY_RECEIVED, raw, *said, now_ms, request_id, *waiting),
        )

    def refuse(self, request_id: int, error: dict[str, str]) -> None:
        """It will not be claimed; posting its body again tries again."""
        self._db.execute(
            "UPDATE requests SET state = ?, error = ?, body = NULL WHERE request_id = ? AND state = ?",
            (RequestState.REFUSED, json.dumps(error), request_id, RequestState.BODY_RECEIVED),
        )

    def claiming(self, request_id: int, epoch: int) -> bool:
        """From here on a claim on-chain, in this epoch of the master, is taken for ours."""
        return self._step(request_id, RequestState.BODY_RECEIVED, RequestState.CLAIMING, claim_epoch=epoch)

    def claimed(self, request_id: int) -> bool:
        return self._step(request_id, RequestState.CLAIMING, RequestState.CLAIMED)

    def executing(self, request_id: int, seen: dict[str, Any]) -> bool:
        """From here on it may have been executed."""
        return self._step(request_id, RequestState.CLAIMED, RequestState.EXECUTING, seen=json.dumps(seen))

    def not_executed(self, request_id: int) -> bool:
        """It certainly wasn't: it may be tried again."""
        return self._step(request_id, RequestState.EXECUTING, RequestState.CLAIMED, seen=None)

    def executed(
        self,
        request_id: int,
        result: bytes,
        result_hash: bytes,
        error: dict[str, str] | None,
        now_ms: int,
    ) -> bool:
        return self._step(
            request_id,
            RequestState.EXECUTING,
            RequestState.EXECUTED,
            result=result,
            result_hash=result_hash,
            error=json.dumps(error) if error else None,
            executed_ms=now_ms,
        )

    def _step(self, request_id: int, before: RequestState, after: RequestState, **columns: Any) -> bool:
        """False when the request isn't in `before`: it ended meanwhile."""
        sets = "".join(f", {column} = ?" for column in columns)
        with durable_transaction(self._db):
            done = self._db.execute(
                f"UPDATE requests SET state = ?{sets} WHERE request_id = ? AND state = ?",  # noqa: S608
                (after, *columns.values(), request_id, before),
            )
        return done.rowcount == 1

    # -- forgetting ---------------------------------------------------------------------------------------

    def prune(self, before_ms: int, max_bytes: int) -> int:
        """Forget what ended before `before_ms`, then, while results hold more than `max_bytes`, the oldest of
        whoever holds most. Returns how many were forgotten."""
        gone = self._db.execute(
            "DELETE FROM requests WHERE ended_ms < ?",
            (before_ms,),
        ).rowcount
        while True:
            held = self._db.execute(
                "SELECT requester, SUM(LENGTH(result)) AS size FROM requests WHERE result IS NOT NULL "
                "AND ended_ms IS NOT NULL GROUP BY requester ORDER BY size DESC"
            ).fetchall()
            if sum(size for _, size in held) <= max_bytes:
                return gone
            gone += self._db.execute(
                "DELETE FROM requests WHERE request_id = (SELECT MIN(request_id) FROM requests "
                "WHERE requester = ? AND result IS NOT NULL AND ended_ms IS NOT NULL)",
                (held[0][0],),
            ).rowcount


def _identity(request: Scheduled) -> tuple[str, bytes, int]:
    return request.requester, request.payload_hash, request.deadline_ms


def _row(found: tuple[Any, ...]) -> Row:
    values = dict(zip(_COLUMNS.split(", "), found, strict=True))
    values["state"] = RequestState(values["state"])
    values["deposit_mist"] = int(values["deposit_mist"])
    for column in ("seen", "error"):
        values[column] = json.loads(values[column]) if values[column] else None
    return Row(**values)
