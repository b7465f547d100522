"""Package upgrades through pysui: versions, types, linkage, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pysui.sui.sui_common.sui_commands as cmd
import pytest
from localnet_wallet import Probe, Rejected, Wallet, arg, created, failed, owned, refused, result, succeeded
from pysui.sui.sui_bcs import bcs
from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

from k3s_daas_localnet import Localnet, compiler
from k3s_daas_localnet.ledger import compatibility
from k3s_daas_localnet.ledger.encoding import address, byte_string
from k3s_daas_localnet.ledger.errors import ExecutionFailure
from k3s_daas_localnet.ledger.objects import PackageData
from k3s_daas_localnet.ledger.packages import package_digest
from k3s_daas_localnet.ledger.transaction import Argument, Command, MoveCall, Publish, PureInput, Upgrade
from k3s_daas_localnet.vm import Module, parse_type

SUI = 10**9
COUNTER = """
module {address}::counter;
use std::type_name;
public struct Counter has key, store {{ id: UID, value: u64 }}
public struct Bumped has copy, drop {{ by: u64 }}
public struct Tag has drop {{}}
#[error]
const EBroken: vector<u8> = b"broken in version {version}";
public fun new(ctx: &mut TxContext): Counter {{ Counter {{ id: object::new(ctx), value: 0 }} }}
public fun bump(counter: &mut Counter) {{
    counter.value = counter.value + step();
    sui::event::emit(Bumped {{ by: step() }});
}}
public fun value(counter: &Counter): u64 {{ counter.value }}
public fun step(): u64 {{ {version} }}
public fun fail() {{ abort EBroken }}
public fun defining<T>(): std::ascii::String {{ type_name::with_defining_ids<T>().into_string() }}
public fun original<T>(): std::ascii::String {{ type_name::with_original_ids<T>().into_string() }}
"""
SECOND = """
public struct Report has copy, drop { step: u64 }
public struct Extra has key, store { id: UID, counted: u64 }
public fun extra(counter: &Counter, ctx: &mut TxContext): Extra {
    sui::event::emit(Report { step: step() });
    Extra { id: object::new(ctx), counted: counter.value }
}
"""
USER = """
module user::user;
use {address}::counter::{{Self, Counter}};
public fun twice(counter: &mut Counter) {{ counter::bump(counter); counter::bump(counter) }}
{more}
"""
# A package between: it is never upgraded itself, but its users decide which version of counter it calls.
MIDDLE = """
module middle::middle;
use {address}::counter::{{Self, Counter}};
public fun bump(counter: &mut Counter) {{ counter::bump(counter) }}
"""


@dataclass(frozen=True)
class Code:
    modules: list[bytes]
    dependencies: list[bytes]

    @property
    def digest(self) -> bytes:
        return package_digest(self.modules, self.dependencies)


Compile = Callable[..., Code]


@pytest.fixture
def compile_move(tmp_path: Path) -> Compile:
    """`compile_move(name, *sources, links={})`: the modules at 0x0; `links` maps dependencies as sources name
    them (by original id) to the version to link against.
    """

    def run(name: str, *sources: str, links: dict[str, str] | None = None) -> Code:
        folder = tmp_path / name
        (folder / "sources").mkdir(parents=True)
        (folder / "Move.toml").write_text(
            f'[package]\nname = "{name}"\nedition = "2024"\n[addresses]\n{name} = "0x0"\n'
        )
        for number, source in enumerate(sources):
            (folder / "sources" / f"m{number}.move").write_text(source)
        built = compiler.build(folder)
        # What a package depends on is compiled along with it, at its own address.
        modules = [raw for raw in built.modules if Module.parse(raw).address == bytes(32)]
        framework = [address(item) for item in built.dependencies if int(item, 16) < 16]
        return Code(modules, framework + [address(item) for item in (links or {}).values()])

    return run


def counter(where: str = "counter", version: int = 1) -> str:
    return COUNTER.format(address=where, version=version) + (SECOND if version > 1 else "")


async def publish(wallet: Wallet, code: Code) -> tuple[str, str]:
    """Ids of the package and its UpgradeCap."""
    transaction = await wallet.client.transaction()
    needed = [bcs.Address.from_str("0x" + item.hex()) for item in code.dependencies]
    capability = transaction.builder.publish([list(module) for module in code.modules], needed)
    await transaction.transfer_objects(transfers=[capability], recipient=wallet.address)
    effects = succeeded(await wallet.send(transaction))
    return created(effects, "package"), created(effects, "::UpgradeCap")


def package_call(function: str, *arguments: Argument) -> MoveCall:
    return MoveCall(address("0x2"), "package", function, (), arguments)


def upgrade_commands(code: Code, package: str) -> list[Command]:
    """Inputs: the capability, policy and digest."""
    return [
        package_call("authorize_upgrade", arg(0), arg(1), arg(2)),
        Upgrade(tuple(code.modules), tuple(code.dependencies), address(package), result(0)),
        package_call("commit_upgrade", arg(0), result(1)),
    ]


async def try_upgrade(
    wallet: Wallet, code: Code, package: str, cap: str, *, policy: int = 0, digest: bytes | None = None
) -> Any:
    inputs = [
        await owned(wallet, cap),
        PureInput(bytes([policy])),
        PureInput(byte_string(digest or code.digest)),
    ]
    return await wallet.run(upgrade_commands(code, package), inputs)


async def upgrade(wallet: Wallet, code: Code, package: str, cap: str, policy: int = 0) -> str:
    """Id of the new version."""
    return created(succeeded(await try_upgrade(wallet, code, package, cap, policy=policy)), "package")


def calls(package: str, function: str, *arguments: Argument, types: Sequence[str] = ()) -> MoveCall:
    module, name = function.split("::")
    return MoveCall(address(package), module, name, tuple(map(parse_type, types)), arguments)


async def returned(wallet: Wallet, command: Command) -> Any:
    """What a call without objects returns."""
    answer = await wallet.simulate(await wallet.raw([command]))
    assert answer.transaction.effects.status.success, answer.transaction.effects.status.error
    return answer.command_outputs[0].return_values[0].json.string_value


async def counted(wallet: Wallet, object_id: str) -> int:
    found = await wallet.ask(cmd.GetObject(object_id=object_id))
    return int(found.json.to_dict()["value"])


async def new_counter(wallet: Wallet, package: str) -> str:
    transaction = await wallet.client.transaction()
    made = await transaction.move_call(target=f"{package}::counter::new", arguments=[])
    await transaction.transfer_objects(transfers=[made], recipient=wallet.address)
    return created(succeeded(await wallet.send(transaction)), "::Counter")


async def test_both_versions_work_on_the_same_objects(wallet: Wallet, compile_move: Compile) -> None:
    first, cap = await publish(wallet, compile_move("counter", counter()))
    mine = await new_counter(wallet, first)
    code = compile_move("counter2", counter("counter2", 2))
    # pysui's own builder for upgrades; it compiles with the sui CLI, so the modules are given by hand.
    transaction = await wallet.client.transaction()
    capability = await wallet.ask(cmd.GetObject(object_id=cap))
    builder = transaction.builder
    ref = bcs.ObjectReference.from_grpc_ref(capability)
    object_arg = bcs.ObjectArg("ImmOrOwnedObject", ref)
    ticket = builder.authorize_upgrade(
        object_arg, bcs.BuilderArg("Pure", [0]), bcs.BuilderArg("Pure", list(byte_string(code.digest)))
    )
    needed = [bcs.Address.from_str("0x" + item.hex()) for item in code.dependencies]
    receipt = builder.publish_upgrade(
        [list(module) for module in code.modules], needed, bcs.Address.from_str(first), ticket
    )
    builder.commit_upgrade(bcs.Argument("Input", 0), receipt)
    second = created(succeeded(await wallet.send(transaction)), "package")
    assert second != first

    succeeded(await wallet.run([calls(first, "counter::bump", arg(0))], [await owned(wallet, mine)]))
    assert await counted(wallet, mine) == 1
    done = await wallet.run([calls(second, "counter::bump", arg(0))], [await owned(wallet, mine)])
    succeeded(done)
    assert await counted(wallet, mine) == 3
    found = await wallet.ask(cmd.GetObject(object_id=mine))
    assert found.object_type == f"{first}::counter::Counter"
    event = done.events.events[0]
    assert (event.package_id, event.event_type) == (second, f"{first}::counter::Bumped")

    # Types that are new in the second version are named by it.
    commands = [
        calls(second, "counter::extra", arg(0)),
        MoveCall(
            address("0x2"),
            "transfer",
            "public_transfer",
            (parse_type(f"{second}::counter::Extra"),),
            (result(0), arg(1)),
        ),
    ]
    inputs = [await owned(wallet, mine), PureInput(address(wallet.address))]
    done = await wallet.run(commands, inputs)
    extra = created(succeeded(done), "::Extra")
    assert done.events.events[0].event_type == f"{second}::counter::Report"
    found = await wallet.ask(cmd.GetObject(object_id=extra))
    assert found.object_type == f"{second}::counter::Extra"
    with_types = [
        ("defining", f"{second}::counter::Tag", first),
        ("defining", f"{first}::counter::Tag", first),
        ("defining", f"{second}::counter::Extra", second),
        ("original", f"{second}::counter::Extra", first),
    ]
    for kind, type_, expected in with_types:
        name = await returned(wallet, calls(second, f"counter::{kind}", types=[type_]))
        assert name == f"{expected[2:]}::counter::{type_.rsplit('::', 1)[1]}"
    # The first version doesn't know the second's types.
    unknown = [calls(first, "counter::defining", types=[f"{first}::counter::Extra"])]
    failed(await wallet.run(unknown), "TYPE_ARGUMENT_ERROR")

    # An abort names the version that ran.
    for package, version in ((first, 1), (second, 2)):
        error = failed(await wallet.run([calls(package, "counter::fail")]), "MOVE_ABORT")
        assert error.abort.location.package == package
        assert error.abort.clever_error.rendered == f"broken in version {version}"


async def test_packages_as_the_rpc_describes_them(
    net: Localnet, wallet: Wallet, compile_move: Compile
) -> None:
    first, cap = await publish(wallet, compile_move("counter", counter()))
    second = await upgrade(wallet, compile_move("counter2", counter("counter2", 2)), first, cap)
    stub = v2.MovePackageServiceStub(wallet.client._channel)
    for package, version in ((first, 1), (second, 2)):
        found = (await stub.get_package(v2.GetPackageRequest(package_id=package))).package
        assert (found.storage_id, found.original_id, found.version) == (package, first, version)
        origins = {item.datatype_name: item.package_id for item in found.type_origins}
        expected = dict.fromkeys(("Counter", "Bumped", "Tag"), first)
        if version == 2:
            expected |= dict.fromkeys(("Report", "Extra"), second)
        assert origins == expected
        assert {item.original_id[-1] for item in found.linkage} == {"1", "2"}
        defined = {item.name: item.defining_id for item in found.modules[0].datatypes}
        assert defined == expected
        versions = await stub.list_package_versions(v2.ListPackageVersionsRequest(package_id=package))
        assert [(item.package_id, item.version) for item in versions.versions] == [(first, 1), (second, 2)]
    found = await stub.get_function(
        v2.GetFunctionRequest(package_id=second, module_name="counter", name="extra")
    )
    assert found.function.parameters[0].body.type_name == f"{first}::counter::Counter"
    assert found.function.returns[0].body.type_name == f"{second}::counter::Extra"
    cap_now = await wallet.ask(cmd.GetObject(object_id=cap))
    assert (cap_now.json.to_dict()["package"], cap_now.json.to_dict()["version"]) == (second, "2")
    # A third version links to the second.
    third = await upgrade(wallet, compile_move("counter3", counter("counter3", 3)), second, cap)
    assert await returned(wallet, calls(third, "counter::step")) == "3"
    found = (await stub.get_package(v2.GetPackageRequest(package_id=third))).package
    assert (found.original_id, found.version) == (first, 3)


async def test_dependents_run_the_version_they_are_linked_against(
    wallet: Wallet, compile_move: Compile
) -> None:
    first, cap = await publish(wallet, compile_move("counter", counter()))
    old = [counter(first)]
    middle, _ = await publish(
        wallet, compile_move("middle", MIDDLE.format(address=first), *old, links={first: first})
    )
    code = compile_move("user", USER.format(address=first, more=""), *old, links={first: first})
    user, user_cap = await publish(wallet, code)
    second = await upgrade(wallet, compile_move("counter2", counter("counter2", 2)), first, cap)
    mine = await new_counter(wallet, first)

    async def bumped_by(package: str, function: str) -> int:
        before = await counted(wallet, mine)
        succeeded(await wallet.run([calls(package, function, arg(0))], [await owned(wallet, mine)]))
        return await counted(wallet, mine) - before

    assert await bumped_by(user, "user::twice") == 2
    # Linked again: the user's code is the same, what it calls is the second version, also through others.
    more = (
        "public fun through(counter: &mut Counter) { middle::middle::bump(counter) }"
        "public fun extra(c: &Counter, ctx: &mut TxContext): u64 "
        "{ let e = counter::extra(c, ctx); transfer::public_transfer(e, ctx.sender()); 7 }"
    )
    source = USER.format(address=first, more=more.replace("middle::middle", f"{middle}::middle"))
    source = source.replace("user::user", "user2::user")
    rest = [counter(first, 2), MIDDLE.format(address=first).replace("middle::middle", f"{middle}::middle")]
    linked = compile_move("user2", source, *rest, links={first: second, middle: middle})
    user2 = await upgrade(wallet, linked, user, user_cap)
    assert await bumped_by(user2, "user::twice") == 4
    assert await bumped_by(user2, "user::through") == 2
    assert await bumped_by(middle, "middle::bump") == 1
    assert await bumped_by(user, "user::twice") == 2
    succeeded(await wallet.run([calls(user2, "user::extra", arg(0))], [await owned(wallet, mine)]))

    # Somebody linking against user2 can't fall back behind it, leave out what it needs, or take both.
    thin = compile_move("thin", "module thin::thin; public fun one(): u64 { 1 }")

    async def publishing(*dependencies: str) -> Any:
        code = Code(thin.modules, [*map(address, ("0x1", "0x2", *dependencies))])
        commands = [
            Publish(tuple(code.modules), tuple(code.dependencies)),
            MoveCall(address("0x2"), "package", "make_immutable", (), (result(0),)),
        ]
        return await wallet.run(commands)

    failed(await publishing(user2, first, middle), "PUBLISH_UPGRADE_DEPENDENCY_DOWNGRADE")
    failed(await publishing(user2, middle), "PUBLISH_UPGRADE_MISSING_DEPENDENCY")
    failed(await publishing(first, second), "INVALID_LINKAGE")
    succeeded(await publishing(user2, second, middle))
    # user2 uses a type that only the second version of counter has.
    with_old = Code(linked.modules, [*map(address, ("0x1", "0x2", first, middle))])
    error = failed(
        await try_upgrade(wallet, with_old, user2, user_cap), "VM_VERIFICATION_OR_DESERIALIZATION_ERROR"
    )
    assert "counter::Extra" in error.description or "counter::extra" in error.description


async def test_versions_survive_a_restart(tmp_path: Path, compile_move: Compile) -> None:
    state = tmp_path / "state"
    async with Localnet.start(state_dir=state) as net, Wallet.connect(net.url, seed=1) as wallet:
        await net.faucet(wallet.address, 100 * SUI)
        first, cap = await publish(wallet, compile_move("counter", counter()))
        code = compile_move("user", USER.format(address=first, more=""), counter(first), links={first: first})
        mine = await new_counter(wallet, first)
        second = await upgrade(wallet, compile_move("counter2", counter("counter2", 2)), first, cap)
        user, _ = await publish(wallet, Code(code.modules, [*code.dependencies[:-1], address(second)]))
    async with Localnet.start(state_dir=state) as net, Wallet.connect(net.url, seed=1) as wallet:
        for package, function in ((second, "counter::bump"), (user, "user::twice"), (first, "counter::bump")):
            succeeded(await wallet.run([calls(package, function, arg(0))], [await owned(wallet, mine)]))
        assert await counted(wallet, mine) == 2 + 4 + 1
        third = await upgrade(wallet, compile_move("counter3", counter("counter3", 3)), second, cap)
        name = await returned(wallet, calls(third, "counter::original", types=[f"{second}::counter::Extra"]))
        assert name == f"{first[2:]}::counter::Extra"


async def test_upgrades_that_are_refused(
    wallet: Wallet, other: Wallet, probe: Probe, compile_move: Compile
) -> None:
    code = compile_move("counter", counter())
    first, cap = await publish(wallet, code)
    _, other_cap = await publish(wallet, code)
    good = compile_move("counter2", counter("counter2", 2))

    error = failed(await try_upgrade(wallet, good, first, cap, digest=bytes(32)), "PACKAGE_UPGRADE_ERROR")
    assert error.package_upgrade_error.kind.name == "DIGEST_DOES_NOT_MATCH"
    # A capability's ticket is for its own package only.
    error = failed(await try_upgrade(wallet, good, first, other_cap), "PACKAGE_UPGRADE_ERROR")
    assert error.package_upgrade_error.kind.name == "PACKAGE_ID_DOES_NOT_MATCH"
    assert error.package_upgrade_error.package_id == first
    # The contents the ticket was made for, or nothing: a module more has another digest.
    smuggled = Code([*good.modules, *compile_move("thin", "module thin::thin;").modules], good.dependencies)
    error = failed(
        await try_upgrade(wallet, smuggled, first, cap, digest=good.digest), "PACKAGE_UPGRADE_ERROR"
    )
    assert error.package_upgrade_error.kind.name == "DIGEST_DOES_NOT_MATCH"
    failed(await try_upgrade(wallet, good, first, cap, policy=1), "PACKAGE_UPGRADE_ERROR")
    removed = compile_move("empty", "module empty::another; public fun one(): u64 { 1 }")
    error = failed(await try_upgrade(wallet, removed, first, cap), "PACKAGE_UPGRADE_ERROR")
    assert error.package_upgrade_error.kind.name == "INCOMPATIBLE_UPGRADE"
    assert "Existing module counter not found" in error.description
    # Not the owner of the capability.
    inputs = [await owned(wallet, cap), PureInput(b"\0"), PureInput(byte_string(good.digest))]
    with pytest.raises(Rejected) as caught:
        await other.run(upgrade_commands(good, first), inputs)
    refused(caught, "not signed by the correct sender")
    # Neither another capability nor nobody may commit the receipt.
    inputs = [await owned(wallet, cap), PureInput(b"\0"), PureInput(byte_string(good.digest))]
    commands = upgrade_commands(good, first)
    failed(await wallet.run(commands[:2], inputs), "UNUSED_VALUE_WITHOUT_DROP")
    failed(
        await wallet.run(commands[:1], [await owned(wallet, cap), *inputs[1:]]), "UNUSED_VALUE_WITHOUT_DROP"
    )
    commands[2] = package_call("commit_upgrade", arg(3), result(1))
    inputs = [await owned(wallet, cap), *inputs[1:], await owned(wallet, other_cap)]
    failed(await wallet.run(commands, inputs), "MOVE_ABORT")
    with pytest.raises(Rejected) as caught:
        await try_upgrade(wallet, good, "0x1234", cap)
    refused(caught, "not found on-chain")
    # Nothing of all that has left a trace; what is upgraded is the newest version.
    second = await upgrade(wallet, good, first, cap)
    third = compile_move("counter3", counter("counter3", 3))
    error = failed(await try_upgrade(wallet, third, first, cap), "PACKAGE_UPGRADE_ERROR")
    assert error.package_upgrade_error.ticket_id == second
    # Policies only get stricter.
    restrict = [package_call("only_dep_upgrades", arg(0))]
    succeeded(await wallet.run(restrict, [await owned(wallet, cap)]))
    failed(await try_upgrade(wallet, third, second, cap), "MOVE_ABORT")
    error = failed(await try_upgrade(wallet, third, second, cap, policy=192), "PACKAGE_UPGRADE_ERROR")
    assert error.package_upgrade_error.kind.name == "INCOMPATIBLE_UPGRADE"
    same = compile_move("counter2b", counter("counter2b", 2))
    last = await upgrade(wallet, same, second, cap, 192)
    assert await returned(wallet, calls(last, "counter::step")) == "2"


# --- what each policy allows

_BASE = """
module {package}::{name};
const SALT: vector<u8> = b"salt";
public struct S<phantom T> has copy, drop {{ a: u64, b: bool }}
public enum E has copy, drop {{ One, Two {{ x: u8 }} }}
public fun open<T: drop>(a: u64): u64 {{ a + SALT.length() }}
public(package) fun shut(s: &S<u8>): u64 {{ s.a }}
fun hidden(e: &E): u8 {{ match (e) {{ E::One => 1, E::Two {{ x }} => *x }} }}
entry fun door(): u64 {{ shut(&S {{ a: 1, b: true }}) + (hidden(&E::One) as u64) }}
"""
# What replaces what, and the policies that allow it: c(ompatible), a(dditive), d(ep only).
_EDITS: dict[str, tuple[str, str, str]] = {
    "nothing": ("", "", "cad"),
    "new_function": ("entry fun door", "public fun more(): u64 {{ 5 }} entry fun door", "ca"),
    "new_type": ("entry fun door", "public struct More {{}} entry fun door", "ca"),
    "new_constant": ("entry fun door", 'fun more(): vector<u8> {{ b"aaa" }} entry fun door', "ca"),
    "changed_body": ("a + SALT.length()", "a * SALT.length()", "c"),
    "changed_constant": ('b"salt"', 'b"pepper"', "c"),
    "changed_private": ("E::One => 1,", "E::One => 2,", "c"),
    "private_signature": (
        "fun hidden(e: &E)",
        "fun hidden(e: &E): u8 {{ hide(e, 1) }} fun hide(e: &E, _: u8)",
        "c",
    ),
    "package_removed": ("public(package) fun shut", "fun shut", "c"),
    "entry_removed": ("entry fun door", "fun door", "c"),
    "made_public": ("fun hidden", "public fun hidden", "c"),
    "weaker_constraint": ("open<T: drop>", "open<T>", "c"),
    "stronger_constraint": ("open<T: drop>", "open<T: drop + copy>", ""),
    "less_visible": ("public fun open", "public(package) fun open", ""),
    "renamed_function": ("fun open", "fun opened", ""),
    "other_parameter": ("(a: u64): u64 {{ a + ", "(a: u32): u64 {{ (a as u64) + ", ""),
    "other_result": ("(a: u64): u64 {{ a + SALT.length()", "(a: u64): u32 {{ (a + SALT.length()) as u32", ""),
    "field_added": ("b: bool }}\n", "b: bool, c: u8 }}\n", ""),
    "field_renamed": ("{{ a: u64, b: bool }}", "{{ a: u64, c: bool }}", ""),
    "field_type": ("{{ a: u64, b: bool }}", "{{ a: u64, b: u8 }}", ""),
    "fields_swapped": ("{{ a: u64, b: bool }}", "{{ b: bool, a: u64 }}", ""),
    "ability_added": ("S<phantom T> has copy, drop", "S<phantom T> has copy, drop, store", ""),
    "ability_removed": ("E has copy, drop", "E has drop", ""),
    "not_phantom": ("S<phantom T> has", "S<phantom T: drop> has", ""),
    "variant_added": ("Two {{ x: u8 }} }}\n", "Two {{ x: u8 }}, Three }}\n", ""),
    "variant_renamed": ("One", "Uno", ""),
    "variant_field": ("Two {{ x: u8 }} }}", "Two {{ x: u8, y: u8 }} }}", ""),
}
_REPAIRS = {
    "field_added": [("b: true }}", "b: true, c: 1 }}")],
    "field_renamed": [("b: true }}", "c: true }}")],
    "field_type": [("b: true }}", "b: 1 }}")],
    "variant_added": [("x }} => *x }}", "x }} => *x, E::Three => 3 }}")],
    "variant_renamed": [("E::One", "E::Uno"), ("E::One", "E::Uno")],
    "variant_field": [("E::Two {{ x }}", "E::Two {{ x, .. }}")],
}


def _edited(name: str) -> str:
    before, after, _ = _EDITS[name]
    source = _BASE
    assert before in source
    for old, new in [(before, after), *_REPAIRS.get(name, [])]:
        source = source.replace(old, new, 1)
    return source


def test_what_a_policy_allows(compile_move: Compile) -> None:
    before = compile_move("before", *(_BASE.format(package="before", name=name) for name in _EDITS))
    after = compile_move("after", *(_edited(name).format(package="after", name=name) for name in _EDITS))
    olds = {module.name: module for module in map(Module.parse, before.modules)}
    news = {module.name: module for module in map(Module.parse, after.modules)}
    found: dict[str, str] = {}
    for name in _EDITS:
        found[name] = ""
        for letter, policy in (
            ("c", compatibility.COMPATIBLE),
            ("a", compatibility.ADDITIVE),
            ("d", compatibility.DEP_ONLY),
        ):
            with suppress(ExecutionFailure):
                compatibility.check(PackageData({name: olds[name].raw}), [news[name]], policy)
                found[name] += letter
    assert found == {name: allowed for name, (_, _, allowed) in _EDITS.items()}


def test_the_digest_is_the_compilers(probe_code: tuple[list[bytes], list[bytes]]) -> None:
    built = compiler.build(Path(__file__).parent / "move")
    assert package_digest(*probe_code) == built.digest
    assert package_digest(reversed(probe_code[0]), reversed(probe_code[1])) == built.digest
