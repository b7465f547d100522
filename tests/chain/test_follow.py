from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable, ReplayGap, SuiClient, follow

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
SOMEBODY = "0x" + "5b" * 32


class Collector:
    """Collects batches in the background until a checkpoint was seen."""

    def __init__(self, chain: SuiClient, after: int | None, packages: Any = None) -> None:
        self.batches: list[Any] = []
        self.started = asyncio.Event()
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._run(chain, after, packages))

    async def _run(self, chain: SuiClient, after: int | None, packages: Any) -> None:
        async with contextlib.aclosing(chain.checkpoints(after, packages)) as batches:
            async for batch in batches:
                async with self._news:
                    self.batches.append(batch)
                    self._news.notify_all()

    async def until(self, sequence: int, timeout_s: float = 15) -> list[int]:
        async def seen() -> None:
            async with self._news:
                await self._news.wait_for(
                    lambda: bool(self.batches) and self.batches[-1].sequence >= sequence
                )

        waiting = asyncio.create_task(seen())
        done, _ = await asyncio.wait(
            {waiting, self._task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if self._task in done:
            waiting.cancel()
            await self._task
        assert waiting in done, f"checkpoint {sequence} did not come, the last was {self.batches[-1:]}"
        return [batch.sequence for batch in self.batches]

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def tip(chain: SuiClient) -> int:
    return (await chain.latest_checkpoint())[0]


async def test_backfills_from_the_cursor_and_goes_on_with_the_stream(
    live_net: Any, new_registry: Any
) -> None:
    registry = await new_registry()
    chain = registry.chain
    first = await tip(chain)
    collector = Collector(chain, 0)
    assert await collector.until(first) == list(range(1, first + 1))
    for _ in range(3):
        await registry.send(SOMEBODY, 1)
    last = await tip(chain)
    assert last == first + 3
    assert await collector.until(last) == list(range(1, last + 1))
    assert all(b.timestamp_ms > 1_600_000_000_000 for b in collector.batches)
    await collector.stop()


async def test_without_a_cursor_it_starts_now(new_registry: Any) -> None:
    registry = await new_registry()
    before = await tip(registry.chain)
    collector = Collector(registry.chain, None)
    # The start is where it asked for the tip: wait until it has, by the subscription it opens afterwards.
    while not registry.chain._transport.current.verified:
        await asyncio.sleep(0)
    await registry.send(SOMEBODY, 1)
    seen = await collector.until(before + 1)
    assert seen[0] > before
    await collector.stop()


async def test_only_events_of_the_packages_asked_for_with_their_own_index(new_registry: Any) -> None:
    registry = await new_registry()
    package = registry.deployment.package_id
    last = await tip(registry.chain)
    after = last - 5  # in which the registry was created
    ours, others = Collector(registry.chain, after, [package]), Collector(registry.chain, after, ["0xdead"])
    everything = Collector(registry.chain, after)
    for collector in (ours, others, everything):
        await collector.until(last)
        await collector.stop()
    kept = [event for batch in ours.batches for event in batch.events]
    assert kept
    assert all(event.type.startswith(f"{package}::") for event in kept)
    assert not [event for batch in others.batches for event in batch.events]
    full = [event for batch in everything.batches for event in batch.events]
    assert [event for event in full if event.type.startswith(f"{package}::")] == kept
    assert len({(event.digest, event.index) for event in full}) == len(full)


async def test_loses_and_doubles_nothing_while_connections_break(
    live_net: Any, new_registry: Any, proxy: Callable[[], Awaitable[Any]]
) -> None:
    registry = await new_registry()
    first, second = await proxy(), await proxy()
    start = await tip(registry.chain)
    async with await SuiClient.connect([first.url, second.url], "localnet", timeout_s=2) as chain:
        collector = Collector(chain, start)
        for round_ in range(6):
            await registry.send(SOMEBODY, 1 + round_)
            (first if round_ % 2 else second).cut()
            await registry.send(SOMEBODY, 100 + round_)
            if round_ == 2:
                await first.stop()
            await collector.until(await tip(registry.chain))
        last = await tip(registry.chain)
        assert await collector.until(last) == list(range(start + 1, last + 1))
        assert first.connections + second.connections > 2
        await collector.stop()


async def test_a_stream_that_fell_silent_is_noticed(
    new_registry: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_QUIET_S", 0.1)
    registry = await new_registry()
    front = await proxy()
    start = await tip(registry.chain)
    read = follow.Follower._read

    async def deaf(self: Any, link: Any, queue: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(follow.Follower, "_read", deaf)
    async with await SuiClient.connect([front.url], "localnet", timeout_s=2) as chain:
        collector = Collector(chain, start)
        await registry.send(SOMEBODY, 1)
        assert await collector.until(start + 1) == [start + 1]
        await registry.send(SOMEBODY, 2)
        assert await collector.until(start + 2) == [start + 1, start + 2]
        await collector.stop()
    assert read is not deaf


async def test_checkpoints_that_are_gone_are_a_replay_gap(
    new_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await new_registry()
    info = follow.Follower._info

    async def pruned(self: Any, link: Any) -> Any:
        found = await info(self, link)
        found.lowest_available_checkpoint = found.checkpoint_height
        return found

    monkeypatch.setattr(follow.Follower, "_info", pruned)
    last = await tip(registry.chain)
    with pytest.raises(ReplayGap) as caught:
        await Collector(registry.chain, 1).until(last)
    assert (caught.value.after, caught.value.lowest_available) == (1, last)
    assert "Read the state anew" in str(caught.value)
    collector = Collector(registry.chain, last - 1)
    assert await collector.until(last) == [last]
    await collector.stop()


async def test_a_checkpoint_pruned_while_catching_up_is_a_replay_gap(
    new_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await new_registry()
    info, answers = follow.Follower._info, 0

    async def pruning(self: Any, link: Any) -> Any:
        nonlocal answers
        answers += 1
        found = await info(self, link)
        # Says at first that it has checkpoints which it can't give out, and the truth when asked again.
        found.checkpoint_height += 0 if answers > 1 else 5
        found.lowest_available_checkpoint = 0 if answers == 1 else found.checkpoint_height + 3
        return found

    monkeypatch.setattr(follow.Follower, "_info", pruning)
    last = await tip(registry.chain)
    with pytest.raises(ReplayGap):
        await Collector(registry.chain, last).until(last + 5)


async def test_when_no_endpoint_answers_the_caller_is_told(
    new_registry: Any, proxy: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await new_registry()
    front = await proxy()
    start = await tip(registry.chain)
    async with await SuiClient.connect([front.url], "localnet", timeout_s=0.5) as chain:
        collector = Collector(chain, start)
        await registry.send(SOMEBODY, 1)
        await collector.until(start + 1)
        await front.stop()
        with pytest.raises(ChainUnreachable):
            await collector.until(start + 2)


async def test_fills_holes_and_drops_what_it_had(new_registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that starts late, repeats itself and leaves checkpoints out; the node has them all."""
    registry = await new_registry()
    for mist in range(1, 7):
        await registry.send(SOMEBODY, mist)
    last = await tip(registry.chain)
    after = last - 6
    info, read = follow.Follower._info, follow.Follower._read

    async def lagging(self: Any, link: Any) -> Any:
        found = await info(self, link)
        found.checkpoint_height = after + 1
        return found

    async def patchy(self: Any, link: Any, queue: Any) -> None:
        for number in (after + 1, after + 3, after + 2, after + 3, last, last - 1):
            await queue.put(await self._checkpoint(link, number))
        await read(self, link, queue)

    monkeypatch.setattr(follow.Follower, "_info", lagging)
    monkeypatch.setattr(follow.Follower, "_read", patchy)
    collector = Collector(registry.chain, after)
    await collector.until(last)
    await registry.send(SOMEBODY, 9)
    assert await collector.until(last + 1) == list(range(after + 1, last + 2))
    await collector.stop()
