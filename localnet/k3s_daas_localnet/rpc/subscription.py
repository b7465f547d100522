"""Streams of checkpoints, from the moment of subscribing on."""

from __future__ import annotations

import asyncio
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..ledger.store import Checkpoint
from .masks import Mask
from .protocol import v2
from .services import Services

# A subscriber that is this many checkpoints behind is dropped: it can't hold up the node or its memory.
# It comes back, subscribes anew and fetches what it missed, as after any other end of a stream.
BACKLOG = 256


async def checkpoints(services: Services, stream: Any, backlog: int = BACKLOG) -> None:
    """Serves one ``SubscribeCheckpoints`` call until the client ends it or falls behind."""
    request = await stream.recv_message()
    if request is None:
        return
    mask = Mask.of(request.read_mask, ["sequence_number", "digest"], v2.Checkpoint)
    pending: asyncio.Queue[Checkpoint] = asyncio.Queue(backlog)
    listeners = services.ledger.listeners
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as patience:

            def offer(checkpoint: Checkpoint) -> None:
                try:
                    pending.put_nowait(checkpoint)
                except asyncio.QueueFull:
                    # Also ends a send that waits for a client that does not read at all.
                    listeners.remove(offer)
                    patience.reschedule(loop.time())

            listeners.append(offer)
            try:
                # The headers tell the client that it is subscribed: from here on it misses nothing.
                await stream.send_initial_metadata()
                while True:
                    found = await pending.get()
                    message = services.checkpoint(found, mask)
                    await stream.send_message(
                        v2.SubscribeCheckpointsResponse(cursor=found.sequence, checkpoint=message)
                    )
            finally:
                if offer in listeners:
                    listeners.remove(offer)
    except TimeoutError:
        raise GRPCError(
            Status.RESOURCE_EXHAUSTED,
            f"the subscriber is more than {backlog} checkpoints behind: subscribe again and backfill",
        ) from None
