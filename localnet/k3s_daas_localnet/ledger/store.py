"""Durable state: objects in all their versions, transactions and checkpoints, in one SQLite file.

A checkpoint and everything in it is one SQLite transaction in write-ahead mode, so a killed node comes back
at the last checkpoint it finished. (A power cut may lose the last few checkpoints, never tear one.)
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .objects import LedgerObject, decode

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE objects (id BLOB, version INTEGER, live INTEGER NOT NULL, body BLOB NOT NULL,
                      PRIMARY KEY (id, version)) WITHOUT ROWID;
CREATE INDEX live_objects ON objects (live) WHERE live = 1;
CREATE TABLE transactions (digest BLOB PRIMARY KEY, checkpoint INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE checkpoints (sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, previous BLOB NOT NULL,
                          epoch INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, total INTEGER NOT NULL,
                          transactions BLOB NOT NULL);
"""
_SELECT_CHECKPOINT = (
    "SELECT sequence, digest, previous, epoch, timestamp_ms, total, transactions FROM checkpoints"
)
_DATABASE = "ledger.sqlite3"
_LOCK = "lock"


class StateError(RuntimeError):
    """The state directory can't be used. The message says why and what to do."""


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

    :param directory: where to keep it, made when missing (mode 0700); None keeps everything in memory.
    :raises StateError: another node uses the directory, or it was written by another version.
    """

    def __init__(self, directory: Path | None) -> None:
        self._lock: int | None = None
        path = ":memory:"
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
        for (body,) in self._db.execute("SELECT body FROM objects WHERE live = 1"):
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
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for object_id in removed:
                db.execute("UPDATE objects SET live = 0 WHERE id = ? AND live = 1", (object_id,))
            for item in written:
                db.execute("UPDATE objects SET live = 0 WHERE id = ? AND live = 1", (item.object_id,))
                row = (item.object_id, item.version, item.encoded)
                db.execute("INSERT INTO objects VALUES (?, ?, 1, ?)", row)
            for digest, record in records:
                db.execute("INSERT INTO transactions VALUES (?, ?, ?)", (digest, checkpoint.sequence, record))
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
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
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
