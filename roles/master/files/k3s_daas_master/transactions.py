"""Transactions of the state's database; each part keeps tables of its own in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything written inside is there after a crash of the service, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def durable_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Synced to the disk before it returns, unlike the rest of the state: a loss of power keeps it."""
    db.execute("PRAGMA synchronous=FULL")
    try:
        with transaction(db):
            yield
    finally:
        db.execute("PRAGMA synchronous=NORMAL")
