"""The chain follower: a snapshot at start, then every checkpoint, each taken in once.

Two things come out of the stream. The index is kept up to date; it lives in memory and is rebuilt from a
snapshot. Effects that must not be lost (removals) go to the store together with the cursor, in one
transaction. The stream starts at the cursor, the older of the two positions; the index ignores what the
snapshot had already.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol

from k3s_daas.chain import (
    ChainError,
    ChainUnreachable,
    CheckpointEvents,
    Event,
    ForkedChain,
    MalformedRecord,
    ReplayGap,
)
from k3s_daas.logs import get_logger
from k3s_daas.registry import Deployment, RegistryEvent, Snapshot, WorkerSlashed, parse_event
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import Store

_log = get_logger("k3s_daas_master.follower")

_RETRY_S = (0.5, 1.0, 2.0, 5.0)
# An empty checkpoint moves the cursor in memory; the disk hears of it this often.
_IDLE_COMMIT_S = 10.0


class FollowsChain(Protocol):
    async def latest_checkpoint(self) -> tuple[int, int]: ...

    def checkpoints(
        self, after: int | None, packages: Iterable[str] | None = None, digest: str | None = None
    ) -> AsyncGenerator[CheckpointEvents, None]: ...

    def leave_endpoint(self) -> None: ...


class ReadsRegistry(Protocol):
    async def snapshot(self) -> Snapshot: ...


class Follower:
    """Feeds the index and the store. `on_change` is called after anything that others may act on, `on_event`
    with each event and its checkpoint, once, within the transaction that moves the cursor over it."""

    def __init__(
        self,
        *,
        chain: FollowsChain,
        registry: ReadsRegistry,
        deployment: Deployment,
        index: TokenIndex,
        view: ChainView,
        store: Store,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
        on_event: Callable[[RegistryEvent, int], None] = lambda event, checkpoint: None,
        retry_s: tuple[float, ...] = _RETRY_S,
    ) -> None:
        self._chain = chain
        self._registry = registry
        self._deployment = deployment
        self._index = index
        self._view = view
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._on_event = on_event
        self._retry_s = retry_s
        self._cursor: int | None = None
        self._committed_at = 0.0
        self.events = 0
        self.replay_gaps = 0
        self.forks = 0
        # Whether endpoints tell another history than the one that was taken in, or than each other.
        self.forked = False
        self._gap_unsaved: ReplayGap | None = None
        self.problem: str | None = "the registry hasn't been read yet"

    async def run(self) -> None:
        """Follow until cancelled. Whatever breaks: read the state anew and go on."""
        attempt = 0
        while True:
            before = self._view.sequence
            try:
                await self._follow()
                self.problem = "the checkpoint stream ended"
            except ReplayGap as error:
                self.replay_gaps += 1
                self.problem = str(error)
                # The snapshot holds the state that the lost events led to. What slashed means is in it, too.
                self._gap_unsaved = error
                _log.error(
                    "replay gap",
                    error=str(error),
                    action="state is read anew from a snapshot; no slash is proposed until an operator has "
                    "run `k3s-daas-master acknowledge-gap`",
                )
            except ForkedChain as error:
                self.forks += not self.forked
                self.forked = True
                self.problem = str(error)
                _log.error("endpoints tell different histories", error=str(error))
            except (ChainError, sqlite3.Error) as error:
                self.problem = str(error)
                _log.warning("chain follower interrupted", error=str(error))
            attempt = 0 if self._view.sequence != before else attempt + 1
            await asyncio.sleep(self._retry_s[min(attempt, len(self._retry_s) - 1)])

    def gap(self) -> str | None:
        """Which events were lost, as long as no operator has acknowledged it."""
        if self._gap_unsaved is not None:
            return str(self._gap_unsaved)
        gaps = [f"after checkpoint {after} until {lowest}" for _, after, lowest in self._store.open_gaps()]
        return f"events lost {', '.join(gaps)}" if gaps else None

    async def _follow(self) -> None:
        if (gap := self._gap_unsaved) is not None:
            self._store.note_gap(gap.after, gap.lowest_available, self._clock.now_ms())
            self._gap_unsaved = None
        sequence, timestamp_ms = await self._chain.latest_checkpoint()
        snapshot = await self._registry.snapshot()
        tip, _ = await self._chain.latest_checkpoint()
        self._cursor = self._store.cursor()
        newest = max(self._cursor or 0, self._view.sequence or 0)
        if snapshot.checkpoint < newest:
            # An endpoint that lags or was set back: what it says is over, and may give a dead token life.
            self._chain.leave_endpoint()
            found = f"its registry is of checkpoint {snapshot.checkpoint}, older than {newest} seen before"
            raise ChainUnreachable({"endpoint": found})
        self._index.load(snapshot)
        self._index.settled = tip <= snapshot.checkpoint
        self._view.seen(sequence, timestamp_ms)
        with self._store.transaction():
            for node_id in self._index.slashed():
                self._store.request_removal(node_id, self._clock.now_ms())
            if self._cursor is None:
                self._store.set_cursor(snapshot.checkpoint)
                self._cursor = snapshot.checkpoint
        self.problem = None
        _log.info(
            "registry read",
            checkpoint=snapshot.checkpoint,
            cursor=self._cursor,
            workers=len(self._index.workers),
            tokens=self._index.token_count(),
        )
        self._on_change()
        digest = self._store.cursor_digest()
        async with contextlib.aclosing(
            self._chain.checkpoints(self._cursor, [self._deployment.types_id], digest)
        ) as batches:
            async for batch in batches:
                self.forked = False
                if not self.take(batch, snapshot.checkpoint):
                    return
                self._index.settled = self._index.settled or batch.sequence >= tip

    def take(self, batch: CheckpointEvents, base: int) -> bool:
        """Take in one checkpoint; `base` is the checkpoint that the index' snapshot was read at.

        False when an event couldn't be read: the checkpoint is done with, and a new snapshot is needed.
        """
        events, mark, all_read = self._ours(batch)
        if batch.sequence > base:
            # The index first: a slashed worker's token is dead before anything else happens.
            for event in events:
                self._index.apply(event)
        if self._cursor is None or batch.sequence > self._cursor:
            self._effects(batch, events, mark, now=bool(events) or not all_read)
        self._view.seen(batch.sequence, batch.timestamp_ms)
        if events:
            self._on_change()
        return all_read

    def _effects(self, batch: CheckpointEvents, events: list[RegistryEvent], mark: int, *, now: bool) -> None:
        """Commit what the events ask for, and that they were seen, together."""
        if now or self._clock.monotonic() - self._committed_at >= _IDLE_COMMIT_S:
            with self._store.transaction():
                for event in events:
                    if isinstance(event, WorkerSlashed):
                        self._store.request_removal(event.node_id, self._clock.now_ms())
                    self._on_event(event, batch.sequence)
                if events:
                    self._store.count_handled(len(events), mark)
                self._store.set_cursor(batch.sequence, batch.digest)
            self._committed_at = self._clock.monotonic()
        self._cursor = batch.sequence
        self.events += len(events)

    def _ours(self, batch: CheckpointEvents) -> tuple[list[RegistryEvent], int, bool]:
        """(our registry's events, the sum of their marks, whether all could be read)."""
        seen: set[tuple[str, int]] = set()
        events: list[RegistryEvent] = []
        mark = 0
        all_read = True
        for event in batch.events:
            if (event.digest, event.index) in seen:
                continue
            seen.add((event.digest, event.index))
            try:
                parsed = parse_event(event, self._deployment)
            except MalformedRecord as error:
                all_read = False
                _log.error("chain event can't be read", error=str(error), digest=event.digest)
                continue
            if parsed is not None:
                events.append(parsed)
                mark += mark_of(event)
                _log.info(
                    "chain event", kind=type(parsed).__name__, checkpoint=batch.sequence, digest=event.digest
                )
        return events, mark, all_read


def mark_of(event: Event) -> int:
    """A number that tells one event from another; sums of them tell whether each was counted once."""
    named = hashlib.sha256(f"{event.digest}:{event.index}".encode()).digest()
    return int.from_bytes(named[:7], "big")
