"""What the network does not accept: nothing is executed, nothing is charged."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pysui.sui.sui_common.sui_commands as cmd
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpclib.const import Status
from localnet_wallet import BUDGET, Probe, Rejected, Wallet, arg, owned, pure, refused, result, succeeded

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger import limits, wire
from k3s_daas_localnet.ledger.encoding import address, blake2b, u64
from k3s_daas_localnet.ledger.transaction import (
    GAS,
    MakeVector,
    MergeCoins,
    MoveCall,
    ObjectRef,
    OwnedInput,
    Publish,
    PureInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
)
from k3s_daas_localnet.vm import parse_type

U8, U64 = parse_type("u8"), parse_type("u64")
Attempt = Callable[..., Awaitable[None]]


@pytest.fixture
def attempt(wallet: Wallet, net: Localnet) -> Attempt:
    """`await attempt(data, "text")`: is refused with the text, and leaves the chain as it was."""

    async def check(data: TransactionData, text: str, signatures: Any = None) -> None:
        tip = net.ledger.tip
        with pytest.raises(Rejected) as caught:
            await wallet.submit(data, signatures)
        refused(caught, text)
        assert net.ledger.tip == tip

    return check


def pay(to: Wallet) -> tuple[list[Any], list[Any]]:
    """Commands and inputs that send 1 MIST."""
    commands = [SplitCoins(GAS, (arg(0),)), TransferObjects((result(0),), arg(1))]
    return commands, [pure(1), PureInput(address(to.address))]


# --- signatures


async def test_a_changed_transaction_does_not_carry_its_signature(
    wallet: Wallet, other: Wallet, attempt: Attempt
) -> None:
    data = await wallet.raw(*pay(other))
    tampered = wire.encode(replace(data, inputs=(pure(2), *data.inputs[1:])))
    await attempt(tampered, "Signature is not valid", [wallet.sign(data)])


async def test_somebody_elses_signature_is_not_the_senders(
    wallet: Wallet, other: Wallet, attempt: Attempt
) -> None:
    data = await wallet.raw(*pay(other))
    await attempt(data, f"Required Signature from {wallet.address} is absent", [other.sign(data)])
    await attempt(data, "is absent", [])


async def test_a_second_signature_is_one_too_many(wallet: Wallet, other: Wallet, attempt: Attempt) -> None:
    data = await wallet.raw(*pay(other))
    await attempt(data, "Expect 1 signer signatures but got 2", [wallet.sign(data), other.sign(data)])


@pytest.mark.parametrize("signature", [b"", b"\0" * 20, b"\5" + bytes(96), b"\0" + bytes(96)])
async def test_malformed_signatures(
    wallet: Wallet, other: Wallet, attempt: Attempt, signature: bytes
) -> None:
    data = await wallet.raw(*pay(other))
    wanted = "neither bytes" if not signature else "Invalid user signature"
    await attempt(data, wanted, [signature])


@pytest.mark.parametrize(("flag", "curve"), [(1, ec.SECP256K1()), (2, ec.SECP256R1())])
async def test_ecdsa_wallets_can_pay(
    net: Localnet, wallet: Wallet, flag: int, curve: ec.EllipticCurve, attempt: Attempt
) -> None:
    key = ec.generate_private_key(curve)
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    own = blake2b(bytes([flag]) + public)
    await net.faucet("0x" + own.hex(), 10**9)
    (coin,) = net.ledger.owned_by(own)
    payment = (ObjectRef(coin.object_id, coin.version, coin.digest),)
    commands, inputs = pay(wallet)
    data = await wallet.raw(commands, inputs, sender=own, gas_owner=own, payment=payment)
    data = wire.encode(replace(data, budget=10**8))
    r, s = utils.decode_dss_signature(key.sign(data.signing_digest, ec.ECDSA(hashes.SHA256())))
    order = {1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141}.get(
        flag, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    )
    low, high = min(s, order - s), max(s, order - s)
    signed = [bytes([flag]) + r.to_bytes(32, "big") + x.to_bytes(32, "big") + public for x in (high, low)]
    await attempt(data, "Signature is not valid", signed[:1])
    succeeded(await wallet.submit(data, signed[1:]))


async def test_a_sponsor_has_to_sign_too(wallet: Wallet, other: Wallet, attempt: Attempt) -> None:
    (coin,) = await other.coins()
    commands = [SplitCoins(arg(0), (arg(1),)), TransferObjects((result(0),), arg(2))]
    (mine,) = await wallet.coins()
    inputs = [await owned(wallet, mine.object_id), pure(1), PureInput(address(other.address))]
    data = await wallet.raw(
        commands, inputs, payment=(await other.ref(coin.object_id),), gas_owner=address(other.address)
    )
    await attempt(data, f"Required Signature from {other.address} is absent")
    before = await wallet.balance()
    succeeded(await wallet.submit(data, [wallet.sign(data), other.sign(data)]))
    assert await wallet.balance() == before - 1


# --- objects


async def test_unknown_objects_and_packages(wallet: Wallet, probe: Probe, attempt: Attempt) -> None:
    ghost = secrets.token_bytes(32)
    ref = (await wallet.ref(probe.soul))._replace(object_id=ghost)
    data = await wallet.raw([probe.call("burn", arg(0))], [OwnedInput(ref)])
    await attempt(data, f"Could not find the referenced object 0x{ghost.hex()}")
    call = MoveCall(ghost, "m", "f", (), ())
    await attempt(await wallet.raw([call]), f"Dependent package not found on-chain: 0x{ghost.hex()}")
    call = MoveCall(address(probe.board), "m", "f", (), ())
    await attempt(await wallet.raw([call]), "A move package is expected, instead a move object is passed")
    with pytest.raises(Rejected) as caught:
        await wallet.ask(cmd.GetObject(object_id="0x" + ghost.hex()))
    assert caught.value.status is Status.NOT_FOUND


async def test_an_old_version_says_which_is_the_current_one(
    wallet: Wallet, probe: Probe, attempt: Attempt
) -> None:
    thing = await probe.thing(wallet)
    old = await owned(wallet, thing)
    succeeded(await wallet.run([probe.call("set", arg(0), arg(1))], [old, pure(5)]))
    now = (await wallet.ref(thing)).version
    data = await wallet.raw([probe.call("set", arg(0), arg(1))], [old, pure(6)])
    text = f"version {old.ref.version} is unavailable for consumption, current version: {now}"
    await attempt(data, text)


async def test_a_wrong_digest(wallet: Wallet, probe: Probe, attempt: Attempt) -> None:
    ref = (await wallet.ref(await probe.thing(wallet)))._replace(digest=bytes(32))
    await attempt(await wallet.raw([probe.call("burn", arg(0))], [OwnedInput(ref)]), "Invalid Object digest")


async def test_anothers_object(wallet: Wallet, other: Wallet, probe: Probe, attempt: Attempt) -> None:
    (coin,) = await other.coins()
    data = await wallet.raw(
        [TransferObjects((arg(0),), arg(1))],
        [await owned(other, coin.object_id), PureInput(address(wallet.address))],
    )
    await attempt(data, f"owned by account address {other.address}, but given owner/signer address")


async def test_owned_as_shared_and_shared_as_owned(wallet: Wallet, probe: Probe, attempt: Attempt) -> None:
    thing = await wallet.ref(await probe.thing(wallet))
    as_shared = SharedInput(thing.object_id, thing.version, True)
    data = await wallet.raw([probe.call("burn", arg(0))], [as_shared])
    await attempt(data, "Object used as shared is not shared")
    data = await wallet.raw([probe.call("count", arg(0))], [await owned(wallet, probe.board)])
    await attempt(data, "is shared, but was given as owned")
    wrong = SharedInput(address(probe.board), probe.board_version + 1, True)
    await attempt(await wallet.raw([probe.call("count", arg(0))], [wrong]), "became shared at version")


async def test_an_object_given_twice(wallet: Wallet, probe: Probe, attempt: Attempt) -> None:
    thing = await owned(wallet, await probe.thing(wallet))
    data = await wallet.raw([probe.call("add", arg(0), arg(1))], [thing, thing])
    await attempt(data, "cannot appear more than once")
    data = await wallet.raw([probe.call("count", arg(0))], [probe.shared(), probe.shared(False)])
    await attempt(data, "cannot appear more than once")
    (coin,) = await wallet.coins()
    gas_too = await owned(wallet, coin.object_id)
    data = await wallet.raw([SplitCoins(arg(0), (arg(1),))], [gas_too, pure(1)])
    await attempt(data, "cannot appear more than once")


async def test_a_dynamic_field_and_a_package_are_no_inputs(
    wallet: Wallet, probe: Probe, attempt: Attempt
) -> None:
    thing = await probe.thing(wallet)
    attach = probe.call("attach", arg(0), arg(1), arg(2))
    succeeded(await wallet.run([attach], [probe.shared(), pure(1), await owned(wallet, thing)]))
    data = await wallet.raw([probe.call("burn", arg(0))], [await owned(wallet, thing)])
    await attempt(data, "is owned by object")
    data = await wallet.raw([probe.call("burn", arg(0))], [await owned(wallet, probe.package)])
    await attempt(data, "instead a move package is passed")


async def test_the_clock_can_only_be_read(wallet: Wallet, probe: Probe, attempt: Attempt) -> None:
    clock = SharedInput(address("0x6"), 1, True)
    await attempt(await wallet.raw([probe.call("set_clock", arg(0))], [clock]), "the clock can't be taken")


# --- gas


async def test_gas_rules(wallet: Wallet, other: Wallet, probe: Probe, attempt: Attempt) -> None:
    commands, inputs = pay(other)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"price": 999}, "Gas price 999 under reference gas price (RGP) 1000"),
        ({"price": limits.MAX_GAS_PRICE + 1}, "exceeds the maximum"),
        ({"budget": limits.MAX_GAS_BUDGET + 1}, "Gas budget: 50000000001 is higher than max: 50000000000"),
        ({"budget": 999_999}, "Gas budget: 999999 is lower than min: 1000000"),
        ({"payment": ()}, "Gas payment is empty"),
        ({"payment": (await wallet.ref(await probe.thing(wallet)),)}, "is not a SUI coin"),
        ({"payment": (await wallet.ref(probe.board),)}, "is shared"),
        ({"payment": (await wallet.ref((await other.coins())[0].object_id),)}, "is owned by account address"),
    ]
    for change, text in changes:
        await attempt(await wallet.raw(commands, inputs, **change), text)
    data = await other.raw(commands, inputs, budget=20 * 10**9)
    with pytest.raises(Rejected) as caught:
        await other.submit(data)
    refused(caught, "Balance of gas object 10000000000 is lower than the needed amount: 20000000000")


async def test_expired_and_not_yet_valid(
    net: Localnet, wallet: Wallet, other: Wallet, attempt: Attempt
) -> None:
    commands, inputs = pay(other)
    net.clock.advance(3 * 24 * 3600 * 1000)
    net.ledger.seal_empty_checkpoint()
    await attempt(await wallet.raw(commands, inputs, expires_after=2), "Transaction Expired")
    succeeded(await wallet.run(commands, inputs, expires_after=3))


# --- limits


@pytest.mark.parametrize(
    ("limit", "build", "text"),
    [
        (1024, lambda n: ([MakeVector(U8, ())] * n, []), "maximum commands"),
        (512, lambda n: ([MakeVector(U64, (arg(0),) * n)], [pure(1)]), "maximum arguments"),
        (16 * 1024, lambda n: ([MakeVector(U8, ())], [PureInput(bytes(n))]), "pure argument size"),
    ],
)
async def test_shape_limits(wallet: Wallet, attempt: Attempt, limit: int, build: Any, text: str) -> None:
    commands, inputs = build(limit)
    succeeded(await wallet.run(commands, inputs))
    commands, inputs = build(limit + 1)
    await attempt(await wallet.raw(commands, inputs), text)


async def test_transaction_size(wallet: Wallet, attempt: Attempt) -> None:
    chunk = PureInput(bytes(16_000))
    fixed = (await wallet.raw([MakeVector(U8, ())], [chunk] * 8 + [PureInput(bytes(200))])).size - 200
    fill = limits.MAX_TRANSACTION_BYTES - fixed
    at_limit = await wallet.raw([MakeVector(U8, ())], [chunk] * 8 + [PureInput(bytes(fill))])
    assert at_limit.size == 128 * 1024
    succeeded(await wallet.submit(at_limit))
    over = await wallet.raw([MakeVector(U8, ())], [chunk] * 8 + [PureInput(bytes(fill + 1))])
    await attempt(over, "serialized transaction size in bytes is 131072, found 131073")


async def test_empty_and_oversized_commands(wallet: Wallet, other: Wallet, attempt: Attempt) -> None:
    to = PureInput(address(other.address))
    await attempt(await wallet.raw([]), "Empty programmable transaction")
    await attempt(await wallet.raw([TransferObjects((), arg(0))], [to]), "Empty command input")
    await attempt(await wallet.raw([SplitCoins(GAS, ())]), "Empty command input")
    await attempt(await wallet.raw([MergeCoins(GAS, ())]), "Empty command input")
    await attempt(await wallet.raw([Publish((), ())]), "Empty command input")
    await attempt(await wallet.raw([Publish((bytes(10),) * 65, ())]), "maximum modules in a package is 64")
    big = Publish((bytes(50_000), bytes(52_401)), ())
    await attempt(await wallet.raw([big]), "maximum package size in bytes is 102400")
    await attempt(await wallet.raw([Publish((b"x",), ())] * 6), "maximum publishes or upgrades")


async def test_garbage_is_no_transaction(wallet: Wallet, other: Wallet, attempt: Attempt) -> None:
    data = await wallet.raw(*pay(other))
    for raw in (data.raw[:-1], data.raw + b"\0", b"\1" + data.raw[1:], secrets.token_bytes(200)):
        broken = replace(data, raw=raw)
        with pytest.raises(Rejected) as caught:
            await wallet.submit(broken)
        refused(caught, "Deserialization of the transaction failed")


# --- the same transaction again


async def test_the_same_transaction_again_gives_the_first_effects(
    net: Localnet, wallet: Wallet, other: Wallet
) -> None:
    data = await wallet.raw(*pay(other))
    first = await wallet.submit(data)
    tip = net.ledger.tip
    again = await wallet.submit(data)
    assert (again.effects, again.checkpoint) == (first.effects, first.checkpoint)
    assert net.ledger.tip == tip
    with pytest.raises(Rejected):
        await wallet.submit(data, [other.sign(data)])


async def test_equivocation_uses_the_coin_once(wallet: Wallet, other: Wallet, attempt: Attempt) -> None:
    commands, inputs = pay(other)
    first = await wallet.raw(commands, inputs)
    second = wire.encode(replace(first, inputs=(PureInput(u64(2)), inputs[1]), budget=BUDGET - 1))
    succeeded(await wallet.submit(first))
    await attempt(second, "is unavailable for consumption")
