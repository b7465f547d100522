"""Transactions that are executed and fail: they change nothing but gas and the versions of their inputs."""

from __future__ import annotations

from typing import Any

import pysui.sui.sui_common.sui_commands as cmd
import pytest
from localnet_wallet import Probe, Wallet, arg, failed, owned, pure, result, succeeded

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger.encoding import address, byte_string, text
from k3s_daas_localnet.ledger.transaction import (
    GAS,
    Argument,
    MakeVector,
    MergeCoins,
    MoveCall,
    Publish,
    PureInput,
    SharedInput,
    SplitCoins,
    TransferObjects,
)
from k3s_daas_localnet.vm import parse_type

MOST = 50 * 10**9  # the highest gas budget, in MIST


def to(wallet: Wallet) -> PureInput:
    return PureInput(address(wallet.address))


async def test_an_abort_charges_gas_and_bumps_the_inputs(wallet: Wallet, probe: Probe) -> None:
    before, balance = await wallet.ref(probe.board), await wallet.balance()
    commands = [probe.call("bump", arg(0)), probe.call("refuse")]
    executed = await wallet.run(commands, [probe.shared()])
    error = failed(executed, "MOVE_ABORT")
    assert (error.command, error.abort.clever_error.constant_name) == (1, "ERefused")
    after = await wallet.ask(cmd.GetObject(object_id=probe.board))
    assert after.json.to_dict()["count"] == "0"
    assert after.version == executed.effects.lamport_version > before.version
    used = executed.effects.gas_used
    cost = used.computation_cost + used.storage_cost - used.storage_rebate
    assert balance - await wallet.balance() == cost > 0


async def test_a_plain_abort_code(wallet: Wallet, probe: Probe) -> None:
    error = failed(await wallet.run([probe.call("refuse_with", arg(0))], [pure(42)]), "MOVE_ABORT")
    assert (error.abort.abort_code, error.abort.clever_error) == (42, None)
    assert error.abort.location.function_name == "refuse_with"


async def test_a_key_only_object_is_not_transferable(wallet: Wallet, other: Wallet, probe: Probe) -> None:
    soul = await owned(wallet, probe.soul)
    executed = await wallet.run([TransferObjects((arg(0),), arg(1))], [soul, to(other)])
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_TRANSFER_OBJECT"))
    assert (await wallet.ask(cmd.GetObject(object_id=probe.soul))).owner.address == wallet.address
    # Its own module may.
    soul = await owned(wallet, probe.soul)
    succeeded(await wallet.run([probe.call("give_soul", arg(0), arg(1))], [soul, to(other)]))


@pytest.mark.parametrize("function", ["transfer", "share_object", "freeze_object"])
async def test_a_key_only_object_does_not_move_through_the_framework(
    wallet: Wallet, other: Wallet, probe: Probe, function: str
) -> None:
    for name, kind in (
        (function, "NON_ENTRY_FUNCTION_INVOKED"),
        (f"public_{function}", "TYPE_ARGUMENT_ERROR"),
    ):
        arguments = (arg(0), arg(1)) if function == "transfer" else (arg(0),)
        call = MoveCall(address("0x2"), "transfer", name, (parse_type(probe.type("Soul")),), arguments)
        inputs = [await owned(wallet, probe.soul), to(other)]
        failed(await wallet.run([call], inputs), kind)
    soul = await wallet.ask(cmd.GetObject(object_id=probe.soul))
    assert (soul.owner.kind.name, soul.owner.address) == ("ADDRESS", wallet.address)


async def test_events_are_emitted_by_their_module_only(wallet: Wallet, probe: Probe) -> None:
    emit = MoveCall(address("0x2"), "event", "emit", (parse_type("u64"),), (arg(0),))
    failed(await wallet.run([emit], [pure(1)]), "NON_ENTRY_FUNCTION_INVOKED")


async def test_what_was_taken_immutably_is_not_changed(wallet: Wallet, probe: Probe) -> None:
    read_only = probe.shared(mutable=False)
    executed = await wallet.run([probe.call("bump", arg(0))], [read_only])
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_OBJECT_BY_MUT_REF"))
    executed = await wallet.run([probe.call("share_again", arg(0))], [read_only])
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_OBJECT_BY_VALUE"))
    before = await wallet.ref(probe.board)
    executed = await wallet.run([probe.call("count", arg(0))], [read_only])
    (used,) = succeeded(executed).unchanged_consensus_objects
    assert (used.object_id, used.version) == (probe.board, before.version)
    assert await wallet.ref(probe.board) == before


async def test_a_frozen_object_is_only_read(wallet: Wallet, other: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet, 4)
    succeeded(await wallet.run([probe.call("freeze_thing", arg(0))], [await owned(wallet, thing)]))
    frozen = await owned(wallet, thing)
    executed = await wallet.run([probe.call("set", arg(0), arg(1))], [frozen, pure(5)])
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_OBJECT_BY_MUT_REF"))
    executed = await wallet.run([probe.call("burn", arg(0))], [frozen])
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_OBJECT_BY_VALUE"))
    # Anybody may read it.
    succeeded(await other.run([probe.call("value", arg(0))], [frozen]))


@pytest.mark.parametrize("function", ["give_away", "freeze_it"])
async def test_a_shared_object_stays_shared(
    wallet: Wallet, other: Wallet, probe: Probe, function: str
) -> None:
    arguments = (arg(0), arg(1)) if function == "give_away" else (arg(0),)
    executed = await wallet.run([probe.call(function, *arguments)], [probe.shared(), to(other)])
    failed(executed, "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED")
    assert (await wallet.ask(cmd.GetObject(object_id=probe.board))).owner.kind.name == "SHARED"


async def test_a_shared_object_may_be_shared_again(wallet: Wallet, probe: Probe) -> None:
    succeeded(await wallet.run([probe.call("share_again", arg(0))], [probe.shared()]))
    board = await wallet.ask(cmd.GetObject(object_id=probe.board))
    assert (board.owner.kind.name, board.owner.version) == ("SHARED", probe.board_version)


async def test_a_shared_object_is_not_wrapped_or_transferred(
    wallet: Wallet, other: Wallet, probe: Probe
) -> None:
    made = await wallet.run([probe.call("thing", arg(0)), probe.call("share_thing", result(0))], [pure(1)])
    (change,) = [c for c in succeeded(made).changed_objects if c.object_type.endswith("::Thing")]
    shared = SharedInput(address(change.object_id), change.output_owner.version, True)
    executed = await wallet.run([TransferObjects((arg(0),), arg(1))], [shared, to(other)])
    failed(executed, "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED")
    wrap = probe.call("wrap", arg(0), types=[probe.type("Thing")])
    executed = await wallet.run([wrap, TransferObjects((result(0),), arg(1))], [shared, to(other)])
    failed(executed, "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED")
    attach = probe.call("attach", arg(1), arg(2), arg(0))
    executed = await wallet.run([attach], [shared, probe.shared(), pure(1)])
    failed(executed, "CONSENSUS_OBJECT_OPERATION_NOT_ALLOWED")
    succeeded(await wallet.run([probe.call("burn", arg(0))], [shared]))


async def test_an_owned_object_is_not_shared_later(wallet: Wallet, probe: Probe) -> None:
    thing = await owned(wallet, await probe.thing(wallet))
    error = failed(await wallet.run([probe.call("share_thing", arg(0))], [thing]), "MOVE_ABORT")
    assert error.abort.location.module == "transfer"
    assert error.abort.abort_code == 0  # ESharedNonNewObject


@pytest.mark.parametrize("function", ["potato", "thing", "new_board"])
async def test_an_unused_value_without_drop(wallet: Wallet, probe: Probe, function: str) -> None:
    arguments = (arg(0),) if function == "thing" else ()
    error = failed(
        await wallet.run([probe.call(function, *arguments)], [pure(1)]), "UNUSED_VALUE_WITHOUT_DROP"
    )
    assert "Unused result without the drop ability" in error.description


async def test_a_hot_potato_can_be_handed_on(wallet: Wallet, probe: Probe) -> None:
    succeeded(await wallet.run([probe.call("potato"), probe.call("eat", result(0))]))
    executed = await wallet.run(
        [probe.call("potato"), probe.call("eat", result(0)), probe.call("eat", result(0))]
    )
    failed(executed, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_VALUE_USAGE"))


async def test_visibility(wallet: Wallet, probe: Probe) -> None:
    failed(await wallet.run([probe.call("secret")]), "NON_ENTRY_FUNCTION_INVOKED")
    failed(await wallet.run([probe.call("init")]), "NON_ENTRY_FUNCTION_INVOKED")
    failed(await wallet.run([probe.call("nowhere")]), "FUNCTION_NOT_FOUND")
    succeeded(await wallet.run([probe.call("door", arg(0))], [probe.shared()]))
    read = MoveCall(address("0x2"), "dynamic_field", "add_child_object", (), ())
    failed(await wallet.run([read]), "NON_ENTRY_FUNCTION_INVOKED")


async def test_a_reference_is_not_returned(wallet: Wallet, probe: Probe) -> None:
    thing = await owned(wallet, await probe.thing(wallet))
    failed(await wallet.run([probe.call("peek", arg(0))], [thing]), "INVALID_PUBLIC_FUNCTION_RETURN_TYPE")


async def test_arguments_have_to_fit(wallet: Wallet, other: Wallet, probe: Probe) -> None:
    thing = await probe.thing(wallet)
    cases: list[tuple[Any, list[Any], tuple[int, str]]] = [
        (probe.call("set", arg(0), arg(1)), [probe.shared(), pure(1)], (0, "TYPE_MISMATCH")),
        (probe.call("set", arg(0), arg(1)), [pure(1), pure(1)], (0, "INVALID_USAGE_OF_PURE_ARGUMENT")),
        (probe.call("echo", arg(0)), [PureInput(b"\x02\xff\xfe")], (0, "INVALID_BCS_BYTES")),
        (probe.call("echo", arg(0)), [PureInput(text("ok") + b"!")], (0, "INVALID_BCS_BYTES")),
        (probe.call("divide", arg(0), arg(0)), [PureInput(b"\1")], (0, "INVALID_BCS_BYTES")),
        (probe.call("divide", arg(0), arg(7)), [pure(1)], (1, "INDEX_OUT_OF_BOUNDS")),
        (probe.call("divide", arg(0), result(0)), [pure(1)], (1, "INDEX_OUT_OF_BOUNDS")),
    ]
    for call, inputs, argument in cases:
        failed(await wallet.run([call], inputs), "COMMAND_ARGUMENT_ERROR", argument)
    failed(await wallet.run([probe.call("divide", arg(0))], [pure(1)]), "ARITY_MISMATCH")
    twice = [probe.call("thing", arg(0)), probe.call("add", result(0), result(0))]
    failed(await wallet.run(twice, [pure(1)]), "COMMAND_ARGUMENT_ERROR", (1, "INVALID_VALUE_USAGE"))
    nested = [probe.call("divide", arg(0), arg(0)), probe.call("divide", arg(0), Argument("nested", 0, 3))]
    found = await wallet.run(nested, [pure(1)])
    failed(found, "COMMAND_ARGUMENT_ERROR", (1, "SECONDARY_INDEX_OUT_OF_BOUNDS"))
    nothing = [probe.call("potato"), probe.call("eat", result(0)), probe.call("divide", arg(0), result(1))]
    found = await wallet.run(nothing, [pure(1)])
    failed(found, "COMMAND_ARGUMENT_ERROR", (1, "INVALID_RESULT_ARITY"))
    moved = [probe.call("burn", arg(0)), probe.call("burn", arg(0))]
    found = await wallet.run(moved, [await owned(wallet, thing)])
    failed(found, "COMMAND_ARGUMENT_ERROR", (0, "INVALID_VALUE_USAGE"))
    gas_by_value = probe.call("wrap", GAS, types=["0x2::coin::Coin<0x2::sui::SUI>"])
    failed(await wallet.run([gas_by_value]), "COMMAND_ARGUMENT_ERROR", (0, "INVALID_GAS_COIN_USAGE"))
    split = [SplitCoins(arg(0), (arg(1),))]
    found = await wallet.run(split, [await owned(wallet, thing), pure(1)])
    failed(found, "COMMAND_ARGUMENT_ERROR", (0, "TYPE_MISMATCH"))


async def test_type_arguments(wallet: Wallet, probe: Probe) -> None:
    def generic(*types: str) -> MoveCall:
        return probe.call("generic", arg(0), types=types)

    succeeded(await wallet.run([generic("u64")], [pure(1)]))
    failed(await wallet.run([generic()], [pure(1)]), "TYPE_ARITY_MISMATCH")
    error = failed(await wallet.run([generic(probe.type("Thing"))], [pure(1)]), "TYPE_ARGUMENT_ERROR")
    assert error.type_argument_error.kind.name == "CONSTRAINT_NOT_SATISFIED"
    error = failed(await wallet.run([generic(probe.type("Nowhere"))], [pure(1)]), "TYPE_ARGUMENT_ERROR")
    assert error.type_argument_error.kind.name == "TYPE_NOT_FOUND"


async def test_coins_are_neither_overdrawn_nor_spent_twice(wallet: Wallet, other: Wallet) -> None:
    balance = await other.balance()
    split = [SplitCoins(GAS, (arg(0),)), TransferObjects((result(0),), arg(1))]
    # What is set aside for gas can't be spent.
    executed = await other.run(split, [pure(balance - 10**9 + 1), to(wallet)])
    failed(executed, "INSUFFICIENT_COIN_BALANCE")
    merge = [SplitCoins(GAS, (arg(0),)), MergeCoins(GAS, (result(0), result(0)))]
    failed(await wallet.run(merge, [pure(5)]), "COMMAND_ARGUMENT_ERROR", (2, "INVALID_VALUE_USAGE"))
    merge = [SplitCoins(GAS, (arg(0),)), MergeCoins(GAS, (result(0),))]
    succeeded(await wallet.run(merge, [pure(5)]))


async def test_a_vector_of_objects(wallet: Wallet, probe: Probe) -> None:
    mixed = [
        probe.call("thing", arg(0)),
        SplitCoins(GAS, (arg(0),)),
        MakeVector(None, (result(0), result(1))),
    ]
    failed(await wallet.run(mixed, [pure(1)]), "COMMAND_ARGUMENT_ERROR", (1, "TYPE_MISMATCH"))
    numbers = [MakeVector(parse_type("u8"), (arg(0), arg(0))), probe.call("length", result(0))]
    succeeded(await wallet.run(numbers, [PureInput(b"\7")]))


# --- limits while it runs


async def test_at_most_1024_events(wallet: Wallet, probe: Probe) -> None:
    tell = probe.call("tell", arg(0), arg(1))
    executed = await wallet.run([tell], [probe.shared(False), pure(1025)])
    error = failed(executed, "MOVE_PRIMITIVE_RUNTIME_ERROR")
    assert "Emitting more than 1024 events" in error.description
    executed = await wallet.run([tell], [probe.shared(False), pure(1024)])
    succeeded(executed)
    assert len(executed.events.events) == 1024


async def test_at_most_2048_new_ids(wallet: Wallet, probe: Probe) -> None:
    scatter = probe.call("scatter", arg(0))
    executed = await wallet.run([scatter], [pure(2049)], budget=MOST)
    error = failed(executed, "MOVE_PRIMITIVE_RUNTIME_ERROR")
    assert "Creating more than 2048 IDs" in error.description
    simulated = await wallet.simulate(await wallet.raw([scatter], [pure(2048)], budget=MOST))
    succeeded(simulated.transaction)
    # An id that is deleted again does not count.
    succeeded(await wallet.run([probe.call("ids", arg(0))], [pure(2100)]))


async def test_at_most_1000_dynamic_fields_are_loaded(wallet: Wallet, probe: Probe) -> None:
    for first in (0, 600):
        call = probe.call("mark", arg(0), arg(1), arg(2))
        succeeded(await wallet.run([call], [probe.shared(), pure(first), pure(600)], budget=MOST))
    read = probe.call("sum_marks", arg(0), arg(1), arg(2))
    inputs = [probe.shared(False), pure(0)]
    succeeded((await wallet.simulate(await wallet.raw([read], [*inputs, pure(1000)]))).transaction)
    executed = await wallet.run([read], [*inputs, pure(1001)])
    error = failed(executed, "MOVE_PRIMITIVE_RUNTIME_ERROR")
    assert "cached objects limit (1000 entries)" in error.description
    call = probe.call("mark", arg(0), arg(1), arg(2))
    executed = await wallet.run([call], [probe.shared(), pure(5000), pure(1001)], budget=MOST)
    assert "store limit (1000 entries)" in failed(executed, "MOVE_PRIMITIVE_RUNTIME_ERROR").description


async def test_object_size(wallet: Wallet, probe: Probe) -> None:
    thing = await owned(wallet, await probe.thing(wallet))
    chunk = PureInput(byte_string(bytes(15_998)))
    # 41 bytes of id, value and length, 15 chunks of 16,000, and the rest with its own length of 2
    rest = 250 * 1024 - 41 - 15 * 16_000 - 2
    grow = [probe.call("grow", arg(0), arg(1), arg(2)), probe.call("grow", arg(0), arg(3), arg(4))]
    inputs = [thing, chunk, pure(15)]
    tail = PureInput(byte_string(bytes(rest)))
    data = await wallet.raw(grow, [*inputs, tail, pure(1)], budget=MOST)
    succeeded((await wallet.simulate(data)).transaction)
    tail = PureInput(byte_string(bytes(rest + 1)))
    error = failed(await wallet.run(grow, [*inputs, tail, pure(1)], budget=MOST), "OBJECT_TOO_BIG")
    assert (error.size_error.size, error.size_error.max_size) == (250 * 1024 + 1, 250 * 1024)


async def test_running_out_of_gas(wallet: Wallet, probe: Probe) -> None:
    budget = 2_000_000
    balance = await wallet.balance()
    executed = await wallet.run([probe.call("spin")], budget=budget)
    failed(executed, "INSUFFICIENT_GAS")
    assert balance - await wallet.balance() == budget
    # Storage can't be paid for: the writes are dropped too.
    executed = await wallet.run([probe.call("scatter", arg(0))], [pure(5)], budget=budget)
    failed(executed, "INSUFFICIENT_GAS")
    things = await wallet.ask(cmd.GetObjectsForType(owner=wallet.address, object_type=probe.type("Thing")))
    assert not things.objects


async def test_arithmetic(wallet: Wallet, probe: Probe) -> None:
    executed = await wallet.run([probe.call("divide", arg(0), arg(1))], [pure(1), pure(0)])
    assert "ARITHMETIC_ERROR" in failed(executed, "MOVE_PRIMITIVE_RUNTIME_ERROR").description


# --- publishing


async def test_unverifiable_modules_are_refused(
    net: Localnet, wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    (module,), dependencies = probe_code
    known = len(list(net.ledger.code.modules()))
    refusals = 0
    for offset in range(len(module) // 2, len(module) - 100, len(module) // 25):
        broken = bytearray(module)
        broken[offset] ^= 0x11
        executed = await wallet.run([Publish((bytes(broken),), tuple(dependencies))])
        # Where the change is harmless, only the unused upgrade capability fails.
        kind = executed.effects.status.error.kind.name
        refusals += kind == "VM_VERIFICATION_OR_DESERIALIZATION_ERROR"
        failed(executed, kind)
    assert refusals >= 6
    failed(await wallet.run([Publish((b"no module",), ())]), "VM_VERIFICATION_OR_DESERIALIZATION_ERROR")
    assert len(list(net.ledger.code.modules())) == known


async def test_dependencies_have_to_be_named(
    wallet: Wallet, probe: Probe, probe_code: tuple[list[bytes], list[bytes]]
) -> None:
    (module,), _ = probe_code
    executed = await wallet.run([Publish((module,), (address("0x1"),))])
    failed(executed, "PUBLISH_UPGRADE_MISSING_DEPENDENCY")
    package = await wallet.ask(cmd.GetPackage(package=probe.package))
    placed = package.package.modules[0].contents
    executed = await wallet.run([Publish((placed,), (address("0x1"), address("0x2")))])
    failed(executed, "PUBLISH_ERROR_NON_ZERO_ADDRESS")


async def test_a_module_twice(wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]) -> None:
    (module,), dependencies = probe_code
    executed = await wallet.run([Publish((module, module), tuple(dependencies))])
    failed(executed, "VM_VERIFICATION_OR_DESERIALIZATION_ERROR")
