"""Malformed requests, signatures and transactions: error statuses, never a crash, never a changed state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

import pysui.sui.sui_grpc.suimsgs.google.protobuf as protobuf
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from localnet_wallet import Probe, Wallet, arg, pure, succeeded

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.encoding import base58, byte_string
from k3s_daas_localnet.ledger.objects import CLOCK_ID
from k3s_daas_localnet.ledger.transaction import PureInput, TransactionData
from k3s_daas_localnet.rpc.calls import Call, all_calls
from k3s_daas_localnet.rpc.records import Records
from k3s_daas_localnet.rpc.services import Services

MUTANTS = 120
# What a request may be answered with; UNKNOWN would be grpclib's word for a crash.
EXPECTED = {Status.OK, Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.UNIMPLEMENTED, Status.OUT_OF_RANGE}


@dataclass
class Out:
    """Takes what a call answers."""

    messages: list[Any] = field(default_factory=list)

    async def begin(self) -> None:
        pass

    async def send(self, message: Any) -> None:
        bytes(message)  # what can't be encoded can't be sent
        self.messages.append(message)


async def answer(call: Call, request: bytes) -> Status:
    """The status of a call that must end in one of the expected ways."""
    status, text = Status.OK, ""
    try:
        async with asyncio.timeout(5):
            await call.answer(request, Out())
    except GRPCError as error:
        status, text = error.status, error.message or ""
    torn = status is Status.INTERNAL and "failed to decode Protobuf message" in text
    assert torn or status in EXPECTED, (call.path, request.hex(), status, text)
    return status


def state(net: Localnet) -> tuple[Any, ...]:
    live = {item.object_id: item.digest for item in net.ledger.all_objects() if item.object_id != CLOCK_ID}
    return net.ledger.tip, live, len(list(net.ledger.code.modules())), net.ledger.snapshots()


def mutants(raw: bytes, chance: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        made = bytearray(raw)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(made)) if made else 0
            match chance.randrange(6):
                case 0 if made:
                    made[at] ^= 1 << chance.randrange(8)
                case 1 if made:
                    made[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 2:
                    made.insert(at, chance.randrange(256))
                case 3 if made:
                    del made[at]
                case 4:
                    made[at:at] = made[at : at + chance.randrange(1, 20)]
                case _:
                    del made[at + chance.randrange(1, 60) :]
        yield bytes(made)


@pytest.fixture
def calls(net: Localnet) -> dict[str, Call]:
    found = all_calls(Services(net.ledger, Records()))
    return {path.rpartition("/")[2]: call for path, call in found.items()}


async def samples(net: Localnet, wallet: Wallet, probe: Probe) -> dict[str, Any]:
    """A good request for every call that ends by itself."""
    mask = protobuf.FieldMask(paths=["*"])
    bump = await wallet.raw([probe.call("bump", arg(0))], [probe.shared()])
    executed = await wallet.submit(bump)
    mint = await wallet.raw([probe.call("length", arg(0))], [PureInput(byte_string(b"abc"))])
    coin = f"0x2::coin::Coin<{probe.package}::probe::Thing>"
    options = v2.QueryOptions(limit=3, after=bytes(16), ordering=v2.Ordering.DESCENDING)
    literal = v2.TransactionLiteral(move_call=v2.MoveCallFilter(function=f"{probe.package}::probe"))
    tests = v2.TransactionFilter(terms=[v2.TransactionTerm(literals=[literal])])
    typed = v2.EventLiteral(event_type=v2.EventTypeFilter(event_type=probe.type("Told")), negated=True)
    signature = v2.UserSignature(bcs=v2.Bcs(value=wallet.sign(bump)))
    signed = {"transaction": v2.Transaction(bcs=v2.Bcs(value=bump.raw)), "signatures": [signature]}
    fields = executed.transaction
    fields.bcs = None
    return {
        "GetServiceInfo": v2.GetServiceInfoRequest(),
        "GetEpoch": v2.GetEpochRequest(epoch=0, read_mask=mask),
        "GetObject": v2.GetObjectRequest(object_id=probe.board, version=3, read_mask=mask),
        "BatchGetObjects": v2.BatchGetObjectsRequest(
            requests=[v2.GetObjectRequest(object_id=probe.board)] * 2, read_mask=mask
        ),
        "GetTransaction": v2.GetTransactionRequest(digest=executed.digest, read_mask=mask),
        "BatchGetTransactions": v2.BatchGetTransactionsRequest(digests=[executed.digest] * 2),
        "GetCheckpoint": v2.GetCheckpointRequest(sequence_number=2, read_mask=mask),
        "ListCheckpoints": v2.ListCheckpointsRequest(end_checkpoint=4, filter=tests, options=options),
        "ListTransactions": v2.ListTransactionsRequest(start_checkpoint=1, filter=tests, options=options),
        "ListEvents": v2.ListEventsRequest(
            filter=v2.EventFilter(terms=[v2.EventTerm(literals=[typed])]), options=options, read_mask=mask
        ),
        "ListOwnedObjects": v2.ListOwnedObjectsRequest(
            owner=wallet.address, object_type=coin, page_size=2, page_token=bytes(32), read_mask=mask
        ),
        "ListDynamicFields": v2.ListDynamicFieldsRequest(parent=probe.board, page_size=1, read_mask=mask),
        "GetBalance": v2.GetBalanceRequest(owner=wallet.address, coin_type="0x2::sui::SUI"),
        "ListBalances": v2.ListBalancesRequest(owner=wallet.address, page_size=1),
        "GetCoinInfo": v2.GetCoinInfoRequest(coin_type="0x2::sui::SUI"),
        "GetPackage": v2.GetPackageRequest(package_id=probe.package),
        "GetFunction": v2.GetFunctionRequest(package_id=probe.package, module_name="probe", name="bump"),
        "GetDatatype": v2.GetDatatypeRequest(package_id=probe.package, module_name="probe", name="Board"),
        "ListPackageVersions": v2.ListPackageVersionsRequest(package_id=probe.package),
        "VerifySignature": v2.VerifySignatureRequest(
            message=v2.Bcs(name="TransactionData", value=bump.raw),
            signature=signature,
            address=wallet.address,
        ),
        "SimulateTransaction": v2.SimulateTransactionRequest(transaction=fields, do_gas_selection=True),
        "SimulateTransaction ": v2.SimulateTransactionRequest(
            transaction=v2.Transaction(bcs=v2.Bcs(value=mint.raw)), read_mask=mask
        ),
        # Executed above already: whoever only damages its mask gets the same answer again.
        "ExecuteTransaction": v2.ExecuteTransactionRequest(**signed, read_mask=mask),
    }


async def test_malformed_requests(
    net: Localnet, wallet: Wallet, probe: Probe, calls: dict[str, Call]
) -> None:
    chance = random.Random(3)  # noqa: S311 - repeatable on purpose
    good = await samples(net, wallet, probe)
    assert {name.strip() for name in good} == {name for name in calls if not name.startswith("Subscribe")}
    before = state(net)
    seen: dict[Status, int] = {}
    for name, request in good.items():
        call, raw = calls[name.strip()], bytes(request)
        if "SimulateTransaction" not in name:  # the first one has stale versions
            assert await answer(call, raw) is Status.OK, name
        for mutant in mutants(raw, chance, MUTANTS):
            status = await answer(call, mutant)
            seen[status] = seen.get(status, 0) + 1
    assert state(net) == before
    assert min(seen.get(status, 0) for status in (Status.OK, Status.INTERNAL, Status.INVALID_ARGUMENT)) > 50


async def test_malformed_signatures(
    wallet: Wallet, probe: Probe, calls: dict[str, Call], net: Localnet
) -> None:
    chance = random.Random(4)  # noqa: S311
    data = await wallet.raw([probe.call("bump", arg(0))], [probe.shared()])
    good = wallet.sign(data)
    before = state(net)
    raw = v2.Transaction(bcs=v2.Bcs(value=data.raw))
    made = [mutant for mutant in mutants(good, chance, 150) if mutant != good]
    made += [bytes([flag]) + chance.randbytes(size) for flag in range(8) for size in (0, 64, 96, 97, 300)]
    for signature in made:
        request = v2.ExecuteTransactionRequest(
            transaction=raw, signatures=[v2.UserSignature(bcs=v2.Bcs(value=signature))]
        )
        assert await answer(calls["ExecuteTransaction"], bytes(request)) is Status.INVALID_ARGUMENT
    assert state(net) == before
    succeeded(await wallet.submit(data))


async def test_malformed_bcs(wallet: Wallet, probe: Probe, calls: dict[str, Call], net: Localnet) -> None:
    """Signed properly, so that nothing is refused for its signature."""
    chance = random.Random(5)  # noqa: S311
    data = await wallet.raw([probe.call("length", arg(0))], [PureInput(byte_string(b"abc"))], budget=10**7)
    # Nothing of it may succeed: it is bound to a version of the gas coin that is gone.
    succeeded(await wallet.submit(data))
    before = state(net)
    made = list(mutants(data.raw, chance, 300))
    made += [chance.randbytes(chance.randrange(300)) for _ in range(100)]
    made += [b"\0\0" + chance.randbytes(200) for _ in range(100)]
    for raw in made:
        if raw == data.raw:
            continue
        signature = wallet.sign(TransactionData((), (), b"", (), b"", 0, 0, raw=raw))
        request = v2.ExecuteTransactionRequest(
            transaction=v2.Transaction(bcs=v2.Bcs(value=raw)),
            signatures=[v2.UserSignature(bcs=v2.Bcs(value=signature))],
        )
        assert await answer(calls["ExecuteTransaction"], bytes(request)) is Status.INVALID_ARGUMENT
    assert state(net) == before


async def test_deep_and_long_things(
    wallet: Wallet, probe: Probe, calls: dict[str, Call], net: Localnet
) -> None:
    before = state(net)
    deep = "vector<" * 20_000 + "u8" + ">" * 20_000
    wide = "0x2::a::B<" + ", ".join(["u8"] * 20_000) + ">"
    invalid = Status.INVALID_ARGUMENT
    for text in (deep, wide, "<" * 50_000, "0x" + "1" * 1_000_000, "0x2::" * 100_000):
        for name, request in {
            "GetCoinInfo": v2.GetCoinInfoRequest(coin_type=text),
            "GetBalance": v2.GetBalanceRequest(owner="0x1", coin_type=text),
            "ListOwnedObjects": v2.ListOwnedObjectsRequest(owner="0x1", object_type=text),
            "GetObject": v2.GetObjectRequest(object_id=text),
            "GetTransaction": v2.GetTransactionRequest(digest=text),
        }.items():
            assert await answer(calls[name], bytes(request)) in (invalid, Status.NOT_FOUND, Status.OK)
    one = await wallet.raw([probe.call("generic", arg(0), types=["vector<u8>"])], [pure(0)])
    vector = b"\x07generic\x01\x06\x01"
    assert one.raw.count(vector) == 1
    raw = one.raw.replace(vector, b"\x07generic\x01" + b"\x06" * 30_000 + b"\x01")
    for name, kind in (
        ("Simulate", v2.SimulateTransactionRequest),
        ("Execute", v2.ExecuteTransactionRequest),
    ):
        request = kind(transaction=v2.Transaction(bcs=v2.Bcs(value=raw)))
        assert await answer(calls[f"{name}Transaction"], bytes(request)) is invalid
    # A value in a value, a thousand times over.
    nested = b""
    for _ in range(1000):
        nested = (
            b"\x32"
            + varint(len(nested) + 1 + len(varint(len(nested))))
            + b"\x0a"
            + varint(len(nested))
            + nested
        )
    literal = b"\xc2\x3e" + varint(len(nested)) + nested
    body = literal
    for tag in (b"\x0a", b"\x12", b"\x22", b"\x0a"):
        body = tag + varint(len(body)) + body
    assert await answer(calls["SimulateTransaction"], body) is Status.INTERNAL
    paths = protobuf.FieldMask(paths=[".".join(["effects"] * 10_000), "." * 100_000])
    request = v2.GetTransactionRequest(digest=base58(bytes(32)), read_mask=paths)
    assert await answer(calls["GetTransaction"], bytes(request)) is invalid
    assert state(net) == before


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


async def test_noise_on_the_wire(net: Localnet, wallet: Wallet) -> None:
    """Random bytes behind every kind of beginning; the server goes on."""
    chance = random.Random(6)  # noqa: S311
    where = urlparse(net.url)
    before = state(net)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    head = b"POST /sui.rpc.v2.LedgerService/GetObject HTTP/1.1\r\nHost: a\r\n"
    head += b"Content-Type: application/grpc-web\r\n"
    settings = b"\0\0\0\4\0\0\0\0\0"
    for _ in range(60):
        begun = chance.choice([b"", preface, preface + settings, head, head + b"Content-Length: 50\r\n\r\n"])
        noise = chance.randbytes(chance.randrange(400))
        if begun.startswith(preface) and chance.random() < 0.7:
            # frames that look like frames
            kind, flags = chance.randrange(11), chance.randrange(256)
            noise = len(noise).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, chance.randrange(4)]) + noise
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(begun + noise)
        await writer.drain()
        writer.close()
    await asyncio.sleep(0)
    assert await wallet.balance() > 0
    assert state(net) == before
