"""Functions of 0x1 and 0x2 on plain values: a case for every branch that random values reach."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .. import compiler
from ..vm import (
    Ability,
    CodeStore,
    FunctionDef,
    Module,
    PureHost,
    Reference,
    Type,
    Visibility,
    framework_modules,
    parse_address,
    parse_type,
    prepare,
    relocate,
    substitute,
    type_to_string,
)
from ..vm import opcodes as op
from ..vm.natives import NATIVES
from ..vm.verifier import INTERNAL_FUNCTIONS
from .cases import Case, Difference, is_plain, make_case, run_ours, run_real, value_type


class Known(NamedTuple):
    """A difference that is the sandbox's, not ours: what it says (a regular expression), and why."""

    real: str
    reason: str


_BY_VALUE = Known(
    "INTERNAL_TYPE_ERROR.*cannot cast ContainerRef",
    "the sandbox's native takes a value where Sui's takes a reference; ours is tested with published vectors",
)
_BIG_ENDIAN = Known("[0-9a-f]{64}$", "the sandbox's native reads little-endian, Sui's big-endian")
_FROM_BYTES = Known("abort 1$", "the sandbox's address::from_bytes aborts with 1, Sui's with 0")
# By function. Any other difference is a fault.
KNOWN_DIFFERENCES = {
    "0x2::address::from_ascii_bytes": _FROM_BYTES,
    "0x2::address::from_bytes": _FROM_BYTES,
    "0x2::address::from_u256": _BIG_ENDIAN,
    "0x2::address::to_u256": _BIG_ENDIAN,
    "0x2::bls12381::bls12381_min_pk_verify": _BY_VALUE,
    "0x2::ecdsa_k1::decompress_pubkey": _BY_VALUE,
    "0x2::ecdsa_k1::secp256k1_ecrecover": _BY_VALUE,
    "0x2::ecdsa_k1::secp256k1_verify": _BY_VALUE,
    "0x2::ecdsa_r1::secp256r1_ecrecover": _BY_VALUE,
    "0x2::ecdsa_r1::secp256r1_verify": _BY_VALUE,
    "0x2::ed25519::ed25519_verify": _BY_VALUE,
    "0x2::hash::blake2b256": _BY_VALUE,
    "0x2::hash::keccak256": _BY_VALUE,
    "0x2::hmac::hmac_sha3_256": Known("20(00){32}$", "the sandbox's native gives zeros"),
    "0x2::object::id_from_bytes": _FROM_BYTES,
    "0x2::zklogin_verified_id::check_zklogin_id": Known(
        "execution failed", "the sandbox has no zkLogin natives; the framework's function always aborts"
    ),
}


def is_known(difference: Difference) -> bool:
    """Whether the sandbox is known to be wrong here, in just this way."""
    known = KNOWN_DIFFERENCES.get(difference.case.function)
    return known is not None and re.match(f".*{known.real}", difference.real) is not None


_WRAPPERS = bytes(31) + b"\x79"
_SYSTEM = parse_address("0x3")
# What generic functions are called with.
_TYPE_CHOICES: tuple[Type, ...] = (parse_type("u64"), parse_type("vector<u8>"))
_BRANCHES = frozenset((op.BR_TRUE, op.BR_FALSE, op.VARIANT_SWITCH))


class Branch(NamedTuple):
    """An edge of a function's flow: from a conditional branch to where it went; an abort goes to itself."""

    function: str
    at: int
    to: int

    def __str__(self) -> str:
        return f"{self.function} @{self.at} {'abort' if self.at == self.to else f'to {self.to}'}"


@dataclass
class Survey:
    """What was compared.

    :ivar uncovered: branches of the surveyed functions, and of those they call, that no case took.
    :ivar skipped: functions on plain values that could not be called, with the reason.
    """

    functions: list[str] = field(default_factory=list)
    cases: int = 0
    known: list[Difference] = field(default_factory=list)
    unlisted: list[Difference] = field(default_factory=list)
    uncovered: list[Branch] = field(default_factory=list)
    branches: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A function as it is called: itself, or its wrapper where it works on references.

    :ivar package: the wrapper's module; empty for the framework's own.
    """

    name: str
    function: FunctionDef
    type_args: tuple[Type, ...]
    package: tuple[bytes, ...] = ()

    @property
    def parameters(self) -> list[Type]:
        return [substitute(type_, self.type_args) for type_ in self.function.parameters]


def name_of(function: FunctionDef) -> str:
    return f"0x{int.from_bytes(function.module.address, 'big'):x}::{function.module.name}::{function.name}"


def callees(store: CodeStore, function: FunctionDef) -> Iterator[FunctionDef]:
    module = store.module(function.module)
    assert module is not None
    for code, operand, _ in function.code:
        if code == op.CALL_GENERIC:
            operand = module.function_instantiations[operand].target
        elif code != op.CALL:
            continue
        handle = module.function_handles[operand]
        found = store.function(handle.module, handle.name)
        if found is not None:
            yield found


def reached(store: CodeStore, roots: Iterable[FunctionDef]) -> dict[str, FunctionDef]:
    """All functions that calls of `roots` can get to, themselves included."""
    found: dict[str, FunctionDef] = {}
    todo = list(roots)
    while todo:
        function = todo.pop()
        if name_of(function) not in found:
            found[name_of(function)] = function
            todo.extend(callees(store, function))
    return found


def reached_by_package(modules: Sequence[bytes]) -> set[str]:
    """Names of the framework's functions that a package, compiled for 0x0, can reach."""
    store = CodeStore.with_framework().fork()
    own = [Module.parse(relocate(raw, _WRAPPERS)) for raw in modules]
    for module in own:
        store.add(module)
    found = reached(store, (f for module in own for f in module.function_defs))
    return {name for name, f in found.items() if f.module.address != _WRAPPERS}


def plain_functions() -> list[FunctionDef]:
    """Public functions of 0x1 and 0x2 that take plain values and give values that can be shown."""
    return [
        function
        for module in framework_modules()
        if module.address != _SYSTEM
        for function in module.function_defs
        if function.visibility == Visibility.PUBLIC and _takes_plain_values(function)
    ]


def _closed(function: FunctionDef, choice: Type) -> tuple[Type, ...]:
    return (choice,) * len(function.type_parameters)


def _takes_plain_values(function: FunctionDef) -> bool:
    if any(constraints & Ability.KEY for constraints in function.type_parameters):
        return False
    types = _closed(function, _TYPE_CHOICES[0])
    return all(is_plain(value_type(substitute(type_, types))) for type_ in function.parameters)


def _needs_wrapper(function: FunctionDef) -> bool:
    mutable = any(isinstance(type_, Reference) and type_.mutable for type_ in function.parameters)
    # The sandbox gives natives that it calls directly values where they take references.
    return mutable or function.is_native or any(isinstance(r, Reference) for r in function.results)


def _missing_native(store: CodeStore, function: FunctionDef) -> str | None:
    for name, found in reached(store, [function]).items():
        key = (found.module.address, found.module.name, found.name)
        if found.is_native and key not in NATIVES:
            return name
    return None


def targets(store: CodeStore, functions: Iterable[FunctionDef], skipped: dict[str, str]) -> list[Target]:
    """How to call each function; those that can't be called go to `skipped`."""
    found: list[Target] = []
    wrapped: list[tuple[FunctionDef, tuple[Type, ...]]] = []
    for function in functions:
        if (function.module.address, function.module.name, function.name) in INTERNAL_FUNCTIONS:
            skipped[name_of(function)] = "takes only types of the calling module"
            continue
        missing = _missing_native(store, function)
        if missing is not None:
            skipped[name_of(function)] = f"native {missing} is not there"
            continue
        choices = _TYPE_CHOICES if function.type_parameters else _TYPE_CHOICES[:1]
        for types in (_closed(function, choice) for choice in choices):
            reason = _not_shown(store, function, types)
            if reason:
                skipped[name_of(function)] = reason
            elif _needs_wrapper(function):
                wrapped.append((function, types))
            else:
                found.append(Target(name_of(function), function, types))
    return found + _wrap(store, wrapped)


def _not_shown(store: CodeStore, function: FunctionDef, types: tuple[Type, ...]) -> str | None:
    for result in function.results:
        type_ = value_type(substitute(result, types))
        needed = Ability.COPY if isinstance(result, Reference) else Ability.DROP
        if not store.abilities(type_) & needed:
            return f"gives {type_to_string(type_)}, which a caller can't leave lying about"
    return None


def _wrap(store: CodeStore, wrapped: Sequence[tuple[FunctionDef, tuple[Type, ...]]]) -> list[Target]:
    """Compiles functions that take references, call the wrapped one, and give all it gave and changed."""
    if not wrapped:
        return []
    sources: dict[str, list[str]] = {}
    for number, (function, types) in enumerate(wrapped):
        sources.setdefault(_wrapper_module(function), []).append(_wrapper(number, function, types))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "sources").mkdir()
        (root / "Move.toml").write_text(
            '[package]\nname = "wrappers"\nedition = "2024"\n[addresses]\nwrappers = "0x0"\n'
        )
        for module, functions in sources.items():
            text = f"module wrappers::{module};\n" + "\n".join(functions)
            (root / "sources" / f"{module}.move").write_text(text)
        raw_modules = [relocate(raw, _WRAPPERS) for raw in compiler.build(root).modules]
    modules = {module.name: module for module in map(Module.parse, raw_modules)}
    for wrapper in modules.values():
        store.add(wrapper)
    return [
        Target(name_of(function), modules[_wrapper_module(function)].functions[f"w{number}"], (), (raw,))
        for number, (function, _) in enumerate(wrapped)
        for raw in (modules[_wrapper_module(function)].raw,)
    ]


def _wrapper_module(function: FunctionDef) -> str:
    return f"w{function.module.address[-1]}_{function.module.name}"


def _wrapper(number: int, function: FunctionDef, types: tuple[Type, ...]) -> str:
    parameters = [substitute(type_, types) for type_ in function.parameters]
    results = [substitute(type_, types) for type_ in function.results]
    taken, given, changed = [], [], []
    for index, type_ in enumerate(parameters):
        mutable = isinstance(type_, Reference) and type_.mutable
        taken.append(f"{'mut ' if mutable else ''}a{index}: {_source(value_type(type_))}")
        given.append(
            ("&mut " if mutable else "&") + f"a{index}" if isinstance(type_, Reference) else f"a{index}"
        )
        if mutable:
            changed.append((f"a{index}", value_type(type_)))
    names = [f"r{index}" for index in range(len(results))]
    generics = f"<{', '.join(map(_source, types))}>" if types else ""
    address, module, name = name_of(function).split("::")
    call = f"{address}::{module}::{name}{generics}({', '.join(given)})"
    lines = [f"let ({', '.join(names)}) = {call};" if len(names) != 1 else f"let r0 = {call};"]
    if not names:
        lines = [f"{call};"]
    for index, result in enumerate(results):
        if isinstance(result, Reference):
            lines.append(f"let r{index} = *r{index};")
    shown = [*zip(names, map(value_type, results), strict=True), *changed]
    types_text = ", ".join(_source(type_) for _, type_ in shown)
    values_text = ", ".join(value for value, _ in shown)
    body = " ".join(lines)
    return f"public fun w{number}({', '.join(taken)}): ({types_text}) {{ {body} ({values_text}) }}"


def _source(type_: Type) -> str:
    return type_to_string(type_)


class _Traced(list[prepare.PreparedInstruction]):
    """A function's code that remembers which way its branches went."""

    def __init__(self, code: list[prepare.PreparedInstruction], name: str, taken: set[Branch]) -> None:
        super().__init__(code)
        self._name = name
        self._taken = taken
        self._kinds = [opcode for opcode, _ in code]
        self._last = -1

    def __getitem__(self, at):  # type: ignore[no-untyped-def]  # as fast as it can be
        if self._last >= 0:
            self._taken.add(Branch(self._name, self._last, at))
        kind = self._kinds[at]
        self._last = at if kind in _BRANCHES else -1
        if kind == op.ABORT:
            self._taken.add(Branch(self._name, at, at))
        return super().__getitem__(at)


@contextmanager
def _recording(taken: set[Branch]) -> Iterator[None]:
    if prepare.trace is not None:
        raise RuntimeError("a trace is being recorded already")
    prepare.trace = lambda function, code: _Traced(code, name_of(function), taken)
    try:
        yield
    finally:
        prepare.trace = None


def branches(functions: Iterable[FunctionDef]) -> set[Branch]:
    """All branches of these functions."""
    found: set[Branch] = set()
    for function in functions:
        name = name_of(function)
        for at, (code, operand, _) in enumerate(function.code):
            if code in (op.BR_TRUE, op.BR_FALSE):
                found |= {Branch(name, at, at + 1), Branch(name, at, operand)}
            elif code == op.VARIANT_SWITCH:
                found |= {Branch(name, at, to) for to in function.jump_tables[operand].targets}
            elif code == op.ABORT:
                found.add(Branch(name, at, at))
    return found


def survey(
    functions: Sequence[FunctionDef],
    *,
    tries: int = 60,
    extra: int = 1,
    seed: int = 0,
    taken: set[Branch] | None = None,
) -> Survey:
    """Compares functions on both machines.

    Of `tries` random argument lists per function, those that take a branch nobody took before are given to
    the real VM, and `extra` more.

    :param taken: branches that earlier surveys took; this one's are added.
    """
    result = Survey()
    store = CodeStore.with_framework().fork()
    taken = set() if taken is None else taken
    wanted = targets(store, functions, result.skipped)
    with _recording(taken):
        for target in wanted:
            rng = random.Random(f"{seed} {target.name}")  # noqa: S311 - reproducible, nothing secret
            for case, ours in _chosen(rng, store, target, taken, tries, extra):
                result.cases += 1
                real = run_real(target.function, target.type_args, case.arguments, package=target.package)
                if real != ours:
                    difference = Difference(case, real, ours)
                    (result.known if is_known(difference) else result.unlisted).append(difference)
    result.functions = sorted({target.name for target in wanted})
    every = reached(store, (target.function for target in wanted)).values()
    possible = branches(f for f in every if f.module.address != _WRAPPERS)
    result.branches = len(possible)
    result.uncovered = sorted(possible - taken)
    return result


def _chosen(
    rng: random.Random, store: CodeStore, target: Target, taken: set[Branch], tries: int, extra: int
) -> Iterator[tuple[Case, str]]:
    parameters = target.parameters
    seen: set[str] = set()
    for attempt in range(tries if parameters else 1):
        case = make_case(rng, store, target.name, parameters)
        before = len(taken)
        ours = run_ours(store, PureHost(), target.function, target.type_args, parameters, case.values)
        kind = ours if ours.startswith("abort") or ours.isupper() else "value"
        if len(taken) > before or attempt < extra or kind not in seen:
            seen.add(kind)
            yield case, ours
