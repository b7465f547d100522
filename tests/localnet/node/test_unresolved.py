"""Transactions that name objects by id alone and leave gas to the node: simulated, signed, executed."""

from __future__ import annotations

from typing import Any

import pysui.sui.sui_common.sui_commands as cmd
import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from localnet_wallet import Probe, Rejected, Wallet, arg, failed, owned, refused, result, succeeded

from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.encoding import address
from k3s_daas_localnet.ledger.transaction import PureInput, ReceivingInput, TransferObjects

INPUT = v2.ArgumentArgumentKind.INPUT
KINDS = v2.InputInputKind


def input_(position: int) -> Any:
    return v2.Argument(kind=INPUT, input=position)


def call(probe: Probe, function: str, *positions: int) -> Any:
    arguments = [input_(position) for position in positions]
    return v2.Command(
        move_call=v2.MoveCall(package=probe.package, module="probe", function=function, arguments=arguments)
    )


async def resolve(wallet: Wallet, inputs: list[Any], commands: list[Any], **fields: Any) -> Any:
    """The answer to a simulation that selects gas."""
    kind = v2.TransactionKind(
        programmable_transaction=v2.ProgrammableTransaction(inputs=inputs, commands=commands)
    )
    transaction = v2.Transaction(kind=kind, sender=wallet.address, **fields)
    stub = v2.TransactionExecutionServiceStub(wallet.client._channel)
    request = v2.SimulateTransactionRequest(transaction=transaction, do_gas_selection=True)
    return (await stub.simulate_transaction(request)).transaction


async def test_shared_objects_are_taken_as_they_are_used(wallet: Wallet, probe: Probe) -> None:
    for function, mutable in (("bump", True), ("count", False)):
        found = await resolve(wallet, [v2.Input(object_id=probe.board)], [call(probe, function, 0)])
        succeeded(found)
        (taken,) = found.transaction.kind.programmable_transaction.inputs
        assert (taken.kind, taken.version) == (KINDS.SHARED, probe.board_version)
        assert bool(taken.mutable) is mutable
    # What the answer holds is what is signed.
    data = wire.parse(found.transaction.bcs.value)
    succeeded(await wallet.submit(data))


async def test_owned_objects_get_version_and_digest(wallet: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet)
    found = await resolve(wallet, [v2.Input(object_id=thing)], [call(probe, "burn", 0)])
    (taken,) = found.transaction.kind.programmable_transaction.inputs
    ref = await wallet.ref(thing)
    assert (taken.kind, taken.version) == (KINDS.IMMUTABLE_OR_OWNED, ref.version)
    succeeded(await wallet.submit(wire.parse(found.transaction.bcs.value)))
    with pytest.raises(GRPCError, match="Could not find the referenced object") as caught:
        await resolve(wallet, [v2.Input(object_id=thing)], [call(probe, "burn", 0)])
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_a_sponsor_pays_with_coins_the_node_selects(
    wallet: Wallet, other: Wallet, probe: Probe
) -> None:
    payment = v2.GasPayment(owner=other.address)
    found = await resolve(
        wallet, [v2.Input(object_id=probe.board)], [call(probe, "bump", 0)], gas_payment=payment
    )
    succeeded(found)
    data = wire.parse(found.transaction.bcs.value)
    (coin,) = await other.coins()
    assert [ref.object_id for ref in data.payment] == [address(coin.object_id)]
    assert data.gas_owner == address(other.address)
    before = await wallet.balance(), await other.balance()
    with pytest.raises(Rejected) as caught:
        await wallet.submit(data, [other.sign(data)])
    refused(caught, f"Required Signature from {wallet.address} is absent")
    executed = await wallet.submit(data, [other.sign(data), wallet.sign(data)])
    used = succeeded(executed).gas_used
    cost = used.computation_cost + used.storage_cost - used.storage_rebate
    assert (await wallet.balance(), await other.balance()) == (before[0], before[1] - cost)
    # The call saw its sender, not who paid.
    assert executed.events.events[0].json.to_dict()["who"] == wallet.address


async def give(wallet: Wallet, probe: Probe, to: str) -> str:
    thing = await probe.thing(wallet, 5)
    commands = [TransferObjects((arg(0),), arg(1))]
    succeeded(await wallet.run(commands, [await owned(wallet, thing), PureInput(address(to))]))
    return thing


async def test_what_is_received_is_known_by_the_parameter(wallet: Wallet, probe: Probe) -> None:
    thing = await give(wallet, probe, probe.board)
    keep = v2.TransferObjects(
        objects=[v2.Argument(kind=v2.ArgumentArgumentKind.RESULT, result=0)], address=input_(2)
    )
    inputs = [
        v2.Input(object_id=probe.board),
        v2.Input(object_id=thing),
        v2.Input(kind=KINDS.PURE, pure=address(wallet.address)),
    ]
    commands = [call(probe, "accept", 0, 1), v2.Command(transfer_objects=keep)]
    found = await resolve(wallet, inputs, commands)
    assert found.transaction.kind.programmable_transaction.inputs[1].kind == KINDS.RECEIVING
    succeeded(await wallet.submit(wire.parse(found.transaction.bcs.value)))
    assert (await wallet.ask(cmd.GetObject(object_id=thing))).owner.address == wallet.address


async def test_only_the_owner_object_receives(wallet: Wallet, probe: Probe) -> None:
    own = PureInput(address(wallet.address))
    commands = [probe.call("accept", arg(0), arg(1)), TransferObjects((result(0),), arg(2))]

    async def accept(ref: Any) -> Any:
        return await wallet.run(commands, [probe.shared(), ReceivingInput(ref), own])

    # Sent to somebody else's address, to nobody's object, or still the sender's own.
    for owner in (wallet.address, "0x5"):
        thing = await give(wallet, probe, owner)
        error = failed(await accept(await wallet.ref(thing)), "MOVE_ABORT")
        assert error.abort.location.module == "transfer"
        assert (await wallet.ask(cmd.GetObject(object_id=thing))).owner.address.endswith(owner[2:])
    # An old version, a wrong digest, something received already.
    thing = await give(wallet, probe, probe.board)
    ref = await wallet.ref(thing)
    with pytest.raises(Rejected) as caught:
        await accept(ref._replace(version=ref.version - 1))
    refused(caught, "is unavailable for consumption")
    with pytest.raises(Rejected) as caught:
        await accept(ref._replace(digest=bytes(32)))
    refused(caught, "Invalid Object digest")
    succeeded(await accept(ref))
    with pytest.raises(Rejected) as caught:
        await accept(ref)
    refused(caught, "is unavailable for consumption")


async def test_an_unused_receiving_input_stays_where_it_is(wallet: Wallet, probe: Probe) -> None:
    thing = await give(wallet, probe, probe.board)
    before = await wallet.ref(thing)
    executed = await wallet.run([probe.call("bump", arg(0))], [probe.shared(), ReceivingInput(before)])
    succeeded(executed)
    assert await wallet.ref(thing) == before
