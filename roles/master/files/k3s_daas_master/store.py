"""What must survive a restart: the chain cursor, removals under way, last timestamps, and who registered how.

One SQLite file in the state directory. WAL without a sync per commit: a killed process loses nothing; a host
that loses power may lose the last moments, and what is lost is read again from the chain (cursor, removals)
or costs one heartbeat its replay protection for less than the minute in which its timestamp is accepted.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

from k3s_daas_master.errors import StateError
from k3s_daas_master.ready_store import SCHEMA as _READY_SCHEMA
from k3s_daas_master.ready_store import ReadyStore
from k3s_daas_master.request_store import SCHEMA as _REQUESTS_SCHEMA
from k3s_daas_master.request_store import RequestStore
from k3s_daas_master.transactions import transaction

#: Sums of events' marks are kept modulo this.
MARKS = 1 << 56

_SCHEMA = """
CREATE TABLE cursor (
    one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE handled (
    one INTEGER PRIMARY KEY CHECK (one = 1), events INTEGER NOT NULL, mark INTEGER NOT NULL);
INSERT INTO handled VALUES (1, 0, 0);
CREATE TABLE gaps (
    noticed_ms INTEGER NOT NULL, after INTEGER, lowest INTEGER, acknowledged_ms INTEGER);
CREATE TABLE seen (
    kind TEXT NOT NULL, node_id TEXT NOT NULL, timestamp_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, node_id));
CREATE TABLE registrations (
    node_id TEXT PRIMARY KEY, owner TEXT NOT NULL, registered_at_ms INTEGER NOT NULL,
    generation INTEGER NOT NULL);
CREATE TABLE verified_passwords (node_id TEXT PRIMARY KEY, mark BLOB NOT NULL);
CREATE TABLE removals (
    node_id TEXT PRIMARY KEY, requested_ms INTEGER NOT NULL, done_ms INTEGER);
CREATE TABLE worker_keys (
    node_id TEXT PRIMARY KEY, owner TEXT NOT NULL, registered_at_ms INTEGER NOT NULL,
    generation INTEGER NOT NULL, public_key BLOB NOT NULL);
CREATE TABLE certificates (
    node_id TEXT PRIMARY KEY, owner TEXT NOT NULL, registered_at_ms INTEGER NOT NULL, sha256s TEXT NOT NULL);
CREATE TABLE signed_heartbeats (
    node_id TEXT PRIMARY KEY, timestamp_ms INTEGER NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE findings (
    sha256 TEXT PRIMARY KEY, node_id TEXT NOT NULL, registered_at_ms INTEGER NOT NULL,
    reason INTEGER NOT NULL, because TEXT NOT NULL, found_ms INTEGER NOT NULL, state TEXT NOT NULL,
    sent_ms INTEGER NOT NULL, detail TEXT NOT NULL, digest TEXT NOT NULL);
"""
_WHOLE_SCHEMA = f"{_SCHEMA} {_REQUESTS_SCHEMA} {_READY_SCHEMA}"
# Follows from the text, so that no change of a table forgets it. SQLite has 31 bits for it; 0 is a new file.
_SCHEMA_VERSION = zlib.crc32(_WHOLE_SCHEMA.encode()) & 0x7FFFFFFF or 1


def fits(path: Path) -> bool:
    """Whether this release can use the store in this file, which nobody has open. Raises sqlite3.Error."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return bool(db.execute("PRAGMA user_version").fetchone()[0] == _SCHEMA_VERSION)


@dataclass(frozen=True)
class Seen:
    """The last accepted message of a worker: its own timestamp and when it came, both ms."""

    timestamp_ms: int
    received_ms: int


@dataclass(frozen=True)
class Registration:
    """Which token generation a worker (one stake of one owner) last registered with."""

    owner: str
    registered_at_ms: int
    generation: int


class Store:
    """The service's durable state. Used from the event loop's thread only; each call takes microseconds."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "master.db"
        try:
            # Created here first, so that no moment has it readable by others.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA busy_timeout=2000")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(
                    f"BEGIN; {_WHOLE_SCHEMA} PRAGMA user_version={_SCHEMA_VERSION}; COMMIT;"
                )
            elif version != _SCHEMA_VERSION:
                raise StateError(
                    f"{path} has schema {version}, wanted {_SCHEMA_VERSION}. Another release wrote it: "
                    "install that release, or move the file away; it is rebuilt from the chain."
                )
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"State file {path} can't be used: {error}. Wanted a directory the service's user may write, "
                "with free space, and an intact file; a damaged one may be moved away, it is rebuilt from "
                "the chain."
            ) from None
        self.requests = RequestStore(self._db)
        self.ready_time = ReadyStore(self._db)

    @property
    def db(self) -> sqlite3.Connection:
        """For the parts that keep tables of their own here: signatures, certificates, the slashing policy."""
        return self._db

    def close(self) -> None:
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Everything written inside is there after a crash, or nothing of it."""
        return transaction(self._db)

    # -- chain cursor -------------------------------------------------------------------------------------

    def cursor(self) -> int | None:
        """The last checkpoint whose effects are in this store."""
        row = self._db.execute("SELECT checkpoint FROM cursor").fetchone()
        return None if row is None else int(row[0])

    def cursor_digest(self) -> str | None:
        """The digest of that checkpoint, by which another history is told; None when it isn't known."""
        row = self._db.execute("SELECT digest FROM cursor").fetchone()
        return row[0] or None if row else None

    def set_cursor(self, checkpoint: int, digest: str = "") -> None:
        self._db.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?, ?)", (checkpoint, digest))

    def count_handled(self, events: int, mark: int) -> None:
        """Together with the cursor: so many more events are done with; `mark` is the sum of their marks."""
        self._db.execute(
            "UPDATE handled SET events = events + ?, mark = (mark + ?) % ?", (events, mark, MARKS)
        )

    def handled(self) -> tuple[int, int]:
        """(how many events were ever done with, the sum of their marks): each once, if both are right."""
        row = self._db.execute("SELECT events, mark FROM handled").fetchone()
        return int(row[0]), int(row[1])

    # -- replay gaps --------------------------------------------------------------------------------------

    def note_gap(self, after: int | None, lowest: int | None, now_ms: int) -> None:
        """Events between these checkpoints are lost. The next position is a snapshot's."""
        with self.transaction():
            self._db.execute("INSERT INTO gaps VALUES (?, ?, ?, NULL)", (now_ms, after, lowest))
            self._db.execute("DELETE FROM cursor")

    def open_gaps(self) -> list[tuple[int, int | None, int | None]]:
        """(ms, last checkpoint seen, next one that exists) of each gap that nobody acknowledged yet."""
        rows = self._db.execute(
            "SELECT noticed_ms, after, lowest FROM gaps WHERE acknowledged_ms IS NULL ORDER BY noticed_ms"
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def acknowledge_gaps(self, now_ms: int) -> int:
        """An operator has looked at them; returns how many there were."""
        done = self._db.execute(
            "UPDATE gaps SET acknowledged_ms = ? WHERE acknowledged_ms IS NULL", (now_ms,)
        )
        return done.rowcount

    # -- timestamps ---------------------------------------------------------------------------------------

    def advance(self, kind: str, node_id: str, timestamp_ms: int, received_ms: int) -> int | None:
        """Note a message's timestamp if it is later than the last one; else return that last one."""
        row = self._db.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (kind, node_id) DO UPDATE SET "
            "timestamp_ms = excluded.timestamp_ms, received_ms = excluded.received_ms "
            "WHERE excluded.timestamp_ms > seen.timestamp_ms RETURNING 1",
            (kind, node_id, timestamp_ms, received_ms),
        ).fetchone()
        if row is not None:
            return None
        last = self._db.execute(
            "SELECT timestamp_ms FROM seen WHERE kind = ? AND node_id = ?", (kind, node_id)
        ).fetchone()
        return int(last[0])

    def all_seen(self, kind: str) -> dict[str, Seen]:
        rows = self._db.execute("SELECT node_id, timestamp_ms, received_ms FROM seen WHERE kind = ?", (kind,))
        return {node_id: Seen(timestamp_ms, received_ms) for node_id, timestamp_ms, received_ms in rows}

    # -- registrations ------------------------------------------------------------------------------------

    def registration(self, node_id: str) -> Registration | None:
        row = self._db.execute(
            "SELECT owner, registered_at_ms, generation FROM registrations WHERE node_id = ?", (node_id,)
        ).fetchone()
        return None if row is None else Registration(*row)

    def set_registration(self, node_id: str, registration: Registration) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?)",
            (node_id, registration.owner, registration.registered_at_ms, registration.generation),
        )

    def verified_passwords(self) -> dict[str, bytes]:
        """The marks over what was verified, by node id; they hold no password."""
        return dict(self._db.execute("SELECT node_id, mark FROM verified_passwords").fetchall())

    def set_verified_password(self, node_id: str, mark: bytes | None) -> None:
        if mark is None:
            self._db.execute("DELETE FROM verified_passwords WHERE node_id = ?", (node_id,))
        else:
            self._db.execute("INSERT OR REPLACE INTO verified_passwords VALUES (?, ?)", (node_id, mark))

    # -- removals -----------------------------------------------------------------------------------------

    def request_removal(self, node_id: str, now_ms: int) -> None:
        """Note that a node must go; noting it twice changes nothing."""
        self._db.execute("INSERT OR IGNORE INTO removals VALUES (?, ?, NULL)", (node_id, now_ms))

    def reopen_removal(self, node_id: str) -> None:
        """A removed node is back: it has to go again."""
        self._db.execute("UPDATE removals SET done_ms = NULL WHERE node_id = ?", (node_id,))

    def finish_removal(self, node_id: str, now_ms: int) -> None:
        self._db.execute("UPDATE removals SET done_ms = ? WHERE node_id = ?", (now_ms, node_id))

    def drop_removal(self, node_id: str) -> None:
        """The removal was a mistake: the chain doesn't say slashed."""
        self._db.execute("DELETE FROM removals WHERE node_id = ?", (node_id,))

    def open_removals(self) -> list[str]:
        rows = self._db.execute(
            "SELECT node_id FROM removals WHERE done_ms IS NULL ORDER BY requested_ms, node_id"
        )
        return [row[0] for row in rows]

    def was_removed(self, node_id: str) -> bool:
        """Whether a removal of this node was finished."""
        query = "SELECT 1 FROM removals WHERE node_id = ? AND done_ms IS NOT NULL"
        return self._db.execute(query, (node_id,)).fetchone() is not None

    def removals(self) -> dict[str, int | None]:
        """Every removal ever asked for, with the ms at which it was done."""
        return dict(self._db.execute("SELECT node_id, done_ms FROM removals").fetchall())

    # -- findings (kept by the policy) --------------------------------------------------------------------

    def drop_waiting_findings(self, detail: str) -> int:
        """None of those that wait is proposed; returns how many there were."""
        return self._db.execute(
            "UPDATE findings SET state = 'dropped', detail = ? WHERE state = 'waiting'", (detail,)
        ).rowcount
