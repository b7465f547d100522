"""Places in the chain's history, and the opaque cursors that name them."""

from __future__ import annotations

from typing import NamedTuple

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .protocol import Message, v2

_LAST = (1 << 32) - 1
_BYTES = 16


class Position(NamedTuple):
    """A checkpoint, a transaction in it and an event of that; ordered as they happened."""

    checkpoint: int
    transaction: int = 0
    event: int = 0

    @staticmethod
    def end_of(checkpoint: int) -> Position:
        """Behind everything in a checkpoint."""
        return Position(checkpoint, _LAST, _LAST)

    @staticmethod
    def of(cursor: bytes) -> Position:
        """:raises GRPCError: INVALID_ARGUMENT."""
        if len(cursor) != _BYTES:
            raise GRPCError(Status.INVALID_ARGUMENT, "invalid cursor: it did not come from this network")
        first, second = int.from_bytes(cursor[8:12], "big"), int.from_bytes(cursor[12:], "big")
        return Position(int.from_bytes(cursor[:8], "big"), first, second)

    @property
    def cursor(self) -> bytes:
        head = self.checkpoint.to_bytes(8, "big")
        return head + self.transaction.to_bytes(4, "big") + self.event.to_bytes(4, "big")


def watermark(position: Position, covered: int | None) -> Message:
    """:param covered: checkpoint up to which, in the direction of reading, everything was sent."""
    return v2.Watermark(cursor=position.cursor, checkpoint=covered)
