"""Following checkpoints without a gap and without a duplicate, across endpoints.

A subscription starts at the tip and can't resume, so it is opened first and drained at once; what lies
between the cursor and the stream is then fetched. Whoever processes a batch keeps its sequence number
together with its effect, and passes it as `after` the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from typing import Any

from k3s_daas.chain import answers
from k3s_daas.chain.errors import ChainUnreachable, ReplayGap, RpcFailed
from k3s_daas.chain.messages import rpc
from k3s_daas.chain.model import CheckpointEvents
from k3s_daas.chain.transport import SERVICE_INFO, Link, NotFound, Transport, describe, mask

_FIELDS = ("sequence_number", "summary.timestamp", "transactions.digest", "transactions.events")
#: Without news for this long the tip is asked for: a subscription can die without a word.
_QUIET_S = 2.0
#: Checkpoints fetched at once while catching up.
_PARALLEL = 8
_QUEUE = 1_000
#: Failures in a row, without one checkpoint in between, after which the caller is told.
_FAILURES_PER_LINK = 3


class Follower:
    def __init__(self, transport: Transport, after: int | None, packages: frozenset[str] | None) -> None:
        self._transport = transport
        self._after = after
        self._packages = packages
        self._failures = 0

    async def run(self) -> AsyncGenerator[CheckpointEvents, None]:
        """Every checkpoint after the cursor, for ever. Raises ReplayGap, or ChainUnreachable when no endpoint
        answers in several rounds; call again with the last cursor then."""
        while True:
            link = self._transport.current
            try:
                async with contextlib.aclosing(self._session(link)) as session:
                    async for batch in session:
                        self._after = batch.sequence
                        self._failures = 0
                        yield batch
            except (ChainUnreachable, RpcFailed, NotFound) as error:
                self._failures += 1
                if self._failures >= _FAILURES_PER_LINK * len(self._transport.links):
                    if isinstance(error, ChainUnreachable):
                        raise
                    raise ChainUnreachable({link.endpoint.url: str(error)}) from None
                self._transport.prefer(self._transport.rotation()[1 % len(self._transport.links)])
                pause = min(0.1 * 2**self._failures, 5.0)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret

    async def _session(self, link: Link) -> AsyncGenerator[CheckpointEvents, None]:
        """Until something breaks, with one endpoint."""
        info = await self._info(link)  # verifies the chain before anything it says is believed
        queue: asyncio.Queue[Any] = asyncio.Queue(_QUEUE)
        reader = asyncio.create_task(self._read(link, queue))
        try:
            if self._after is None:
                self._after = info.checkpoint_height or 0
            wanted = self._after + 1
            lowest = info.lowest_available_checkpoint or 0
            if wanted < lowest:
                raise ReplayGap(self._after, lowest)
            tip: int | None = info.checkpoint_height or 0
            while True:
                if tip is not None:
                    async for batch in self._fetch(link, wanted, tip):
                        yield batch
                        wanted = batch.sequence + 1
                try:
                    item = await asyncio.wait_for(queue.get(), _QUIET_S)
                except TimeoutError:
                    tip = (await self._info(link)).checkpoint_height or 0
                    continue
                if isinstance(item, Exception):
                    raise item
                tip = None
                sequence = item.sequence_number or 0
                if sequence < wanted:
                    continue
                async for batch in self._fetch(link, wanted, sequence - 1):
                    yield batch
                yield self._batch(item)
                wanted = sequence + 1
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _read(self, link: Link, queue: asyncio.Queue[Any]) -> None:
        """Drain the stream; its end, whatever the reason, is an item too."""
        url = link.endpoint.url
        request = rpc.SubscribeCheckpointsRequest(read_mask=mask(*_FIELDS))
        try:
            async for message in link.subscription.subscribe_checkpoints(request):
                if message.checkpoint is not None:
                    checkpoint = message.checkpoint
                    checkpoint.sequence_number = message.cursor
                    await queue.put(checkpoint)
            await queue.put(ChainUnreachable({url: "the subscription ended"}))
        except Exception as error:  # whatever it is, the session has to know that the stream is over
            link.verified = False
            await queue.put(ChainUnreachable({url: describe(error, self._transport.timeout_s)}))

    async def _info(self, link: Link) -> Any:
        return await self._transport.once(link, *SERVICE_INFO)

    async def _fetch(self, link: Link, first: int, last: int) -> AsyncGenerator[CheckpointEvents, None]:
        for start in range(first, last + 1, _PARALLEL):
            numbers = range(start, min(start + _PARALLEL, last + 1))
            for found in await asyncio.gather(*(self._checkpoint(link, number) for number in numbers)):
                yield self._batch(found)

    async def _checkpoint(self, link: Link, number: int) -> Any:
        request = rpc.GetCheckpointRequest(sequence_number=number, read_mask=mask(*_FIELDS))
        try:
            answer = await self._transport.once(
                link, "GetCheckpoint", lambda to: to.ledger.get_checkpoint, request
            )
        except NotFound:
            # Pruned while we caught up, or the node says a tip it can't serve yet: the oldest it has tells.
            lowest = (await self._info(link)).lowest_available_checkpoint or 0
            if number < lowest:
                raise ReplayGap(number - 1, lowest) from None
            raise
        return answer.checkpoint

    def _batch(self, checkpoint: Any) -> CheckpointEvents:
        timestamp = checkpoint.summary.timestamp if checkpoint.summary is not None else None
        events = [
            event
            for transaction in checkpoint.transactions
            for event in answers.to_events(transaction.digest or "", transaction.events, self._packages)
        ]
        return CheckpointEvents(checkpoint.sequence_number or 0, answers.milliseconds(timestamp), events)
