"""Endpoints that lie, fork, are set back or fall silent: what is believed, and from whom.

The node behind both endpoints is the real localnet; what an endpoint says is changed on the client's side,
just after it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from k3s_daas.chain import ChainUnreachable, ForkedChain, ReplayGap, SuiClient, crosscheck, follow

pytestmark = pytest.mark.asyncio(loop_scope="session")
SOMEBODY = "0x" + "5b" * 32


@pytest.fixture(autouse=True)
def _polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without streams, so that every checkpoint comes through the one reader that the tests bend."""

    async def deaf(self: Any, link: Any, queue: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(follow.Follower, "_read", deaf)
    monkeypatch.setattr(follow, "_QUIET_S", 0.02)


@pytest.fixture
def bend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Callable[[Any, int], Any]], None]:
    """`bend(endpoint, how)`: what that endpoint says of a checkpoint goes through `how(message, number)`."""
    read, bent = follow.Follower._read_one, {}

    async def bending(self: Any, link: Any, number: int) -> Any:
        message = await read(self, link, number)
        how = bent.get(link.endpoint.url)
        return message if how is None else how(message, number)

    monkeypatch.setattr(follow.Follower, "_read_one", bending)
    return lambda endpoint, how: bent.__setitem__(endpoint.url, how)


@contextlib.asynccontextmanager
async def two(proxy: Callable[[], Awaitable[Any]], network: str = "localnet") -> Any:
    """(client over two endpoints, the endpoints)."""
    first, second = await proxy(), await proxy()
    async with await SuiClient.connect([first.url, second.url], "localnet", timeout_s=2) as chain:
        chain._transport.network = network
        yield chain, first, second


async def tip(chain: SuiClient) -> int:
    return (await chain.latest_checkpoint())[0]


async def taken(chain: SuiClient, after: int, last: int, *how: Any, digest: str | None = None) -> list[Any]:
    batches = []
    async with (
        asyncio.timeout(20),
        contextlib.aclosing(chain.checkpoints(after, *how, digest=digest)) as all_,
    ):
        async for batch in all_:
            batches.append(batch)
            if batch.sequence == last:
                return batches
    raise AssertionError("the stream ended")


async def test_each_checkpoint_names_the_one_before(new_registry: Any) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    batches = await taken(registry.chain, last - 4, last)
    assert all(batch.digest for batch in batches)
    assert [b.previous for b in batches[1:]] == [b.digest for b in batches[:-1]]


async def test_an_endpoint_with_another_history_is_left_for_one_with_ours(
    new_registry: Any, proxy: Any, bend: Any
) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    (known,) = await taken(registry.chain, last - 3, last - 2)
    async with two(proxy) as (chain, first, _):

        def forked(message: Any, number: int) -> Any:
            message.summary.previous_digest = "another"
            return message

        bend(first, forked)
        batches = await taken(chain, last - 2, last, digest=known.digest)
        assert [batch.sequence for batch in batches] == [last - 1, last]
        assert chain.endpoint != first.url


async def test_when_all_have_another_history_nothing_is_taken_in(new_registry: Any) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    with pytest.raises(ForkedChain, match="wanted what-we-know, which was taken in as checkpoint"):
        await taken(registry.chain, last - 2, last, digest="what-we-know")


@pytest.mark.parametrize("lie", ["added", "held back"])
async def test_two_that_tell_events_differently_are_both_disbelieved(
    new_registry: Any, proxy: Any, bend: Any, lie: str
) -> None:
    registry = await new_registry()
    package = registry.deployment.types_id
    last = await tip(registry.chain)
    events = [b for b in await taken(registry.chain, last - 4, last, [package]) if b.events]
    assert events
    async with two(proxy) as (chain, first, second):

        def bent(message: Any, number: int) -> Any:
            if number == events[0].sequence:
                message.transactions = [] if lie == "held back" else [*message.transactions] * 2
            return message

        bend(second, bent)
        with pytest.raises(ForkedChain, match="One of them forked"):
            await taken(chain, last - 4, last, [package])
        assert {first.url, second.url} >= {chain.endpoint}


async def test_of_three_the_two_that_agree_are_believed(
    live_net: Any, new_registry: Any, proxy: Any, bend: Any
) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    liar, second = await proxy(), await proxy()

    def lie(message: Any, number: int) -> Any:
        message.digest = f"lie-{number}"
        message.summary.previous_digest = f"lie-{number - 1}"
        return message

    bend(liar, lie)
    async with await SuiClient.connect([liar.url, second.url, live_net.url], "localnet") as chain:
        batches = await taken(chain, last - 2, last)
        assert [b.digest[:3] for b in batches] != ["lie", "lie"]


async def test_mainnet_believes_nobody_alone(new_registry: Any, proxy: Any) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    async with two(proxy, "mainnet") as (chain, _, second):
        assert [b.sequence for b in await taken(chain, last - 1, last)] == [last]
        await second.stop()
        with pytest.raises(ChainUnreachable, match="1 of 2 confirmed checkpoint"):
            await taken(chain, last - 1, last)


async def test_elsewhere_one_that_hangs_delays_nothing_twice(
    new_registry: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crosscheck, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(crosscheck, "IDLE_S", 0.0)
    registry = await new_registry()
    last = await tip(registry.chain)
    async with two(proxy) as (chain, _, second):
        await asyncio.gather(*(one.latest_checkpoint() for one in chain.all_endpoints()))
        second.swallow_answers = True
        asked = 0
        told = follow.Follower._told

        async def counting(self: Any, link: Any, number: int) -> Any:
            nonlocal asked
            asked += 1
            return await told(self, link, number)

        monkeypatch.setattr(follow.Follower, "_told", counting)
        assert [b.sequence for b in await taken(chain, last - 5, last)] == list(range(last - 4, last + 1))
        assert asked == 1


async def test_an_endpoint_that_was_set_back_or_stopped_is_left(
    new_registry: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_STALL_S", 0.1)
    registry = await new_registry()
    last = await tip(registry.chain)
    info = follow.Follower._info
    async with two(proxy) as (chain, first, second):

        async def set_back(self: Any, link: Any) -> Any:
            found = await info(self, link)
            if link.endpoint.url == first.url:
                found.checkpoint_height = last - 3
            return found

        monkeypatch.setattr(follow.Follower, "_info", set_back)
        assert [b.sequence for b in await taken(chain, last - 2, last)] == [last - 1, last]
        assert chain.endpoint == second.url


async def test_one_endpoint_with_more_history_bridges_anothers_gap(
    new_registry: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    info = follow.Follower._info
    pruned: set[str] = set()

    async def pruning(self: Any, link: Any) -> Any:
        found = await info(self, link)
        if link.endpoint.url in pruned:
            found.lowest_available_checkpoint = found.checkpoint_height
        return found

    monkeypatch.setattr(follow.Follower, "_info", pruning)
    async with two(proxy) as (chain, first, second):
        pruned.add(first.url)
        assert [b.sequence for b in await taken(chain, last - 3, last)] == [last - 2, last - 1, last]
        pruned.add(second.url)
        with pytest.raises(ReplayGap):
            await taken(chain, last - 3, last)


async def test_a_checkpoint_that_was_not_asked_for_is_no_answer(
    new_registry: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = await new_registry()
    last = await tip(registry.chain)
    once = type(registry.chain._transport).once

    async def shifted(self: Any, link: Any, name: str, pick: Any, request: Any) -> Any:
        answer = await once(self, link, name, pick, request)
        if name == "GetCheckpoint":
            answer.checkpoint.sequence_number += 1
        return answer

    monkeypatch.setattr(type(registry.chain._transport), "once", shifted)
    with pytest.raises(ChainUnreachable, match=f"checkpoint {last + 1} instead of {last}"):
        await taken(registry.chain, last - 1, last)
