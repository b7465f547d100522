"""Lists and subscriptions of checkpoints, transactions and events, as an unmodified pysui client asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
import pytest
import pytest_asyncio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from localnet_wallet import Probe, Wallet, arg, owned, succeeded
from pysui.sui.sui_grpc.pgrpc_filters import Literal, build_event_filter, build_transaction_filter
from pysui.sui.sui_grpc.pgrpc_requests import (
    ListCheckpoints,
    ListEvents,
    ListTransactions,
    SubscribeCheckpoints,
    SubscribeEvents,
    SubscribeTransactions,
)

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.transaction import PureInput, TransferObjects
from k3s_daas_localnet.rpc import listing

END = v2.QueryEndReason
Ask = Callable[[Any], Awaitable[list[Any]]]


@pytest.fixture
def ask(wallet: Wallet) -> Ask:
    """Every frame of a list. :raises GRPCError: it was refused."""

    async def frames(request: Any) -> list[Any]:
        opened = await wallet.client.execute_grpc_request(request=request)
        assert opened.is_ok(), opened.result_string
        return [frame async for frame in opened.result_data]

    return frames


@pytest_asyncio.fixture(loop_scope="session")
async def story(wallet: Wallet, other: Wallet, probe: Probe) -> list[str]:
    """Digests of what happened: three bumps by the wallet, one by the other, a thing given away."""
    bump = probe.call("bump", arg(0))
    told = [(await wallet.run([bump], [probe.shared()])).digest for _ in range(3)]
    told.append((await other.run([bump, bump], [probe.shared()])).digest)
    thing = await owned(wallet, await probe.thing(wallet))
    give = TransferObjects((arg(0),), arg(1))
    executed = await wallet.run([give], [thing, PureInput(bytes.fromhex(other.address[2:]))])
    return [*told, executed.digest]


def items(frames: list[Any], name: str) -> list[Any]:
    return [found for frame in frames if (found := getattr(frame, name)) is not None]


def end(frames: list[Any]) -> Any:
    """Why it ended, which the last frame says and no other; watermarks only go one way."""
    assert [frame.end for frame in frames[:-1]] == [None] * (len(frames) - 1)
    cursors = [frame.watermark.cursor for frame in frames]
    assert cursors in (sorted(cursors), sorted(cursors, reverse=True))
    return frames[-1].end.reason


async def test_events_are_listed(
    net: Localnet, ask: Ask, probe: Probe, story: list[str], other: Wallet
) -> None:
    told = build_event_filter(terms=[[Literal("event_type", probe.type("Told"))]])
    frames = await ask(ListEvents(event_filter=told, field_mask=["*"]))
    found = items(frames, "event")
    assert end(frames) == END.LEDGER_TIP
    assert frames[-1].watermark.checkpoint == net.ledger.tip.sequence
    assert [event.json.to_dict()["count"] for event in found] == ["1", "2", "3", "4", "5"]
    assert [event.transaction_digest for event in found] == [*story[:3], story[3], story[3]]
    assert [event.event_index or 0 for event in found] == [0, 0, 0, 0, 1]
    assert found[4].sender == other.address
    assert [event.checkpoint for event in found] == sorted(event.checkpoint for event in found)
    assert [event.transaction_index or 0 for event in found] == [0] * 5


async def test_pages_forwards_and_backwards_meet_at_every_cursor(
    ask: Ask, probe: Probe, story: list[str]
) -> None:
    told = build_event_filter(terms=[[Literal("emit_module", f"{probe.package}::probe")]])

    async def pages(descending: bool) -> list[str]:
        counts: list[str] = []
        cursor = None
        while True:
            options = v2.QueryOptions(limit=2, ordering=v2.Ordering.DESCENDING if descending else None)
            if descending:
                options.before = cursor
            else:
                options.after = cursor
            frames = await ask(ListEvents(event_filter=told, options=options, field_mask=["json"]))
            page = items(frames, "event")
            counts += [event.json.to_dict()["count"] for event in page]
            reason, cursor = end(frames), frames[-1].watermark.cursor
            if reason != END.ITEM_LIMIT:
                return counts
            assert len(page) == 2
            assert frames[-1].event is not None

    assert await pages(False) == ["1", "2", "3", "4", "5"]
    assert await pages(True) == ["5", "4", "3", "2", "1"]


async def test_transactions_are_listed_by_every_predicate(
    ask: Ask, wallet: Wallet, other: Wallet, probe: Probe, story: list[str]
) -> None:
    async def digests(*terms: list[Literal]) -> list[str]:
        wanted = build_transaction_filter(terms=list(terms))
        frames = await ask(ListTransactions(tx_filter=wanted, field_mask=["digest"]))
        assert end(frames) == END.LEDGER_TIP
        return [found.digest for found in items(frames, "transaction")]

    package = probe.package
    assert await digests([Literal("move_call", f"{package}::probe::bump")]) == story[:4]
    assert await digests([Literal("move_call", package), Literal("sender", other.address)]) == [story[3]]
    not_other = [Literal("move_call", f"{package}::probe::bump"), Literal("sender", other.address, True)]
    assert await digests(not_other) == story[:3]
    # The faucet's gift, its own transaction, and the thing it was given.
    affected = await digests([Literal("affected_address", other.address)])
    assert (len(affected), affected[1:]) == (3, story[3:])
    assert (await digests([Literal("affected_object", probe.board)]))[-4:] == story[:4]
    (published,) = await digests([Literal("package_write")])
    assert published not in story
    assert await digests([Literal("event_type", f"{package}::probe::Told")]) == story[:4]
    assert await digests([Literal("event_type", package)]) == story[:4]
    assert await digests([Literal("event_stream_head", package)]) == []
    either = [[Literal("package_write")], [Literal("sender", other.address)]]
    assert await digests(*either) == [published, story[3]]


async def test_checkpoints_are_listed_in_ranges(
    net: Localnet, ask: Ask, probe: Probe, story: list[str]
) -> None:
    tip = net.ledger.tip.sequence
    frames = await ask(ListCheckpoints(start_checkpoint=1, end_checkpoint=4, field_mask=["sequence_number"]))
    assert [found.sequence_number for found in items(frames, "checkpoint")] == [1, 2, 3]
    assert end(frames) == END.CHECKPOINT_BOUND
    assert frames[-1].watermark.checkpoint == 3
    options = v2.QueryOptions(ordering=v2.Ordering.DESCENDING)
    frames = await ask(ListCheckpoints(options=options, field_mask=["sequence_number"]))
    assert [found.sequence_number or 0 for found in items(frames, "checkpoint")] == list(range(tip, -1, -1))
    assert end(frames) == END.CHECKPOINT_BOUND
    bumps = build_transaction_filter(terms=[[Literal("move_call", f"{probe.package}::probe::bump")]])
    frames = await ask(ListCheckpoints(tx_filter=bumps, field_mask=["transactions.digest"]))
    assert [t.digest for found in items(frames, "checkpoint") for t in found.transactions] == story[:4]
    # What an exclusive cursor bounds.
    options = v2.QueryOptions(after=frames[0].watermark.cursor, before=frames[3].watermark.cursor)
    frames = await ask(ListCheckpoints(tx_filter=bumps, options=options, field_mask=["transactions.digest"]))
    assert [t.digest for found in items(frames, "checkpoint") for t in found.transactions] == story[1:3]
    assert end(frames) == END.CURSOR_BOUND
    frames = await ask(ListCheckpoints(start_checkpoint=tip + 10))
    assert (end(frames), items(frames, "checkpoint")) == (END.LEDGER_TIP, [])


async def test_a_long_scan_stops_and_goes_on(
    ask: Ask, probe: Probe, story: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCAN_LIMIT", 2)
    monkeypatch.setattr(listing, "_BATCH", 2)
    given = build_transaction_filter(terms=[[Literal("move_call", f"{probe.package}::probe::bump")]])
    for descending in (False, True):
        found: list[str] = []
        cursor, rounds = None, 0
        while True:
            rounds += 1
            options = v2.QueryOptions(ordering=v2.Ordering.DESCENDING if descending else None)
            setattr(options, "before" if descending else "after", cursor)
            frames = await ask(ListTransactions(tx_filter=given, options=options, field_mask=["digest"]))
            found += [item.digest for item in items(frames, "transaction")]
            cursor = frames[-1].watermark.cursor
            if end(frames) != END.SCAN_LIMIT:
                break
        assert found == (story[3::-1] if descending else story[:4])
        assert rounds > 2


@pytest.mark.parametrize(
    "request_",
    [
        ListTransactions(tx_filter=v2.TransactionFilter()),
        ListTransactions(tx_filter=v2.TransactionFilter(terms=[v2.TransactionTerm()])),
        ListTransactions(tx_filter=build_transaction_filter(terms=[[Literal("sender", "nobody")]])),
        ListTransactions(tx_filter=build_transaction_filter(terms=[[Literal("move_call", "0x1::a::b::c")]])),
        ListEvents(event_filter=build_event_filter(terms=[[Literal("event_type", "0x1::m::N<")]])),
        ListEvents(options=v2.QueryOptions(after=b"short")),
        ListEvents(field_mask=["contents.nothing"]),
        ListCheckpoints(start_checkpoint=5, end_checkpoint=4),
        SubscribeEvents(event_filter=v2.EventFilter()),
    ],
)
async def test_malformed_lists_are_refused(ask: Ask, request_: Any) -> None:
    with pytest.raises(GRPCError) as caught:
        await ask(request_)
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_subscriptions(net: Localnet, wallet: Wallet, other: Wallet, probe: Probe) -> None:
    async def open_(request: Any) -> AsyncIterator[Any]:
        opened = await wallet.client.execute_grpc_request(request=request)
        frames: AsyncIterator[Any] = opened.result_data
        return frames

    others = build_transaction_filter(terms=[[Literal("sender", other.address)]])
    told = build_event_filter(terms=[[Literal("event_type", probe.type("Told"))]])
    streams = [
        await open_(SubscribeCheckpoints(tx_filter=others, field_mask=["transactions.digest"])),
        await open_(SubscribeTransactions(tx_filter=others, field_mask=["digest", "checkpoint"])),
        await open_(SubscribeEvents(event_filter=told, field_mask=["json", "transaction_digest"])),
    ]
    tip = net.ledger.tip.sequence
    firsts = await asyncio.wait_for(asyncio.gather(*(anext(stream) for stream in streams)), 5)
    # Where it begins, before anything happened.
    assert firsts[0].cursor == tip
    assert [first.watermark.checkpoint for first in firsts[1:]] == [tip, tip]
    bump = probe.call("bump", arg(0))
    mine = (await wallet.run([bump], [probe.shared()])).digest
    theirs = (await other.run([bump], [probe.shared()])).digest

    async def until(stream: AsyncIterator[Any], covered: Callable[[Any], bool]) -> list[Any]:
        frames = []
        async for frame in stream:
            frames.append(frame)
            if covered(frame):
                return frames
        raise AssertionError("the stream ended")

    async with asyncio.timeout(5):
        checkpoints = await until(streams[0], lambda frame: frame.cursor == tip + 2)
        transactions = await until(streams[1], lambda frame: frame.watermark.checkpoint == tip + 2)
        events = await until(streams[2], lambda frame: frame.watermark.checkpoint == tip + 2)
    assert [frame.checkpoint is None for frame in checkpoints] == [True, False]
    assert checkpoints[1].checkpoint.transactions[0].digest == theirs
    (transaction,) = items(transactions, "transaction")
    assert (transaction.digest, transaction.checkpoint) == (theirs, tip + 2)
    assert [event.transaction_digest for event in items(events, "event")] == [mine, theirs]
    # A list goes on exactly where a stream was.
    cursor = next(frame.watermark.cursor for frame in events if frame.event is not None)
    options = v2.QueryOptions(after=cursor)
    opened = await wallet.client.execute_grpc_request(
        request=ListEvents(event_filter=told, options=options, field_mask=["transaction_digest"])
    )
    rest = [frame async for frame in opened.result_data]
    assert [event.transaction_digest for event in items(rest, "event")] == [theirs]


async def test_events_inside_a_transaction_carry_no_place(wallet: Wallet, probe: Probe) -> None:
    executed = await wallet.run([probe.call("bump", arg(0))], [probe.shared()])
    succeeded(executed)
    (event,) = executed.events.events
    assert (event.checkpoint, event.transaction_digest) == (None, None)
