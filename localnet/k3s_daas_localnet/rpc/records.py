"""Executed transactions as the ledger stores them: encoded ``ExecutedTransaction`` messages."""

from __future__ import annotations

from ..ledger.effects import Executed
from ..ledger.store import Checkpoint
from . import render
from .protocol import Message, v2


class Records:
    """Writes and reads records. The newest is answered right after it was written, and not parsed again."""

    def __init__(self) -> None:
        self._newest: tuple[bytes, Message] | None = None

    def encode(self, executed: Executed, checkpoint: Checkpoint) -> bytes:
        message = render.executed(executed, checkpoint.sequence, checkpoint.timestamp_ms)
        record = bytes(message)
        self._newest = record, message
        return record

    def decode(self, record: bytes) -> Message:
        """A message of the caller's own, without its object set."""
        newest, self._newest = self._newest, None
        if newest is not None and newest[0] is record:
            return newest[1]
        return v2.ExecutedTransaction.parse(record)
