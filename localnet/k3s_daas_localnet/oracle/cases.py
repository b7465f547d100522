"""One call on both machines, and random values for it."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sui_sandbox

from ..vm import (
    CodeStore,
    FunctionDef,
    Host,
    Interpreter,
    MoveAbort,
    OutOfGas,
    Primitive,
    Ref,
    Reference,
    StructType,
    Type,
    Value,
    VectorType,
    VmError,
    address_to_string,
    clone,
    struct,
    to_bcs,
    type_to_string,
)
from ..vm.types import ADDRESS, BOOL, INTEGERS, U8
from ..vm.values import INTEGER_CLASSES

STRINGS = (struct("0x1", "string", "String"), struct("0x1", "ascii", "String"))
ID = struct("0x2", "object", "ID")
_OPTION = struct("0x1", "option", "Option")[:3]
_WORDS = (b"", b"a", b"abc", b"hello", b"lo", b"hello world", b"12345", b"0x2", "žluť".encode())
# For what reads hex digits, and for lengths that functions look at.
_BYTES = (
    *_WORDS,
    b"ABCxyz",
    b"00ff",
    b"aBC",
    b"zz",
    b"0" * 64,
    b"aF" * 32,
    b"g" * 64,
    b"\x00\x7f\x80",
    b"a" * 63,
    bytes(32 * 9),
    bytes(64),
)
_STEPS = 1_000_000

# BCS of the results, one after the other, or the name of what stopped the call.
Result = str


@dataclass(frozen=True)
class Case:
    """Arguments of one call; `arguments` is their BCS."""

    function: str
    values: tuple[Value, ...] = field(repr=False)
    arguments: tuple[bytes, ...]


@dataclass(frozen=True)
class Difference:
    case: Case
    real: Result
    ours: Result

    def __str__(self) -> str:
        arguments = ", ".join(item.hex() for item in self.case.arguments)
        return f"{self.case.function}({arguments}): real {self.real}, ours {self.ours}"


def value_type(type_: Type) -> Type:
    return type_.target if isinstance(type_, Reference) else type_


def is_plain(type_: Type) -> bool:
    """Whether a transaction can give such values as bytes (type parameters count: they become numbers)."""
    match type_:
        case Primitive():
            return type_ in INTEGERS or type_ in (BOOL, ADDRESS)
        case VectorType(element):
            return is_plain(element)
        case StructType():
            if type_[:3] == _OPTION:
                return is_plain(type_.args[0])
            return type_ in STRINGS or type_ == ID
        case _:
            return False


def random_value(
    rng: random.Random, type_: Type, pool: Mapping[Type, Sequence[Value]] | None = None
) -> Value:
    """A value of a plain type, out of few, so that equal ones meet; `pool` has better ones."""
    if pool and type_ in pool and rng.random() < 0.9:
        return clone(rng.choice(pool[type_]))
    match type_:
        case Primitive(name) if type_ in INTEGERS:
            bits = int(name[1:])
            top = (1 << bits) - 1
            few = [
                0,
                1,
                2,
                3,
                7,
                top,
                top - 1,
                top >> 1,
                1 << bits // 2,
                rng.getrandbits(bits),
                rng.randrange(20),
            ]
            return INTEGER_CLASSES[name](rng.choice(few) & top)
        case Primitive():
            if type_ == BOOL:
                return rng.random() < 0.5
            return rng.randbytes(32) if rng.random() < 0.2 else rng.randrange(9).to_bytes(32, "big")
        case VectorType(element):
            size = rng.choice([0, 1, 2, 3, 5, 32, 33])
            if element == U8:
                return bytearray(rng.choice([*_BYTES, rng.randbytes(size), bytes([rng.randrange(3)]) * size]))
            return [random_value(rng, element, pool) for _ in range(min(size, 5))]
        case StructType() if type_ in STRINGS:
            # Both kinds are made of valid text only: a transaction can't give another.
            words = _WORDS if type_ == STRINGS[0] else (*_WORDS[:-1], b"ABCxyz", b"\x00\x7f")
            return [bytearray(rng.choice(words))]
        case StructType() if type_ == ID:
            return [random_value(rng, ADDRESS)]
        case StructType():
            inner = random_value(rng, VectorType(type_.args[0]), pool)
            return [inner[: rng.randrange(2)]]
        case _:
            raise ValueError(f"no plain type: {type_to_string(type_)}")


def make_case(
    rng: random.Random,
    store: CodeStore,
    name: str,
    parameters: Sequence[Type],
    pool: Mapping[Type, Sequence[Value]] | None = None,
) -> Case:
    values = tuple(random_value(rng, value_type(type_), pool) for type_ in parameters)
    encoded = tuple(
        to_bcs(store.layout(value_type(type_)), value)
        for type_, value in zip(parameters, values, strict=True)
    )
    return Case(name, values, encoded)


def run_ours(
    store: CodeStore,
    host: Host,
    function: FunctionDef,
    type_args: Sequence[Type],
    parameters: Sequence[Type],
    values: Sequence[Value],
) -> Result:
    arguments = [
        Ref.to(clone(value)) if isinstance(type_, Reference) else clone(value)
        for type_, value in zip(parameters, values, strict=True)
    ]
    vm = Interpreter(store, host, _STEPS)
    try:
        results = vm.call(function.module, function.name, type_args, arguments)
    except MoveAbort as abort:
        return f"abort {abort.code}"
    except OutOfGas:
        return "out of gas"
    except VmError as error:
        return error.status
    from ..vm import substitute

    closed = [substitute(result, tuple(type_args)) for result in function.results]
    return " ".join(to_bcs(store.layout(t), v).hex() for t, v in zip(closed, results, strict=True))


def run_real(
    function: FunctionDef,
    type_args: Sequence[Type],
    arguments: Sequence[bytes],
    objects: Sequence[Mapping[str, Any]] = (),
    children: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    package: Sequence[bytes] = (),
) -> Result:
    """`package`: modules of the function's own package, where it isn't the framework's."""
    address = address_to_string(function.module.address)
    answer = sui_sandbox.call_view_function(
        address,
        function.module.name,
        function.name,
        type_args=[type_to_string(type_) for type_ in type_args],
        object_inputs=[dict(item) for item in objects],
        pure_inputs=list(arguments),
        child_objects={parent: [dict(item) for item in found] for parent, found in (children or {}).items()},
        package_bytecodes={address: [base64.b64encode(raw).decode() for raw in package]} if package else None,
        fetch_deps=False,
    )
    if answer["success"]:
        return " ".join(base64.b64decode(result).hex() for result in answer["return_values"][0])
    text = str(answer["error"])
    if abort := re.search(r"ABORTED, sub_status: Some\((\d+)\)", text):
        return f"abort {abort[1]}"
    status = re.search(r"ARITHMETIC_ERROR|VECTOR_OPERATION_ERROR|OUT_OF_GAS", text)
    if status is None:
        return text[:300]
    return "out of gas" if status[0] == "OUT_OF_GAS" else status[0]
