"""Durable state: objects in all their versions, transactions and checkpoints, in one SQLite file.

A checkpoint and everything in it is one SQLite transaction in write-ahead mode, so a killed node comes back
at the last checkpoint it finished. (A power cut may lose the last few checkpoints, never tear one.)
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .objects import LedgerObject, decode

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
-- An object version is written by one checkpoint (born) and replaced or removed by a later one (gone).
CREATE TABLE objects (id BLOB, version INTEGER, born INTEGER NOT NULL, gone INTEGER, body BLOB NOT NULL,
                      PRIMARY KEY (id, version)) WITHOUT ROWID;
CREATE INDEX live_objects ON objects (id) WHERE gone IS NULL;
CREATE INDEX objects_born ON objects (born);
CREATE INDEX objects_gone ON objects (gone) WHERE gone IS NOT NULL;
CREATE TABLE transactions (digest BLOB PRIMARY KEY, checkpoint INTEGER NOT NULL, position INTEGER NOT NULL,
                           record BLOB NOT NULL);
CREATE UNIQUE INDEX history ON transactions (checkpoint, position);
CREATE TABLE checkpoints (sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, previous BLOB NOT NULL,
                          epoch INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, total INTEGER NOT NULL,
                          transactions BLOB NOT NULL);
CREATE TABLE snapshots (name TEXT PRIMARY KEY, checkpoint INTEGER NOT NULL, clock_ms INTEGER NOT NULL);
"""
_SELECT_CHECKPOINT = (
    "SELECT sequence, digest, previous, epoch, timestamp_ms, total, transactions FROM checkpoints"
)
_SELECT_FORWARDS = (
    "SELECT checkpoint, position, record FROM transactions "
    "WHERE checkpoint BETWEEN ? AND ? ORDER BY checkpoint, position LIMIT ?"
)
_SELECT_BACKWARDS = _SELECT_FORWARDS.replace(
    "checkpoint, position LIMIT", "checkpoint DESC, position DESC LIMIT"
)
_DATABASE = "ledger.sqlite3"
_LOCK = "lock"


class StateError(RuntimeError):
    """The state directory can't be used. The message says why and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """A named state to come back to: that after a checkpoint.

    :ivar clock_ms: how far the clock was ahead of real time, in ms.
    """

    name: str
    checkpoint: int
    clock_ms: int


@dataclass(frozen=True)
class Checkpoint:
    """A finished batch of transactions.

    :ivar total: transactions on the chain up to and with this checkpoint.
    """

    sequence: int
    digest: bytes
    previous: bytes
    epoch: int
    timestamp_ms: int
    total: int
    transactions: tuple[bytes, ...]


class Store:
    """The database of one node.

    :param directory: where to keep it, made when missing (mode 0700); None keeps it in a temporary file that
        is gone at the end: history only grows, and memory is not for that.
    :raises StateError: another node uses the directory, or it was written by another version.
    """

    def __init__(self, directory: Path | None) -> None:
        self._lock: int | None = None
        path = ""  # SQLite's name for a temporary file
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(directory / _LOCK)
            path = str(directory / _DATABASE)
        # Autocommit mode: transactions are begun and committed here, in `commit`, and nowhere else.
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self.fresh = self._open(path)
        except sqlite3.Error as error:
            self.close()
            raise StateError(f"{path} can't be used: {error}; use an empty state directory") from error
        except StateError:
            self.close()
            raise

    def _open(self, path: str) -> bool:
        """Whether the database is new."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, _SCHEMA_VERSION):
            raise StateError(
                f"{path} has format {found}, this version reads {_SCHEMA_VERSION}: "
                "use an empty state directory"
            )
        if found == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        return bool(found == 0)

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def meta(self, key: str) -> bytes | None:
        """A value kept beside the ledger, such as the genesis seed."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def live_objects(self) -> Iterator[LedgerObject]:
        """The newest version of everything that exists."""
        for (body,) in self._db.execute("SELECT body FROM objects WHERE gone IS NULL"):
            yield decode(body)

    def object_at(self, object_id: bytes, version: int) -> LedgerObject | None:
        """An object as it was at exactly ``version``."""
        row = self._db.execute(
            "SELECT body FROM objects WHERE id = ? AND version = ?", (object_id, version)
        ).fetchone()
        return None if row is None else decode(row[0])

    def record(self, digest: bytes) -> tuple[int, bytes] | None:
        """Checkpoint and stored record of a transaction."""
        row = self._db.execute(
            "SELECT checkpoint, record FROM transactions WHERE digest = ?", (digest,)
        ).fetchone()
        return None if row is None else (row[0], bytes(row[1]))

    def history(self, first: int, last: int, descending: bool, limit: int) -> list[tuple[int, int, bytes]]:
        """Transactions of checkpoints ``first`` to ``last``: checkpoint, position in it and record."""
        statement = _SELECT_BACKWARDS if descending else _SELECT_FORWARDS
        rows = self._db.execute(statement, (first, last, limit))
        return [(row[0], row[1], bytes(row[2])) for row in rows]

    def checkpoint(self, sequence: int) -> Checkpoint | None:
        return self._checkpoint("sequence = ?", sequence)

    def checkpoint_by_digest(self, digest: bytes) -> Checkpoint | None:
        return self._checkpoint("digest = ?", digest)

    def latest_checkpoint(self) -> Checkpoint | None:
        return self._checkpoint("sequence = (SELECT max(sequence) FROM checkpoints) AND ?", 1)

    def _checkpoint(self, where: str, value: object) -> Checkpoint | None:
        # `where` is one of the three literals above.
        row = self._db.execute(f"{_SELECT_CHECKPOINT} WHERE {where}", (value,)).fetchone()
        if row is None:
            return None
        joined = bytes(row[6])
        digests = tuple(joined[at : at + 32] for at in range(0, len(joined), 32))
        return Checkpoint(row[0], bytes(row[1]), bytes(row[2]), row[3], row[4], row[5], digests)

    def commit(
        self,
        checkpoint: Checkpoint,
        records: Iterable[tuple[bytes, bytes]],
        written: Iterable[LedgerObject],
        removed: Iterable[bytes],
    ) -> None:
        """Writes a checkpoint with its transactions, or nothing of it.

        :param records: digest and record of each transaction.
        :param removed: ids of objects that stopped existing (deleted or wrapped).
        """
        with self._transaction() as db:
            replace = "UPDATE objects SET gone = ? WHERE id = ? AND gone IS NULL"
            for object_id in removed:
                db.execute(replace, (checkpoint.sequence, object_id))
            for item in written:
                db.execute(replace, (checkpoint.sequence, item.object_id))
                row = (item.object_id, item.version, checkpoint.sequence, item.encoded)
                db.execute("INSERT INTO objects VALUES (?, ?, ?, NULL, ?)", row)
            for position, (digest, record) in enumerate(records):
                found = (digest, checkpoint.sequence, position, record)
                db.execute("INSERT INTO transactions VALUES (?, ?, ?, ?)", found)
            db.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    checkpoint.sequence,
                    checkpoint.digest,
                    checkpoint.previous,
                    checkpoint.epoch,
                    checkpoint.timestamp_ms,
                    checkpoint.total,
                    b"".join(checkpoint.transactions),
                ),
            )

    # --- snapshots

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keeps a name for a state; an older snapshot of that name is forgotten."""
        row = (snapshot.name, snapshot.checkpoint, snapshot.clock_ms)
        self._db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", row)

    def delete_snapshot(self, name: str) -> None:
        self._db.execute("DELETE FROM snapshots WHERE name = ?", (name,))

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, the oldest state first."""
        rows = self._db.execute("SELECT name, checkpoint, clock_ms FROM snapshots ORDER BY checkpoint, name")
        return [Snapshot(*row) for row in rows]

    def roll_back(self, checkpoint: int) -> None:
        """Undoes everything after a checkpoint, and forgets the snapshots of what is undone."""
        with self._transaction() as db:
            for statement in (
                "DELETE FROM objects WHERE born > ?",
                "UPDATE objects SET gone = NULL WHERE gone > ?",
                "DELETE FROM transactions WHERE checkpoint > ?",
                "DELETE FROM checkpoints WHERE sequence > ?",
                "DELETE FROM snapshots WHERE checkpoint > ?",
            ):
                db.execute(statement, (checkpoint,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


def _lock(path: Path) -> int:
    """Holds the directory for this process; the kernel lets go when it ends, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StateError(
            f"{path.parent} is in use by another node: stop it, or give another state directory"
        ) from None
    return handle
