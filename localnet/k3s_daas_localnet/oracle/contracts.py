"""View functions of a package over state that random transactions made: both machines read the same."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..ledger import gas, wire
from ..ledger.clock import Clock
from ..ledger.effects import Executed
from ..ledger.encoding import ZERO_ADDRESS, blake2b, u64
from ..ledger.errors import Refused
from ..ledger.ledger import Ledger
from ..ledger.objects import CLOCK, CLOCK_ID, SUI_COIN, LedgerObject, Owner
from ..ledger.store import Store
from ..ledger.transaction import (
    GAS,
    Argument,
    Command,
    Input,
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
from ..vm import (
    CodeStore,
    FunctionDef,
    Module,
    ModuleId,
    PureHost,
    Reference,
    StructType,
    Type,
    Value,
    VectorType,
    Visibility,
    address_to_string,
    from_bcs,
    parse_address,
    struct,
    to_bcs,
    type_to_string,
)
from ..vm.host import Child
from ..vm.types import ADDRESS, BYTES, U8, U64
from .cases import (
    STRINGS,
    Difference,
    is_plain,
    make_case,
    random_value,
    run_ours,
    run_real,
    value_type,
)

SUI = 10**9
_CONTEXT = struct("0x2", "tx_context", "TxContext")
_BUDGET = 5 * SUI
_MOST_FOUNDED = 4
_NOT_IN_SANDBOX = frozenset((ModuleId(parse_address("0x2"), "nitro_attestation"),))
# Names of workers, and the statuses our contracts know.
_WORDS = (b"a", b"b", b"c", b"d", b"active", b"offline")
_HOUR_MS = 3_600_000


@dataclass
class World:
    """A chain of its own with one package, and who acts on it.

    :ivar pool: values that mean something to the package, by type.
    :ivar founders: functions that make shared objects. Few calls of them: more happens to fewer objects.
    """

    ledger: Ledger
    package: bytes
    people: list[bytes]
    pool: dict[Type, list[Value]]
    succeeded: dict[str, int] = field(default_factory=dict)
    founders: set[str] = field(default_factory=set)
    attempts: int = 0

    @property
    def modules(self) -> list[Module]:
        found = self.ledger.find(self.package)
        assert found is not None
        assert found.package is not None
        return [Module.parse(raw) for raw in found.package.modules.values()]

    def functions(self) -> Iterator[FunctionDef]:
        for module in self.modules:
            yield from module.function_defs


def new_world(modules: Sequence[bytes], dependencies: Sequence[bytes], people: int = 3) -> World:
    """Publishes a package, compiled for 0x0, on a chain that lives in memory."""
    ledger = Ledger(Store(None), Clock(), lambda executed, checkpoint: b"\1")
    accounts = [blake2b(b"oracle person %d" % number) for number in range(people)]
    for account in accounts:
        ledger.faucet(account, 100_000 * SUI)
    world = World(ledger, ZERO_ADDRESS, accounts, {})
    publish = (Publish(tuple(modules), tuple(dependencies)), _give(accounts[0], Argument("result", 0)))
    done = _execute(world, accounts[0], publish, [PureInput(accounts[0])])
    assert done is not None
    assert done.failure is None, done.failure
    world.package = next(item.object_id for item in done.written if item.package is not None)
    now = ledger.clock.now_ms()
    world.pool = {
        ADDRESS: list(accounts),
        STRINGS[0]: [
            [bytearray(word)] for word in (b"a", b"b", b"c", b"worker-1", b"active", b"offline", b"busy")
        ],
        BYTES: [bytearray(blake2b(b"%d" % number)) for number in range(6)]
        + [bytearray(), bytearray(b"short")],
        U64: [0, 1, 2, 1000, SUI, SUI, 2 * SUI, *(now + days * 24 * _HOUR_MS for days in (2, 30, 60, 90))],
    }
    return world


def _give(recipient: bytes, *objects: Argument) -> Command:
    return TransferObjects(tuple(objects), Argument("input", 0))


def _execute(
    world: World, sender: bytes, commands: Sequence[Command], inputs: Sequence[Input]
) -> Executed | None:
    """None when the ledger refuses. The simulation is what tells the outcome; it is then executed."""
    ledger = world.ledger
    coins = [item for item in ledger.owned_by(sender) if item.type == SUI_COIN]
    coin = max(coins, key=lambda item: item.coin_value)
    data = wire.encode(
        TransactionData(
            tuple(inputs),
            tuple(commands),
            sender,
            (ObjectRef(coin.object_id, coin.version, coin.digest),),
            sender,
            gas.REFERENCE_GAS_PRICE,
            _BUDGET,
        )
    )
    try:
        executed = ledger.simulate(data)
        if executed.failure is None:
            ledger._execute(data, ())
    except Refused:
        return None
    return executed


def random_state(world: World, seed: int, transactions: int) -> None:
    """Calls random functions of the package with arguments that have a chance, and lets time go by."""
    rng = random.Random(f"state {seed}")  # noqa: S311 - reproducible, nothing secret
    callable_ = [
        f
        for f in world.functions()
        if (f.visibility == Visibility.PUBLIC or f.is_entry) and not f.type_parameters and not _is_view(f)
    ]
    for _ in range(transactions):
        # Of two, what succeeded less often.
        function = min(rng.sample(callable_, 2), key=lambda f: world.succeeded.get(f.name, 0))
        if function.name in world.founders and world.succeeded[function.name] >= _MOST_FOUNDED:
            continue
        sender = rng.choice(_holders(world, function) or world.people)
        world.attempts += 1
        prepared = _arguments(world, rng, function, sender)
        if prepared is None:
            continue
        commands, inputs, arguments = prepared
        call = MoveCall(world.package, function.module.name, function.name, (), tuple(arguments))
        commands.append(call)
        leftovers = _leftovers(world, function, len(commands) - 1)
        if leftovers:
            commands.append(TransferObjects(tuple(leftovers), Argument("input", len(inputs))))
            inputs.append(PureInput(sender))
        done = _execute(world, sender, commands, inputs)
        if done is not None and done.failure is None:
            world.succeeded[function.name] = world.succeeded.get(function.name, 0) + 1
            made = (c.after for c in done.changes if c.before is None and c.after is not None)
            if any(item.owner.kind == "shared" for item in made):
                world.founders.add(function.name)
        if rng.random() < 0.02:
            world.ledger.clock.advance(rng.choice([1000, _HOUR_MS]))


def _holders(world: World, function: FunctionDef) -> list[bytes]:
    """Who has what the function wants to see, a capability for example."""
    wanted = {value_type(type_) for type_ in _declared(world, function)} - {SUI_COIN}
    return [
        item.owner.address
        for item in world.ledger.all_objects()
        if item.type in wanted and item.owner.kind == "address" and item.owner.address in world.people
    ]


def _is_view(function: FunctionDef) -> bool:
    return bool(function.results) and not any(
        isinstance(t, Reference) and (t.mutable or t.target == _CONTEXT) for t in function.parameters
    )


def _leftovers(world: World, function: FunctionDef, position: int) -> list[Argument]:
    code = world.ledger.code
    kept = []
    for index, result in enumerate(function.results):
        if isinstance(result, StructType) and code.abilities(result) & 8:
            kept.append(Argument("nested", position, index))
    return kept


def _arguments(
    world: World, rng: random.Random, function: FunctionDef, sender: bytes
) -> tuple[list[Command], list[Input], list[Argument]] | None:
    """Inputs and arguments for a call; None when there is no object of some type."""
    commands: list[Command] = []
    inputs: list[Input] = []
    arguments: list[Argument] = []
    pool = dict(world.pool)
    # Vectors of one call have mostly the same length: parallel vectors are a habit of our contracts.
    size = rng.randrange(1, 4)
    for type_ in _declared(world, function):
        wanted = value_type(type_)
        if wanted == _CONTEXT:
            continue
        if wanted == CLOCK:
            arguments.append(Argument("input", len(inputs)))
            inputs.append(SharedInput(CLOCK_ID, 1, False))
        elif wanted == SUI_COIN:
            commands.append(SplitCoins(GAS, (Argument("input", len(inputs)),)))
            inputs.append(PureInput(u64(rng.choice([0, 1, SUI, SUI, 2 * SUI, 3 * SUI, 4 * SUI, 6 * SUI]))))
            arguments.append(Argument("nested", len(commands) - 1, 0))
        elif is_plain(wanted):
            value = _value(rng, wanted, pool, size)
            arguments.append(Argument("input", len(inputs)))
            inputs.append(PureInput(to_bcs(world.ledger.code.layout(wanted), value)))
        else:
            found = _object(
                world, rng, wanted, sender, mutable=isinstance(type_, Reference) and type_.mutable
            )
            if found is None:
                return None
            if found in inputs:
                arguments.append(Argument("input", inputs.index(found)))
                continue
            arguments.append(Argument("input", len(inputs)))
            inputs.append(found)
    return commands, inputs, arguments


def _declared(world: World, function: FunctionDef) -> tuple[Type, ...]:
    found = world.ledger.code.function(function.module, function.name)
    assert found is not None
    return found.parameters


def _value(rng: random.Random, type_: Type, pool: Mapping[Type, Sequence[Value]], size: int) -> Value:
    if isinstance(type_, VectorType) and type_ not in pool and type_.element != U8 and rng.random() < 0.9:
        if type_.element in pool and type_.element != U64:
            return rng.sample(list(pool[type_.element]), size)
        return [random_value(rng, type_.element, pool) for _ in range(size)]
    return random_value(rng, type_, pool)


def _object(world: World, rng: random.Random, type_: Type, sender: bytes, *, mutable: bool) -> Input | None:
    found = [
        item
        for item in world.ledger.all_objects()
        if item.type == type_
        and (item.owner.kind in ("shared", "immutable") or item.owner == Owner("address", sender))
    ]
    if not found:
        return None
    item = rng.choice(found)
    if item.owner.kind == "shared":
        return SharedInput(item.object_id, item.owner.version, mutable)
    return OwnedInput(ObjectRef(item.object_id, item.version, item.digest))


# --- reading


class _Reader(PureHost):
    """Reads the ledger's dynamic fields, changes nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def child(self, parent: bytes, object_id: bytes) -> Child | None:
        found = self._ledger.find(object_id)
        if (
            found is None
            or found.type is None
            or (found.owner.kind, found.owner.address) != ("object", parent)
        ):
            return None
        return Child(found.type, [from_bcs(self._ledger.code.layout(found.type), found.contents)])


@dataclass
class Reading:
    """What `compare_views` saw. `skipped`: views that the oracle can't be asked for, with the reason."""

    cases: int = 0
    views: set[str] = field(default_factory=set)
    aborts: int = 0
    unlisted: list[Difference] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def compare_views(world: World, seed: int, per_view: int = 3, reading: Reading | None = None) -> Reading:
    """Asks every view function on both machines, with arguments that the state knows and others."""
    reading = reading or Reading()
    rng = random.Random(f"views {seed}")  # noqa: S311 - reproducible, nothing secret
    ledger, code = world.ledger, world.ledger.code
    children = _children(ledger)
    package = [module.raw for module in world.modules]
    for function in world.functions():
        if function.visibility != Visibility.PUBLIC or not _is_view(function) or function.type_parameters:
            continue
        name = f"{function.module.name}::{function.name}"
        reason = _not_loadable(code, function.module) or _not_askable(code, function)
        if reason:
            reading.skipped[name] = reason
            continue
        objects_at = [i for i, t in enumerate(function.parameters) if not is_plain(value_type(t))]
        plain = [t for i, t in enumerate(function.parameters) if i not in objects_at]
        for _ in range(per_view if plain else 1):
            objects = [_any_object(ledger, rng, value_type(function.parameters[i])) for i in objects_at]
            if None in objects:
                if name not in reading.views:
                    reading.skipped[name] = "there is no object of its type"
                break
            found = [item for item in objects if item is not None]
            case = make_case(rng, code, name, plain, world.pool)
            values: list[Value] = [_contents(code, item) for item in found] + list(case.values)
            ours = run_ours(code, _Reader(ledger), function, (), function.parameters, values)
            real = run_real(
                function, (), case.arguments, [_described(i, "object_id") for i in found], children, package
            )
            reading.cases += 1
            reading.views.add(name)
            reading.skipped.pop(name, None)
            reading.aborts += ours.startswith("abort")
            if ours != real:
                reading.unlisted.append(Difference(replace(case, function=name), real, ours))
    return reading


def _not_loadable(code: CodeStore, module_id: ModuleId) -> str | None:
    """Whether the module depends, however far, on one that the sandbox can't load."""
    seen: set[ModuleId] = set()
    todo = [module_id]
    while todo:
        found = todo.pop()
        if found in _NOT_IN_SANDBOX:
            return f"uses {found.name}, which the sandbox can't load: it lacks its native"
        module = code.module(found)
        if found not in seen and module is not None:
            seen.add(found)
            todo.extend(module.dependencies())
    return None


def _not_askable(code: CodeStore, function: FunctionDef) -> str | None:
    """Why the oracle, which takes objects first and then plain values, can't call this."""
    plain = [is_plain(value_type(type_)) for type_ in function.parameters]
    if plain != sorted(plain):
        return "takes an object after a plain value"
    if any(isinstance(result, Reference) for result in function.results):
        return "gives a reference"
    for type_, is_value in zip(function.parameters, plain, strict=True):
        if not is_value and not (isinstance(type_, Reference) and code.abilities(type_.target) & 8):
            return f"takes {type_to_string(value_type(type_))}, which is no object"
    return None


def _any_object(ledger: Ledger, rng: random.Random, type_: Type) -> LedgerObject | None:
    found = [item for item in ledger.all_objects() if item.type == type_ and item.owner.kind != "object"]
    return rng.choice(sorted(found, key=lambda item: item.object_id)) if found else None


def _contents(code: CodeStore, item: LedgerObject) -> Value:
    assert item.type is not None
    return from_bcs(code.layout(item.type), item.contents)


def _described(item: LedgerObject, id_key: str) -> dict[str, Any]:
    assert item.type is not None
    found: dict[str, Any] = {
        id_key: address_to_string(item.object_id),
        "bcs_bytes": item.contents,
        "type_tag": type_to_string(item.type),
    }
    if id_key == "object_id":
        found |= {"is_shared": item.owner.kind == "shared", "mutable": False}
    return found


def _children(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in ledger.all_objects():
        if item.owner.kind == "object" and item.type is not None:
            found.setdefault(address_to_string(item.owner.address), []).append(_described(item, "child_id"))
    return found
