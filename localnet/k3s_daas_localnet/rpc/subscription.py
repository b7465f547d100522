"""Streams of checkpoints, transactions and events, from the moment of subscribing on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..ledger.store import Checkpoint
from .filters import event_test, events_of, transaction_test
from .masks import Mask
from .positions import Position, watermark
from .protocol import Message, v2
from .services import CHECKPOINT_DEFAULT, EVENT_DEFAULT, TRANSACTION_DEFAULT, Services

if TYPE_CHECKING:
    from .calls import Out

# A subscriber that is this many checkpoints behind is dropped: it can't hold up the node or its memory.
# It comes back, subscribes anew and fetches what it missed, as after any other end of a stream.
BACKLOG = 256


class Subscriptions:
    """The three streams over the ledger. Each ends when its client does, or falls behind."""

    def __init__(self, services: Services, backlog: int = BACKLOG) -> None:
        self._services = services
        self._ledger = services.ledger
        self._backlog = backlog

    async def subscribe_checkpoints(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, CHECKPOINT_DEFAULT, v2.Checkpoint)
        test = transaction_test(request.filter)

        async def begin(tip: int) -> None:
            # An unfiltered stream has no frames but those of its checkpoints.
            await (out.begin() if test is None else out.send(v2.SubscribeCheckpointsResponse(cursor=tip)))

        async def each(found: Checkpoint) -> None:
            message = v2.SubscribeCheckpointsResponse(cursor=found.sequence)
            if test is None or any(test(transaction) for transaction in self._transactions(found)):
                message.checkpoint = self._services.checkpoint(found, mask)
            await out.send(message)

        await self._follow(begin, each)

    async def subscribe_transactions(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, TRANSACTION_DEFAULT, v2.ExecutedTransaction)
        test = transaction_test(request.filter)
        response = v2.SubscribeTransactionsResponse

        async def each(found: Checkpoint) -> None:
            for index, transaction in enumerate(self._transactions(found)):
                if test is None or test(transaction):
                    mark = watermark(Position(found.sequence, index), found.sequence - 1)
                    shown = self._services.masked(transaction, mask)
                    await out.send(response(transaction=shown, watermark=mark))
            await out.send(response(watermark=_covered(found.sequence)))

        await self._follow(lambda tip: out.send(response(watermark=_covered(tip))), each)

    async def subscribe_events(self, request: Message, out: Out) -> None:
        mask = Mask.of(request.read_mask, EVENT_DEFAULT, v2.Event)
        test = event_test(request.filter)
        response = v2.SubscribeEventsResponse

        async def each(found: Checkpoint) -> None:
            for index, transaction in enumerate(self._transactions(found)):
                for number, event in enumerate(events_of(transaction)):
                    if test is None or test(transaction, event):
                        mark = watermark(Position(found.sequence, index, number), found.sequence - 1)
                        shown = mask.prune(self._services.standalone(event, transaction))
                        await out.send(response(event=shown, watermark=mark))
            await out.send(response(watermark=_covered(found.sequence)))

        await self._follow(lambda tip: out.send(response(watermark=_covered(tip))), each)

    def _transactions(self, checkpoint: Checkpoint) -> list[Message]:
        return [self._services.executed(digest) for digest in checkpoint.transactions]

    async def _follow(
        self, begin: Callable[[int], Awaitable[None]], each: Callable[[Checkpoint], Awaitable[None]]
    ) -> None:
        pending: asyncio.Queue[Checkpoint] = asyncio.Queue(self._backlog)
        listeners = self._ledger.listeners
        loop = asyncio.get_running_loop()
        restored = False
        try:
            async with asyncio.timeout(None) as patience:

                def offer(checkpoint: Checkpoint | None) -> None:
                    nonlocal restored
                    restored = checkpoint is None
                    try:
                        if checkpoint is not None:
                            pending.put_nowait(checkpoint)
                            return
                    except asyncio.QueueFull:
                        pass
                    # Also ends a send that waits for a client that does not read at all.
                    listeners.remove(offer)
                    patience.reschedule(loop.time())

                listeners.append(offer)
                try:
                    # This tells the client that it is subscribed: from here on it misses nothing.
                    await begin(self._ledger.tip.sequence)
                    while True:
                        await each(await pending.get())
                finally:
                    if offer in listeners:
                        listeners.remove(offer)
        except TimeoutError:
            if restored:
                raise GRPCError(
                    Status.ABORTED,
                    "the network was taken back to a snapshot: what came after it never happened",
                ) from None
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"the subscriber is more than {self._backlog} checkpoints behind: "
                "subscribe again and backfill",
            ) from None


def _covered(checkpoint: int) -> Message:
    return watermark(Position.end_of(checkpoint), checkpoint)
