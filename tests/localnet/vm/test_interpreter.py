"""How calls end (results, aborts, machine errors, bounds), natives, and code that comes and goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from k3s_daas_localnet.vm import (
    CodeStore,
    Interpreter,
    Module,
    ModuleId,
    MoveAbort,
    OutOfGas,
    PureHost,
    Ref,
    Value,
    VmError,
    derive_id,
    framework_modules,
    parse_address,
    parse_type,
    relocate,
)
from k3s_daas_localnet.vm import opcodes as op
from k3s_daas_localnet.vm.bytecode import Ability
from k3s_daas_localnet.vm.keccak import keccak256
from k3s_daas_localnet.vm.values import U8Value

_Id = Callable[[str, str], ModuleId]
_Publish = Callable[[bytes], tuple[CodeStore, Module]]


def _call(
    store: CodeStore, module: ModuleId, function: str, *args: Value, types: tuple[str, ...] = ()
) -> Any:
    return Interpreter(store, PureHost()).call(module, function, [parse_type(t) for t in types], args)


def test_abort_names_module_function_and_instruction(store: CodeStore, module_id: _Id) -> None:
    option = module_id("0x1", "option")
    with pytest.raises(MoveAbort) as caught:
        _call(store, option, "destroy_some", [[]], types=("u64",))
    abort = caught.value
    module = store.module(option)
    assert module is not None
    function = module.function_defs[abort.function_index]
    assert (abort.module, abort.function_name) == (option, function.name)
    assert function.code[abort.instruction][0] == op.ABORT
    assert abort.code == 0x40001  # EOPTION_NOT_SET
    assert str(abort).startswith(f"MoveAbort({option}::{function.name}")


def test_abort_of_a_native_is_at_its_instruction_0(store: CodeStore, module_id: _Id) -> None:
    with pytest.raises(MoveAbort) as caught:
        _call(store, module_id("0x2", "object"), "id_from_bytes", bytearray(33))
    abort = caught.value
    assert (abort.module, abort.function_name) == (module_id("0x2", "address"), "from_bytes")
    assert (abort.instruction, abort.code) == (0, 0)


def test_arithmetic_error_is_located(store: CodeStore, module_id: _Id) -> None:
    with pytest.raises(VmError) as caught:
        _call(store, module_id("0x1", "u64"), "pow", 3, U8Value(200))
    error = caught.value
    assert (error.status, error.module, error.function_name) == (
        "ARITHMETIC_ERROR",
        module_id("0x1", "u64"),
        "pow",
    )
    assert "overflows u64" in str(error)


@pytest.mark.parametrize(
    ("module", "function", "types", "args", "status"),
    [
        ("u64", "nothing", (), (), "FUNCTION_RESOLUTION_FAILURE"),
        ("u64", "pow", (), (1,), "NUMBER_OF_ARGUMENTS_MISMATCH"),
        ("u64", "pow", ("u8",), (1, U8Value(1)), "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH"),
        ("option", "none", (), (), "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH"),
        ("vector", "contains", ("0x2::nowhere::T",), (1, 2), "TYPE_RESOLUTION_FAILURE"),
        ("bcs", "to_bytes", ("signer",), (1,), None),
    ],
)
def test_calls_are_checked(
    store: CodeStore,
    module_id: _Id,
    module: str,
    function: str,
    types: tuple[str, ...],
    args: tuple[Value, ...],
    status: str | None,
) -> None:
    if status is None:
        encoded = _call(store, module_id("0x1", module), function, Ref.to(bytes(32)), types=types)
        assert encoded == [bytearray(32)]
        return
    with pytest.raises(VmError) as caught:
        _call(store, module_id("0x1", module), function, *args, types=types)
    assert caught.value.status == status


def test_unknown_native_fails_by_name(store: CodeStore, module_id: _Id) -> None:
    with pytest.raises(VmError, match="poseidon_bn254_internal is not implemented"):
        _call(store, module_id("0x2", "poseidon"), "poseidon_bn254", Ref.to([1]))


def test_endless_loop_runs_out_of_steps(assembler: Any, publish: _Publish) -> None:
    assembler.function("spin", [(op.BRANCH, 0)])
    fork, module = publish(assembler.build())
    vm = Interpreter(fork, PureHost(), step_limit=10_000)
    with pytest.raises(OutOfGas, match="more than 10000 steps"):
        vm.call(module.id, "spin", [], [])
    assert 10_000 < vm.steps < 10_010


def test_endless_recursion_is_stopped(assembler: Any, publish: _Publish) -> None:
    handle = assembler.function_handle("deep")
    assembler.function("deep", [(op.CALL, handle), (op.RET,)])
    fork, module = publish(assembler.build())
    with pytest.raises(VmError) as caught:
        _call(fork, module.id, "deep")
    assert caught.value.status == "CALL_STACK_OVERFLOW"


def test_doubling_copies_are_charged_by_size(assembler: Any, publish: _Publish) -> None:
    """A vector that doubles in each round of a loop must exhaust the steps, not the memory."""
    bytes_ = assembler.vector(assembler.vector(assembler.U8))
    inner = assembler.signature(assembler.vector(assembler.U8))
    code = [
        (op.LD_CONST, 0),
        (op.ST_LOC, 0),
        (op.VEC_PACK, inner, 0),
        (op.ST_LOC, 1),
        (op.MUT_BORROW_LOC, 1),
        (op.COPY_LOC, 0),
        (op.VEC_PUSH_BACK, inner),
        (op.BRANCH, 4),
    ]
    assembler.add(0x6, assembler.vector(assembler.U8) + bytes([0xE9, 0x07]) + b"\xe7\x07" + bytes(999))
    assembler.function("grow", code, locals_=[assembler.vector(assembler.U8), bytes_])
    fork, module = publish(assembler.build())
    vm = Interpreter(fork, PureHost(), step_limit=100_000)
    with pytest.raises(OutOfGas):
        vm.call(module.id, "grow", [], [])


@pytest.mark.parametrize(("structs", "fits"), [(5, True), (10, False)])
def test_values_nest_at_most_128_deep(assembler: Any, publish: _Publish, structs: int, fits: bool) -> None:
    """Each struct holds the one before inside twenty vectors."""
    token = assembler.U64
    for number in range(structs):
        for _ in range(20):
            token = assembler.vector(token)
        handle = assembler.datatype(f"S{number}", Ability.COPY | Ability.DROP | Ability.STORE)
        assembler.struct(handle, ("inner", token))
        token = assembler.datatype_token(handle)
    code = [(op.VEC_PACK, assembler.signature(token), 0), (op.RET,)]
    assembler.function("f", code, results=[assembler.vector(token)])
    fork, module = publish(assembler.build())
    if fits:
        assert _call(fork, module.id, "f") == [[]]
        return
    with pytest.raises(VmError) as caught:
        _call(fork, module.id, "f")
    assert caught.value.status == "VM_MAX_VALUE_DEPTH_REACHED"


@pytest.mark.parametrize("shift", [8, 255])
def test_shift_by_the_width_or_more_is_an_error(assembler: Any, publish: _Publish, shift: int) -> None:
    code = [(op.LD_U8, 1), (op.LD_U8, shift), (op.SHL,), (op.RET,)]
    assembler.function("shift", code, results=[assembler.U8])
    fork, module = publish(assembler.build())
    with pytest.raises(VmError, match=f"shift of u8 by {shift}"):
        _call(fork, module.id, "shift")


def test_arguments_stay_apart_when_copied(assembler: Any, publish: _Publish) -> None:
    """CopyLoc makes a value of its own: pushing to the copy leaves the original."""
    vector = assembler.vector(assembler.U64)
    element = assembler.signature(assembler.U64)
    code = [
        (op.COPY_LOC, 0),
        (op.ST_LOC, 1),
        (op.MUT_BORROW_LOC, 1),
        (op.LD_U64, 9),
        (op.VEC_PUSH_BACK, element),
        (op.MOVE_LOC, 0),
        (op.MOVE_LOC, 1),
        (op.RET,),
    ]
    assembler.function("both", code, parameters=[vector], results=[vector, vector], locals_=[vector])
    fork, module = publish(assembler.build())
    assert _call(fork, module.id, "both", [1]) == [[1], [1, 9]]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"a" * 135, "34367dc248bbd832f4e3e69dfaac2f92638bd0bbd18f2912ba4ef454919cf446"),
        (b"a" * 136, "a6c4d403279fe3e0af03729caada8374b5ca54d8065329a3ebcaeb4b60aa386e"),
    ],
)
def test_keccak(data: bytes, digest: str) -> None:
    assert keccak256(data).hex() == digest


def test_hmac_and_hashes(store: CodeStore, module_id: _Id) -> None:
    blake = _call(store, module_id("0x2", "hash"), "blake2b256", Ref.to(bytearray(b"abc")))
    assert blake[0].hex() == "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    # NIST's HMAC-SHA3-256 sample 1
    key, message = bytearray(range(32)), bytearray(b"Sample message for keylen<blocklen")
    mac = _call(store, module_id("0x2", "hmac"), "hmac_sha3_256", Ref.to(key), Ref.to(message))
    assert mac[0].hex() == "4fe8e202c4f058e8dddc23d8c34e467343e23555e24fc2f025d598f558f67205"


def test_ecdsa_takes_only_the_low_s(store: CodeStore, module_id: _Id) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    key = ec.derive_private_key(12345, ec.SECP256K1())
    public = key.public_key()
    r, s = decode_dss_signature(key.sign(b"hello", ec.ECDSA(hashes.SHA256())))
    s = min(s, order - s)
    compressed = bytearray(public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    k1 = module_id("0x2", "ecdsa_k1")

    def verifies(r_: int, s_: int, message: bytes, hash_: int) -> bool:
        signature = bytearray(r_.to_bytes(32, "big") + s_.to_bytes(32, "big"))
        arguments = [Ref.to(signature), Ref.to(compressed), Ref.to(bytearray(message)), U8Value(hash_)]
        return bool(_call(store, k1, "secp256k1_verify", *arguments)[0])

    assert verifies(r, s, b"hello", 1)
    assert not verifies(r, order - s, b"hello", 1)
    assert not verifies(r, s, b"hellO", 1)
    assert not verifies(r, s, b"hello", 0)
    uncompressed = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert _call(store, k1, "decompress_pubkey", Ref.to(compressed)) == [bytearray(uncompressed)]


def test_derived_ids_agree_with_the_context_native(store: CodeStore, module_id: _Id) -> None:
    native = _call(store, module_id("0x2", "tx_context"), "derive_id", bytearray(range(32)), 5)
    assert native == [derive_id(bytes(range(32)), 5)]


def test_a_fork_keeps_its_modules_to_itself_until_committed(store: CodeStore, module_id: _Id) -> None:
    raw = relocate(next(m.raw for m in framework_modules() if m.name == "vec_map"), bytes(31) + b"\x55")
    module = Module.parse(raw)
    base = store.fork()
    fork = base.fork()
    fork.add(module)
    assert _call(fork, module.id, "empty", types=("u8", "u8")) == [[[]]]
    assert base.function(module.id, "empty") is None
    with pytest.raises(VmError):
        _call(base, module.id, "empty", types=("u8", "u8"))
    fork.commit()
    assert _call(base, module.id, "empty", types=("u8", "u8")) == [[[]]]
    assert store.module(module.id) is None
    with pytest.raises(ValueError, match="exists already"):
        base.add(module)


def test_objects_are_out_of_reach_of_pure_calls(store: CodeStore) -> None:
    context = Ref.to([bytes(32), bytearray(32), 0, 0, 0])
    with pytest.raises(VmError) as caught:
        _call(store, ModuleId(parse_address("0x2"), "object"), "new", context)
    assert caught.value.status == "UNSUPPORTED"
