"""Holding what one endpoint says of a checkpoint against the others.

What this finds: another history (a fork, a chain that was set back), and events that were added, changed or
held back in a checkpoint that another endpoint tells truly. Checkpoints without events of ours are compared
by digest, one every `IDLE_S`, because comparing each would cost as much as following twice.

What it can't find: a lie that all configured endpoints share, any lie of a single one that is told
consistently (signatures of Sui's validators aren't verified here), and events held back from a checkpoint
that then looks empty, until a snapshot is read from another endpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from k3s_daas.chain.errors import ChainError, ChainUnreachable, ForkedChain
from k3s_daas.chain.model import CheckpointEvents
from k3s_daas.chain.transport import Link, NotFound, Transport

#: Checkpoints without events are compared this often, in seconds.
IDLE_S = 10.0
#: An endpoint that isn't needed for the count gets this long, and then a pause without being asked.
_PATIENCE_S = 1.5
_PAUSE_S = 60.0
#: Another endpoint may be a little behind: so often, and after so long, it is asked again.
_TRIES, _WAIT_S = 6, 0.25

#: Reads a checkpoint from one endpoint, with the events that concern the follower.
Reads = Callable[[Link, int], Any]


class CrossCheck:
    """Asks the other endpoints; `wanted` is how many have to agree, the source among them."""

    def __init__(self, transport: Transport, read: Reads, wanted: int) -> None:
        self._transport = transport
        self._read = read
        self._wanted = wanted
        self._idle_since: float | None = None
        self._disputed: int | None = None
        self._paused: dict[Link, float] = {}

    async def confirm(self, batch: CheckpointEvents, source: Link) -> None:
        """Return when `batch` may be believed. Raises ForkedChain, or ChainUnreachable
        for too few answers.
        """
        now = time.monotonic()
        # Disputed: the next endpoint to tell it may be the one that left its events out.
        quiet = not batch.events and batch.sequence != self._disputed
        if quiet and self._idle_since is not None and now - self._idle_since < IDLE_S:
            return
        others = [link for link in self._transport.links if link is not source]
        asked = [link for link in others if self._wanted > 1 or self._paused.get(link, 0.0) <= now]
        answers = await asyncio.gather(*(self._ask(link, batch) for link in asked))
        agreeing = 1 + answers.count(True)
        against = [link.endpoint.url for link, said in zip(asked, answers, strict=True) if said is False]
        if len(against) >= agreeing:
            self._disputed = batch.sequence
            raise ForkedChain(
                f"Endpoint {source.endpoint.url} tells checkpoint {batch.sequence} unlike "
                f"{', '.join(against)}. Wanted: one history. One of them forked, was set back or "
                "lies; nothing is taken in until they agree. Remove the wrong one from the configuration."
            )
        if agreeing < self._wanted:
            raise ChainUnreachable(
                {
                    "": f"{agreeing} of {len(others) + 1} confirmed checkpoint {batch.sequence}, wanted "
                    f"{self._wanted}"
                }
            )
        self._idle_since = now

    async def _ask(self, link: Link, batch: CheckpointEvents) -> bool | None:
        """Whether `link` tells the checkpoint the same way; None when it doesn't say."""
        try:
            async with asyncio.timeout(None if self._wanted > 1 else _PATIENCE_S):
                for _ in range(_TRIES):
                    try:
                        told: CheckpointEvents = await self._read(link, batch.sequence)
                    except NotFound:
                        await asyncio.sleep(_WAIT_S)
                        continue
                    return (told.digest, told.events) == (batch.digest, batch.events)
        except (ChainError, TimeoutError):
            pass
        self._paused[link] = time.monotonic() + _PAUSE_S
        return None
