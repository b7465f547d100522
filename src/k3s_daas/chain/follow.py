"""Following checkpoints without a gap and without a duplicate, across endpoints.

Each checkpoint names the one before it by digest, so an endpoint with another history is noticed at its first
checkpoint, whichever endpoint the last one came from; what holds events is also held against the others.

A subscription starts at the tip and can't resume, so it is opened first and drained at once; what lies
between the cursor and the stream is then fetched. Whoever processes a batch keeps its sequence number
together with its effect, and passes it as `after` the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from typing import Any

from k3s_daas.chain import answers
from k3s_daas.chain.crosscheck import CrossCheck
from k3s_daas.chain.endpoints import wanted_answers
from k3s_daas.chain.errors import ChainError, ChainUnreachable, ForkedChain, ReplayGap, RpcFailed
from k3s_daas.chain.messages import rpc
from k3s_daas.chain.model import CheckpointEvents
from k3s_daas.chain.transport import SERVICE_INFO, Link, NotFound, Transport, describe, mask

_FIELDS = (
    "sequence_number",
    "digest",
    "summary.timestamp",
    "summary.previous_digest",
    "transactions.digest",
    "transactions.events",
)
#: Without news for this long the tip is asked for: a subscription can die without a word.
_QUIET_S = 2.0
#: Without a new checkpoint for this long another endpoint is tried: this one may have stopped, or been set
#: back.
_STALL_S = 10.0
#: Checkpoints fetched at once while catching up.
_PARALLEL = 8
_QUEUE = 1_000
#: Failures in a row, without one checkpoint in between, after which the caller is told.
_FAILURES_PER_LINK = 3


class Follower:
    def __init__(
        self,
        transport: Transport,
        after: int | None,
        packages: frozenset[str] | None,
        digest: str | None = None,
    ) -> None:
        self._transport = transport
        self._after = after
        self._digest = digest or None
        self._packages = packages
        self._failures = 0
        self._check = CrossCheck(transport, self._told, wanted_answers(transport.network))

    async def run(self) -> AsyncGenerator[CheckpointEvents, None]:
        """Every checkpoint after the cursor, for ever.

        Raises ReplayGap, ForkedChain, or ChainUnreachable when no endpoint does better in several rounds;
        call again with the last cursor then.
        """
        failed: dict[Link, ChainError] = {}
        while True:
            link = self._transport.current
            try:
                async with contextlib.aclosing(self._session(link)) as session:
                    async for batch in session:
                        self._check_link(batch, link)
                        await self._check.confirm(batch, link)
                        self._after, self._digest = batch.sequence, batch.digest or None
                        self._failures = 0
                        failed.clear()
                        yield batch
            except (ChainUnreachable, RpcFailed, NotFound, ReplayGap, ForkedChain) as error:
                failed[link] = error
                self._failures += 1
                # Another endpoint may keep more history, or tell the right one.
                final = all(
                    isinstance(failed.get(one), ReplayGap | ForkedChain) for one in self._transport.links
                )
                if final or self._failures >= _FAILURES_PER_LINK * len(self._transport.links):
                    raise _worst(failed) from None
                self._transport.prefer(self._transport.rotation()[1 % len(self._transport.links)])
                pause = min(0.1 * 2**self._failures, 5.0)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter, not a secret

    def _check_link(self, batch: CheckpointEvents, link: Link) -> None:
        if self._digest is not None and batch.previous != self._digest:
            raise ForkedChain(
                f"Endpoint {link.endpoint.url} has another history: its checkpoint {batch.sequence} follows "
                f"{batch.previous or 'nothing'}, wanted {self._digest}, which was taken in as checkpoint "
                f"{self._after}. It forked, was set back or lies. Remove it from the configured endpoints."
            )

    async def _told(self, link: Link, number: int) -> CheckpointEvents:
        return self._batch(await self._read_one(link, number))

    async def _session(self, link: Link) -> AsyncGenerator[CheckpointEvents, None]:
        """Until something breaks, with one endpoint."""
        info = await self._info(link)  # verifies the chain before anything it says is believed
        queue: asyncio.Queue[Any] = asyncio.Queue(_QUEUE)
        moved = time.monotonic()
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
                        wanted, moved = batch.sequence + 1, time.monotonic()
                if len(self._transport.links) > 1 and time.monotonic() - moved > _STALL_S:
                    why = f"no checkpoint after {wanted - 1} for {_STALL_S:g} s"
                    raise ChainUnreachable({link.endpoint.url: why})
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
                wanted, moved = sequence + 1, time.monotonic()
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

    async def _read_one(self, link: Link, number: int) -> Any:
        request = rpc.GetCheckpointRequest(sequence_number=number, read_mask=mask(*_FIELDS))
        answer = await self._transport.once(
            link, "GetCheckpoint", lambda to: to.ledger.get_checkpoint, request
        )
        if (answer.checkpoint.sequence_number or 0) != number:
            found = f"checkpoint {answer.checkpoint.sequence_number} instead of {number}"
            raise ChainUnreachable({link.endpoint.url: found})
        return answer.checkpoint

    async def _checkpoint(self, link: Link, number: int) -> Any:
        try:
            return await self._read_one(link, number)
        except NotFound:
            # Pruned while we caught up, or the node says a tip it can't serve yet: the oldest it has tells.
            lowest = (await self._info(link)).lowest_available_checkpoint or 0
            if number < lowest:
                raise ReplayGap(number - 1, lowest) from None
            raise

    def _batch(self, checkpoint: Any) -> CheckpointEvents:
        summary = checkpoint.summary
        events = [
            event
            for transaction in checkpoint.transactions
            for event in answers.to_events(transaction.digest or "", transaction.events, self._packages)
        ]
        return CheckpointEvents(
            checkpoint.sequence_number or 0,
            answers.milliseconds(summary.timestamp if summary is not None else None),
            events,
            checkpoint.digest or "",
            (summary.previous_digest or "") if summary is not None else "",
        )


def _worst(failed: dict[Link, ChainError]) -> ChainError:
    """What to tell of several failures: that there are two histories, else a gap, else the silence."""
    for kind in (ForkedChain, ReplayGap):
        for error in failed.values():
            if isinstance(error, kind):
                return error
    tried: dict[str, str] = {}
    for link, error in failed.items():
        tried |= error.tried if isinstance(error, ChainUnreachable) else {link.endpoint.url: str(error)}
    return ChainUnreachable(tried)
