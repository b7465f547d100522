"""The chain follower: a snapshot at start, then every checkpoint, each taken in once.

Two things come out of the stream. The index is kept up to date; it lives in memory and is rebuilt from a
snapshot. Effects that must not be lost (removals) go to the store together with the cursor, in one
transaction. The stream starts at the older of the two positions; each side ignores what it has already.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol

from k3s_daas.chain import ChainError, CheckpointEvents, MalformedRecord, ReplayGap
from k3s_daas.logs import get_logger
from k3s_daas.registry import Deployment, RegistryEvent, Snapshot, WorkerSlashed, parse_event
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import Store
from k3s_daas_master.work import count_work

_log = get_logger("k3s_daas_master.follower")

_RETRY_S = (0.5, 1.0, 2.0, 5.0)
# An empty checkpoint moves the cursor in memory; the disk hears of it this often.
_IDLE_COMMIT_S = 10.0


class FollowsChain(Protocol):
    async def latest_checkpoint(self) -> tuple[int, int]: ...

    def checkpoints(
        self, after: int | None, packages: Iterable[str] | None = None
    ) -> AsyncGenerator[CheckpointEvents, None]: ...


class ReadsRegistry(Protocol):
    async def snapshot(self) -> Snapshot: ...


class Follower:
    """Feeds the index and the store. `on_change` is called after anything that others may act on."""

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
        self._retry_s = retry_s
        self._cursor: int | None = None
        self._committed_at = 0.0
        self.events = 0
        self.replay_gaps = 0
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
                self._forget_cursor()
                _log.error("replay gap", error=str(error), action="state is read anew from a snapshot")
            except (ChainError, sqlite3.Error) as error:
                self.problem = str(error)
                _log.warning("chain follower interrupted", error=str(error))
            attempt = 0 if self._view.sequence != before else attempt + 1
            await asyncio.sleep(self._retry_s[min(attempt, len(self._retry_s) - 1)])

    async def _follow(self) -> None:
        sequence, timestamp_ms = await self._chain.latest_checkpoint()
        snapshot = await self._registry.snapshot()
        tip, _ = await self._chain.latest_checkpoint()
        self._index.load(snapshot)
        self._index.settled = tip <= snapshot.checkpoint
        self._cursor = self._store.cursor()
        with self._store.transaction():
            for node_id in self._index.slashed():
                self._store.request_removal(node_id, self._clock.now_ms())
            if self._cursor is None:
                self._store.set_cursor(snapshot.checkpoint)
                self._cursor = snapshot.checkpoint
        self._view.seen(sequence, timestamp_ms)
        self.problem = None
        _log.info(
            "registry read",
            checkpoint=snapshot.checkpoint,
            cursor=self._cursor,
            workers=len(self._index.workers),
            tokens=self._index.token_count(),
        )
        self._on_change()
        start = min(self._cursor, snapshot.checkpoint)
        async with contextlib.aclosing(
            self._chain.checkpoints(start, [self._deployment.types_id])
        ) as batches:
            async for batch in batches:
                if not self.take(batch, snapshot.checkpoint):
                    return
                self._index.settled = self._index.settled or batch.sequence >= tip

    def take(self, batch: CheckpointEvents, base: int) -> bool:
        """Take in one checkpoint; `base` is the checkpoint that the index' snapshot was read at.

        False when an event couldn't be read: the checkpoint is done with, and a new snapshot is needed.
        """
        events, all_read = self._ours(batch)
        if batch.sequence > base:
            # The index first: a slashed worker's token is dead before anything else happens.
            for event in events:
                self._index.apply(event)
        if self._cursor is None or batch.sequence > self._cursor:
            self._effects(batch, events, now=bool(events) or not all_read)
        self._view.seen(batch.sequence, batch.timestamp_ms)
        if events:
            self._on_change()
        return all_read

    def _effects(self, batch: CheckpointEvents, events: list[RegistryEvent], *, now: bool) -> None:
        """Commit what the events ask for, and that they were seen, together."""
        if now or self._clock.monotonic() - self._committed_at >= _IDLE_COMMIT_S:
            with self._store.transaction():
                for event in events:
                    if isinstance(event, WorkerSlashed):
                        self._store.request_removal(event.node_id, self._clock.now_ms())
                    count_work(self._store, event)
                self._store.set_cursor(batch.sequence)
            self._committed_at = self._clock.monotonic()
        self._cursor = batch.sequence
        self.events += len(events)

    def _ours(self, batch: CheckpointEvents) -> tuple[list[RegistryEvent], bool]:
        seen: set[tuple[str, int]] = set()
        events: list[RegistryEvent] = []
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
                _log.info(
                    "chain event", kind=type(parsed).__name__, checkpoint=batch.sequence, digest=event.digest
                )
        return events, all_read

    def _forget_cursor(self) -> None:
        try:
            with self._store.transaction():
                self._store.clear_cursor()
        except sqlite3.Error as error:
            _log.error("cursor not cleared", error=str(error))
