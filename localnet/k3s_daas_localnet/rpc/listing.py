"""ListCheckpoints, ListTransactions and ListEvents: history between two places, forwards or backwards.

A request ends when it reaches its limit of items, its bound, the tip, or has looked at enough transactions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from .filters import event_test, events_of, transaction_test
from .masks import Mask
from .positions import Position, watermark
from .protocol import Message, v2
from .services import CHECKPOINT_DEFAULT, EVENT_DEFAULT, TRANSACTION_DEFAULT, Services

if TYPE_CHECKING:
    from .calls import Out

_DEFAULT_LIMIT = 50
_MAX_LIMIT = 1000
# Transactions that one request looks at: what a filter throws away costs as much as what it keeps.
SCAN_LIMIT = 2000
_BATCH = 100


@dataclass(frozen=True)
class _Interval:
    """What a request asks for: everything strictly between two places, at most so many items."""

    low: Position
    high: Position
    low_reason: Message
    high_reason: Message
    descending: bool
    limit: int

    @property
    def first(self) -> int:
        """The lowest checkpoint with something in it."""
        return max(self.low.checkpoint + (self.low >= Position.end_of(self.low.checkpoint)), 0)

    @property
    def last(self) -> int:
        """The highest."""
        return self.high.checkpoint - (self.high <= Position(self.high.checkpoint))

    def __contains__(self, position: Position) -> bool:
        return self.low < position < self.high

    def covered(self, checkpoint: int) -> int | None:
        """Up to where everything was sent when ``checkpoint`` is under way."""
        before = checkpoint + 1 if self.descending else checkpoint - 1
        return before if self.first <= before <= self.last else None

    def behind(self, checkpoint: int) -> Position:
        return Position(checkpoint) if self.descending else Position.end_of(checkpoint)


class Listing:
    """The three lists over the ledger that ``services`` serve."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ledger = services.ledger

    async def list_checkpoints(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, CHECKPOINT_DEFAULT, v2.Checkpoint)
        test = transaction_test(request.filter)
        interval = self._interval(request)

        async def every() -> AsyncIterator[tuple[Position, Any]]:
            numbers: Iterator[int] = iter(range(interval.first, interval.last + 1))
            if interval.descending:
                numbers = iter(range(interval.last, interval.first - 1, -1))
            for number in numbers:
                if Position(number) in interval:
                    yield Position(number), number

        async def matching() -> AsyncIterator[tuple[Position, Any]]:
            seen = None
            async for position, transaction in self._transactions(interval):
                found = transaction is not None and test is not None and test(transaction)
                here = Position(position.checkpoint)
                if found and seen != here and here in interval:
                    seen = here
                    yield here, here.checkpoint
                else:
                    yield here, None

        def message(number: int) -> Message:
            found = self._services.checkpoint(self._ledger.checkpoint(number), mask)
            return v2.ListCheckpointsResponse(checkpoint=found)

        await self._send(
            interval, every() if test is None else matching(), message, out, v2.ListCheckpointsResponse
        )

    async def list_transactions(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, TRANSACTION_DEFAULT, v2.ExecutedTransaction)
        test = transaction_test(request.filter)
        interval = self._interval(request)

        async def items() -> AsyncIterator[tuple[Position, Any]]:
            async for position, transaction in self._transactions(interval):
                wanted = position in interval and (test is None or test(transaction))
                yield position, transaction if wanted else None

        def message(transaction: Message) -> Message:
            return v2.ListTransactionsResponse(transaction=self._services.masked(transaction, mask))

        await self._send(interval, items(), message, out, v2.ListTransactionsResponse)

    async def list_events(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, EVENT_DEFAULT, v2.Event)
        test = event_test(request.filter)
        interval = self._interval(request)

        async def items() -> AsyncIterator[tuple[Position, Any]]:
            async for position, transaction in self._transactions(interval):
                events = list(enumerate(events_of(transaction)))
                for index, event in reversed(events) if interval.descending else events:
                    here = position._replace(event=index)
                    if here in interval and (test is None or test(transaction, event)):
                        yield here, self._services.standalone(event, transaction)
                yield position._replace(event=0 if interval.descending else len(events)), None

        def message(event: Message) -> Message:
            return v2.ListEventsResponse(event=mask.prune(event))

        await self._send(interval, items(), message, out, v2.ListEventsResponse)

    # --- what they share

    async def _transactions(self, interval: _Interval) -> AsyncIterator[tuple[Position, Any]]:
        """Transactions with their places, read in small batches: history may grow, or end, in between."""
        first, last = interval.first, interval.last
        while first <= last:
            rows = self._ledger.history(first, last, interval.descending, _BATCH)
            for checkpoint, index, record in rows:
                yield Position(checkpoint, index), v2.ExecutedTransaction.parse(record)
            if len(rows) < _BATCH:
                return
            if interval.descending:
                last = rows[-1][0] - 1
            else:
                first = rows[-1][0] + 1

    async def _send(
        self,
        interval: _Interval,
        items: AsyncIterator[tuple[Position, Any]],
        message: Any,
        out: Out,
        response: Any,
    ) -> None:
        """Sends what is found, and how the request ended.

        :param items: places looked at, in order, each with the item there or None.
        """
        sent = looked = 0
        place, covered = None, None
        reason = interval.low_reason if interval.descending else interval.high_reason
        if interval.limit:
            async for place, item in items:
                covered = interval.covered(place.checkpoint)
                looked += 1
                if item is not None:
                    sent += 1
                    found = message(item)
                    found.watermark = watermark(place, covered)
                    if sent == interval.limit:
                        found.end = v2.QueryEnd(reason=v2.QueryEndReason.ITEM_LIMIT)
                    await out.send(found)
                    if sent == interval.limit:
                        return
                elif looked >= SCAN_LIMIT:
                    reason = v2.QueryEndReason.SCAN_LIMIT
                    break
        if reason is v2.QueryEndReason.CURSOR_BOUND:
            # The bound may lie inside a checkpoint: nothing is said about the whole of that.
            place, covered = (interval.low if interval.descending else interval.high), None
        elif reason is not v2.QueryEndReason.SCAN_LIMIT:
            last = interval.first if interval.descending else interval.last
            place = interval.behind(last) if last >= 0 else Position(0)
            covered = last if interval.first <= interval.last else None
        assert place is not None
        await out.send(response(watermark=watermark(place, covered), end=v2.QueryEnd(reason=reason)))

    def _interval(self, request: Message) -> _Interval:
        options = request.options or v2.QueryOptions()
        reasons = v2.QueryEndReason
        tip = self._ledger.tip.sequence
        start, end = request.start_checkpoint or 0, request.end_checkpoint
        if end is not None and end < start:
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"end_checkpoint {end} is below start_checkpoint {start}"
            )
        # Bounds are exclusive: the place before all of checkpoint 0 is the end of checkpoint -1.
        low, low_reason = Position.end_of(start - 1) if start else _GENESIS, reasons.CHECKPOINT_BOUND
        high, high_reason = Position(tip + 1), reasons.LEDGER_TIP
        if end is not None and end <= tip:
            high, high_reason = Position(end), reasons.CHECKPOINT_BOUND
        if options.after is not None and (after := Position.of(options.after)) >= low:
            low, low_reason = after, reasons.CURSOR_BOUND
        if options.before is not None and (before := Position.of(options.before)) <= high:
            high, high_reason = before, reasons.CURSOR_BOUND
        limit = _DEFAULT_LIMIT if options.limit is None else min(options.limit, _MAX_LIMIT)
        descending = options.ordering == v2.Ordering.DESCENDING
        return _Interval(low, high, low_reason, high_reason, descending, limit)


_GENESIS = Position(-1, (1 << 32) - 1, (1 << 32) - 1)
