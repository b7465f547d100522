"""The interpreter against the real Move VM on every pure public function of the framework."""

from __future__ import annotations

import base64
import random
import re

import pytest
import sui_sandbox

from k3s_daas_localnet.vm import (
    CodeStore,
    FunctionDef,
    Interpreter,
    ModuleId,
    MoveAbort,
    Primitive,
    PureHost,
    Ref,
    Reference,
    StructType,
    Type,
    Value,
    VectorType,
    Visibility,
    VmError,
    framework_modules,
    parse_address,
    struct,
    to_bcs,
)
from k3s_daas_localnet.vm.types import ADDRESS, BOOL, INTEGERS, U8
from k3s_daas_localnet.vm.values import INTEGER_CLASSES

_CASES = 6
_STRINGS = (struct("0x1", "string", "String"), struct("0x1", "ascii", "String"))
# Natives we do not have; a call of them fails by name (see test_interpreter).
_WITHOUT_NATIVES = {
    "bls12381",
    "debug",
    "ecvrf",
    "groth16",
    "group_ops",
    "nitro_attestation",
    "poseidon",
    "vdf",
    "zklogin_verified_id",
    "zklogin_verified_issuer",
}
# The sandbox mocks the native address::from_bytes; its mock aborts with 1 where Sui's native aborts with 0.
_MOCKED_BY_THE_SANDBOX = {"object::id_from_bytes"}


def _is_pure(type_: Type) -> bool:
    match type_:
        case Primitive():
            return type_ in INTEGERS or type_ in (BOOL, ADDRESS)
        case VectorType(inner) | Reference(False, inner):
            return _is_pure(inner)
        case StructType():
            return type_ in _STRINGS
        case _:
            return False


def _pure_functions() -> dict[ModuleId, list[FunctionDef]]:
    found: dict[ModuleId, list[FunctionDef]] = {}
    for module in framework_modules():
        if module.address == parse_address("0x3") or module.name in _WITHOUT_NATIVES:
            continue
        for function in module.function_defs:
            if (
                function.visibility == Visibility.PUBLIC
                and not function.is_native
                and not function.type_parameters
                and all(map(_is_pure, function.parameters))
                and not any(isinstance(result, Reference) for result in function.results)
            ):
                found.setdefault(module.id, []).append(function)
    return found


_FUNCTIONS = _pure_functions()


def _random_value(rng: random.Random, type_: Type) -> Value:
    match type_:
        case Primitive(name) if type_ in INTEGERS:
            bits = int(name[1:])
            interesting = [0, 1, 2, 3, 7, (1 << bits) - 1, rng.getrandbits(bits), rng.getrandbits(bits // 2)]
            return INTEGER_CLASSES[name](rng.choice([*interesting, rng.randrange(20)]))
        case Primitive():
            if type_ == BOOL:
                return rng.random() < 0.5
            return rng.randbytes(32) if rng.random() < 0.7 else rng.randrange(9).to_bytes(32, "big")
        case VectorType(element):
            size = rng.choice([0, 1, 2, 5, 32, 33])
            if element == U8:
                return bytearray(rng.choice([b"hello world", rng.randbytes(size), "žluť".encode(), b"12345"]))
            return [_random_value(rng, element) for _ in range(min(size, 5))]
        case Reference(_, target):
            return _random_value(rng, target)
        case _:
            return [bytearray(rng.choice([b"", b"abc", b"hello", b"lo", b"hello world"]))]


def _normal_error(text: str) -> str:
    if abort := re.search(r"ABORTED, sub_status: Some\((\d+)\)", text):
        return f"abort {abort[1]}"
    status = re.search(r"ARITHMETIC_ERROR|VECTOR_OPERATION_ERROR", text)
    return status[0] if status else text[:300]


def _real(function: FunctionDef, arguments: list[bytes]) -> str:
    answer = sui_sandbox.call_view_function(
        "0x" + function.module.address.hex(),
        function.module.name,
        function.name,
        pure_inputs=arguments,
        fetch_deps=False,
    )
    if not answer["success"]:
        return _normal_error(answer["error"])
    return " ".join(base64.b64decode(result).hex() for result in answer["return_values"][0])


def _ours(store: CodeStore, function: FunctionDef, values: list[Value]) -> str:
    arguments = [
        Ref.to(value) if isinstance(type_, Reference) else value
        for type_, value in zip(function.parameters, values, strict=True)
    ]
    try:
        results = Interpreter(store, PureHost()).call(function.module, function.name, [], arguments)
    except MoveAbort as abort:
        return f"abort {abort.code}"
    except VmError as error:
        return error.status
    return " ".join(
        to_bcs(store.layout(type_), value).hex()
        for type_, value in zip(function.results, results, strict=True)
    )


@pytest.mark.parametrize(
    "module", sorted(_FUNCTIONS), ids=lambda module: f"{module.address[-1]}::{module.name}"
)
def test_same_results_as_the_real_vm(store: CodeStore, module: ModuleId) -> None:
    rng = random.Random(str(module))  # noqa: S311 - reproducible inputs, nothing secret
    different = []
    for function in _FUNCTIONS[module]:
        name = f"{module.name}::{function.name}"
        if name in _MOCKED_BY_THE_SANDBOX:
            continue
        for _ in range(_CASES if function.parameters else 1):
            values = [_random_value(rng, type_) for type_ in function.parameters]
            arguments = [
                to_bcs(store.layout(t.target if isinstance(t, Reference) else t), value)
                for t, value in zip(function.parameters, values, strict=True)
            ]
            real, ours = _real(function, arguments), _ours(store, function, values)
            if real != ours:
                different.append((name, [a.hex() for a in arguments], f"real {real}", f"ours {ours}"))
    assert different == []


def test_the_comparison_is_of_many_functions() -> None:
    assert sum(map(len, _FUNCTIONS.values())) > 100
