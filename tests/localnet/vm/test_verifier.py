"""The verifier: the framework passes; each rule refuses what breaks it, and so does the real VM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from k3s_daas_localnet.vm import (
    CodeStore,
    Module,
    VerificationError,
    framework_modules,
    order_by_dependencies,
    parse_address,
)
from k3s_daas_localnet.vm import opcodes as op
from k3s_daas_localnet.vm.bytecode import Ability
from k3s_daas_localnet.vm.verifier import verify_module

_SUI = parse_address("0x2")
_ALL = Ability.COPY | Ability.DROP | Ability.STORE
_Loads = Callable[[Sequence[bytes], str, str, int], bool]
_Build = Callable[[Any], None]


@pytest.mark.parametrize("module", framework_modules(), ids=lambda m: f"{m.address[-1]}::{m.name}")
def test_the_framework_passes(store: CodeStore, module: Module) -> None:
    verify_module(module, store.module)


def _resource(a: Any) -> tuple[int, bytes]:
    """A struct without abilities: (definition, type token)."""
    handle = a.datatype("Resource")
    return a.struct(handle, ("value", a.U64)), a.datatype_token(handle)


def _code(*code: tuple[int, ...], **signature: Any) -> _Build:
    """A module with one function `f`; signature values may be made by functions of the assembler."""

    def build(a: Any) -> None:
        resolved = {k: [t(a) if callable(t) else t for t in v] for k, v in signature.items()}
        a.function("f", code, **resolved)

    return build


def _u64(a: Any) -> bytes:
    return bytes(a.U64)


def _bool(a: Any) -> bytes:
    return bytes(a.BOOL)


def _mut_u64(a: Any) -> bytes:
    return bytes(a.mut(a.U64))


def _ref_u64(a: Any) -> bytes:
    return bytes(a.ref(a.U64))


def _resource_copied(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.COPY_LOC, 0), (op.MOVE_LOC, 0), (op.RET,)], [token], [token, token])


def _resource_dropped(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.MOVE_LOC, 0), (op.POP,), (op.RET,)], [token])


def _resource_forgotten(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.RET,)], [token])


def _resource_overwritten(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.MOVE_LOC, 1), (op.ST_LOC, 0), (op.MOVE_LOC, 0), (op.RET,)], [token, token], [token])


def _resource_overwritten_by_reference(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.MOVE_LOC, 1), (op.MOVE_LOC, 0), (op.WRITE_REF,), (op.RET,)], [a.mut(token), token])


def _one_reference_twice(a: Any) -> None:
    taker = a.function_handle("take", [a.mut(a.U64), a.mut(a.U64)])
    a.function("take", [(op.RET,)], [a.mut(a.U64), a.mut(a.U64)])
    a.function("f", [(op.COPY_LOC, 0), (op.MOVE_LOC, 0), (op.CALL, taker), (op.RET,)], [a.mut(a.U64)])


def _field_of_a_borrowed_reference(a: Any) -> None:
    """A field's reference and the whole struct's, both mutable, given to one call."""
    handle = a.datatype("Pair", _ALL)
    definition = a.struct(handle, ("a", a.U64))
    token = a.datatype_token(handle)
    field = a.add(0xD, bytes([definition, 0]))
    taker = a.function_handle("take", [a.mut(token), a.mut(a.U64)])
    a.function("take", [(op.RET,)], [a.mut(token), a.mut(a.U64)])
    a.function(
        "f",
        [(op.COPY_LOC, 0), (op.MOVE_LOC, 0), (op.MUT_BORROW_FIELD, field), (op.CALL, taker), (op.RET,)],
        [a.mut(token)],
    )


def _element_outlives_vector(a: Any) -> None:
    """Push to a vector while a reference to one of its elements lives."""
    signature = a.signature(a.U64)
    code = [
        (op.COPY_LOC, 0),
        (op.LD_U64, 0),
        (op.VEC_MUT_BORROW, signature),
        (op.ST_LOC, 1),
        (op.MOVE_LOC, 0),
        (op.LD_U64, 1),
        (op.VEC_PUSH_BACK, signature),
        (op.LD_U64, 2),
        (op.MOVE_LOC, 1),
        (op.WRITE_REF,),
        (op.RET,),
    ]
    a.function("f", code, [a.mut(a.vector(a.U64))], locals_=[a.mut(a.U64)])


def _borrow_over_a_join(a: Any) -> None:
    """On one of two ways into a block the local is borrowed; there it is moved."""
    vector = a.vector(a.U64)
    code = [
        (op.MOVE_LOC, 0),
        (op.BR_FALSE, 5),
        (op.IMM_BORROW_LOC, 1),
        (op.ST_LOC, 3),
        (op.BRANCH, 7),
        (op.IMM_BORROW_LOC, 2),
        (op.ST_LOC, 3),
        (op.MOVE_LOC, 2),
        (op.POP,),
        (op.MOVE_LOC, 3),
        (op.POP,),
        (op.RET,),
    ]
    a.function("f", code, [a.BOOL, vector, vector], locals_=[a.ref(vector)])


def _uninitialised_on_one_way(a: Any) -> None:
    code = [(op.MOVE_LOC, 0), (op.BR_FALSE, 4), (op.LD_U64, 1), (op.ST_LOC, 1), (op.MOVE_LOC, 1), (op.RET,)]
    a.function("f", code, [a.BOOL], [a.U64], [a.U64])


def _recursive_struct(a: Any) -> None:
    handle = a.datatype("Node", _ALL)
    a.struct(handle, ("next", a.vector(a.datatype_token(handle))))
    a.function("f", [(op.RET,)])


def _empty_struct(a: Any) -> None:
    a.struct(a.datatype("Empty", _ALL))
    a.function("f", [(op.RET,)])


def _copy_struct_of_resource(a: Any) -> None:
    _, token = _resource(a)
    a.struct(a.datatype("Holder", _ALL), ("inner", token))
    a.function("f", [(op.RET,)])


def _reference_in_field(a: Any) -> None:
    a.struct(a.datatype("Holder", Ability.DROP), ("inner", a.ref(a.U64)))
    a.function("f", [(op.RET,)])


def _phantom_used(a: Any) -> None:
    a.struct(a.datatype("Holder", 0, [(0, True)]), ("inner", a.type_parameter(0)))
    a.function("f", [(op.RET,)])


def _constraint_broken(a: Any) -> None:
    _, token = _resource(a)
    handle = a.datatype("Holder", 0, [(Ability.COPY, False)])
    a.struct(handle, ("inner", a.type_parameter(0)))
    a.function("f", [(op.LD_U64, 0), (op.ABORT,)], [a.datatype_token(handle, token)])


def _growing_types(a: Any) -> None:
    parameter = a.type_parameter(0)
    handle = a.function_handle("f", type_parameters=[0])
    instance = a.add(0x4, bytes([handle, a.signature(a.vector(parameter))]))
    a.function("f", [(op.CALL_GENERIC, instance), (op.RET,)], type_parameters=[0])


def _duplicate_identifier(a: Any) -> None:
    a.function("f", [(op.RET,)])
    a.add_again(0x7, b"\x01f")


def _wrong_constant(a: Any) -> None:
    a.add(0x6, bytes(a.U64) + b"\x03\x01\x02\x03")
    a.function("f", [(op.RET,)])


def _private_function_of_another(a: Any) -> None:
    module = a.module(_SUI, "hex")
    handle = a.function_handle("decode_byte", [a.U8], [a.U8], module=module)
    a.function("f", [(op.LD_U8, 1), (op.CALL, handle), (op.POP,), (op.RET,)])


def _wrong_signature_of_another(a: Any) -> None:
    module = a.module(_SUI, "hex")
    handle = a.function_handle("encode", [a.U64], [a.U64], module=module)
    a.function("f", [(op.LD_U64, 1), (op.CALL, handle), (op.POP,), (op.RET,)])


def _abilities_of_another_exaggerated(a: Any) -> None:
    module = a.module(_SUI, "object")
    token = a.datatype_token(a.datatype("UID", _ALL, module=module))
    a.function("f", [(op.RET,)], [token])


def _missing_module(a: Any) -> None:
    handle = a.function_handle("nothing", module=a.module(_SUI, "nowhere"))
    a.function("f", [(op.CALL, handle), (op.RET,)])


def _two_entrances_to_a_loop(a: Any) -> None:
    code = [
        (op.COPY_LOC, 0),
        (op.BR_TRUE, 4),
        (op.COPY_LOC, 0),
        (op.BR_TRUE, 6),
        (op.COPY_LOC, 0),
        (op.BR_TRUE, 2),
        (op.COPY_LOC, 0),
        (op.BR_TRUE, 4),
        (op.RET,),
    ]
    a.function("f", code, [a.BOOL])


def _handle_without_definition(a: Any) -> None:
    handle = a.function_handle("ghost")
    a.function("f", [(op.CALL, handle), (op.RET,)])


_LOOP_DEPTH = 7


def _deep_loops(a: Any) -> None:
    code: list[tuple[int, ...]] = [(op.NOP,)] * _LOOP_DEPTH
    for depth in range(_LOOP_DEPTH):
        code += [(op.COPY_LOC, 0), (op.BR_TRUE, _LOOP_DEPTH - 1 - depth)]
    a.function("f", [*code, (op.RET,)], [a.BOOL])


_MOVE_RULES: dict[str, tuple[str, _Build]] = {
    "takes from an empty stack": ("NEGATIVE_STACK_SIZE_WITHIN_BLOCK", _code((op.POP,), (op.RET,))),
    "leaves a value": ("POSITIVE_STACK_SIZE_AT_BLOCK_END", _code((op.LD_U64, 1), (op.RET,))),
    "runs off its end": ("INVALID_FALL_THROUGH", _code((op.NOP,))),
    "has no code": ("EMPTY_CODE_UNIT", _code()),
    "jumps nowhere": ("INDEX_OUT_OF_BOUNDS", _code((op.BRANCH, 9))),
    "names no such local": ("INDEX_OUT_OF_BOUNDS", _code((op.COPY_LOC, 0), (op.POP,), (op.RET,))),
    "calls no such function": ("INDEX_OUT_OF_BOUNDS", _code((op.CALL, 9), (op.RET,))),
    "adds a bool": (
        "INTEGER_OP_TYPE_MISMATCH_ERROR",
        _code((op.LD_U64, 1), (op.LD_TRUE,), (op.ADD,), (op.POP,), (op.RET,)),
    ),
    "adds other widths": (
        "INTEGER_OP_TYPE_MISMATCH_ERROR",
        _code((op.LD_U64, 1), (op.LD_U8, 1), (op.ADD,), (op.POP,), (op.RET,)),
    ),
    "returns another type": ("RET_TYPE_MISMATCH_ERROR", _code((op.LD_TRUE,), (op.RET,), results=[_u64])),
    "branches on a number": ("BR_TYPE_MISMATCH_ERROR", _code((op.LD_U64, 1), (op.BR_TRUE, 0), (op.RET,))),
    "aborts with a bool": ("ABORT_TYPE_MISMATCH_ERROR", _code((op.LD_TRUE,), (op.ABORT,))),
    "reads an unset local": (
        "MOVELOC_UNAVAILABLE_ERROR",
        _code((op.MOVE_LOC, 0), (op.POP,), (op.RET,), locals_=[_u64]),
    ),
    "uses a moved local": (
        "COPYLOC_UNAVAILABLE_ERROR",
        _code((op.MOVE_LOC, 0), (op.POP,), (op.COPY_LOC, 0), (op.POP,), (op.RET,), parameters=[_u64]),
    ),
    "reads a local unset on one way": ("MOVELOC_UNAVAILABLE_ERROR", _uninitialised_on_one_way),
    "writes through an immutable reference": (
        "WRITEREF_TYPE_MISMATCH_ERROR",
        _code((op.LD_U64, 1), (op.MOVE_LOC, 0), (op.WRITE_REF,), (op.RET,), parameters=[_ref_u64]),
    ),
    "returns a reference to its local": (
        "UNSAFE_RET_LOCAL_OR_RESOURCE_STILL_BORROWED",
        _code((op.IMM_BORROW_LOC, 0), (op.RET,), parameters=[_u64], results=[_ref_u64]),
    ),
    "moves a borrowed local": (
        "MOVELOC_EXISTS_BORROW_ERROR",
        _code(
            (op.IMM_BORROW_LOC, 0),
            (op.MOVE_LOC, 0),
            (op.POP,),
            (op.READ_REF,),
            (op.RET,),
            parameters=[_u64],
            results=[_u64],
        ),
    ),
    "overwrites a borrowed local": (
        "STLOC_UNSAFE_TO_DESTROY_ERROR",
        _code(
            (op.IMM_BORROW_LOC, 0),
            (op.LD_U64, 1),
            (op.ST_LOC, 0),
            (op.READ_REF,),
            (op.RET,),
            parameters=[_u64],
            results=[_u64],
        ),
    ),
    "writes what is borrowed": (
        "WRITEREF_EXISTS_BORROW_ERROR",
        _code(
            (op.COPY_LOC, 0),
            (op.LD_U64, 1),
            (op.MOVE_LOC, 0),
            (op.WRITE_REF,),
            (op.READ_REF,),
            (op.RET,),
            parameters=[_mut_u64],
            results=[_u64],
        ),
    ),
    "returns a mutable reference twice": (
        "RET_BORROWED_MUTABLE_REFERENCE_ERROR",
        _code(
            (op.COPY_LOC, 0),
            (op.MOVE_LOC, 0),
            (op.RET,),
            parameters=[_mut_u64],
            results=[_mut_u64, _mut_u64],
        ),
    ),
    "gives aliases to a call": ("CALL_BORROWED_MUTABLE_REFERENCE_ERROR", _one_reference_twice),
    "borrows a field of what is borrowed": (
        "FIELD_EXISTS_MUTABLE_BORROW_ERROR",
        _field_of_a_borrowed_reference,
    ),
    "pushes under a reference to an element": (
        "VEC_UPDATE_EXISTS_MUTABLE_BORROW_ERROR",
        _element_outlives_vector,
    ),
    "moves what is borrowed on one way": ("MOVELOC_EXISTS_BORROW_ERROR", _borrow_over_a_join),
    "copies a resource": ("COPYLOC_WITHOUT_COPY_ABILITY", _resource_copied),
    "drops a resource": ("POP_WITHOUT_DROP_ABILITY", _resource_dropped),
    "forgets a resource": ("UNSAFE_RET_UNUSED_VALUES_WITHOUT_DROP", _resource_forgotten),
    "overwrites a resource": ("STLOC_UNSAFE_TO_DESTROY_ERROR", _resource_overwritten),
    "overwrites a resource by reference": (
        "WRITEREF_WITHOUT_DROP_ABILITY",
        _resource_overwritten_by_reference,
    ),
    "recursive struct": ("RECURSIVE_DATATYPE_DEFINITION", _recursive_struct),
    "struct without fields": ("ZERO_SIZED_STRUCT", _empty_struct),
    "copyable struct around a resource": ("FIELD_MISSING_TYPE_ABILITY", _copy_struct_of_resource),
    "reference in a field": ("INVALID_SIGNATURE_TOKEN", _reference_in_field),
    "phantom parameter in a field": ("INVALID_PHANTOM_TYPE_PARAM_POSITION", _phantom_used),
    "type argument without the ability": ("CONSTRAINT_NOT_SATISFIED", _constraint_broken),
    "type arguments that grow": ("LOOP_IN_INSTANTIATION_GRAPH", _growing_types),
    "identifier twice": ("DUPLICATE_ELEMENT", _duplicate_identifier),
    "constant of the wrong size": ("MALFORMED_CONSTANT_DATA", _wrong_constant),
    "function that is not defined": ("UNIMPLEMENTED_HANDLE", _handle_without_definition),
    "private function of another module": ("LOOKUP_FAILED", _private_function_of_another),
    "other signature than the function has": ("TYPE_MISMATCH", _wrong_signature_of_another),
    "more abilities than the type has": ("TYPE_MISMATCH", _abilities_of_another_exaggerated),
    "module that does not exist": ("MISSING_DEPENDENCY", _missing_module),
    "loop with two entrances": ("INVALID_LOOP_SPLIT", _two_entrances_to_a_loop),
}


@pytest.mark.parametrize("rule", _MOVE_RULES)
def test_rules_of_move(store: CodeStore, assembler: Any, real_vm_loads: _Loads, rule: str) -> None:
    code, build = _MOVE_RULES[rule]
    build(assembler)
    assembler.function(
        "probe", [(op.RET,)]
    )  # the real VM verifies a module when one of its functions is called
    raw = assembler.build()
    with pytest.raises(VerificationError) as caught:
        verify_module(Module.parse(raw), store.module)
    assert caught.value.code == code
    assert not real_vm_loads([raw], "m", "probe", 0)


def test_loops_are_nested_at_most_five_deep(store: CodeStore, assembler: Any) -> None:
    """A limit of Sui's protocol config, which the sandbox does not set."""
    _deep_loops(assembler)
    with pytest.raises(VerificationError) as caught:
        verify_module(Module.parse(assembler.build()), store.module)
    assert caught.value.code == "LOOP_MAX_DEPTH_REACHED"


def test_borrowing_made_to_be_slow_is_refused(store: CodeStore, assembler: Any) -> None:
    """Each of 100 results may borrow from each of 100 arguments, again and again."""
    references = [assembler.ref(assembler.U64)] * 100
    mix = assembler.function_handle("mix", references, references)
    assembler.function("mix", [(op.LD_U64, 1), (op.ABORT,)], references, references)
    code = [(op.COPY_LOC, 0)] * 100 + [(op.CALL, mix)] * 50 + [(op.POP,)] * 100
    assembler.function("f", [*code, (op.RET,)], [assembler.ref(assembler.U64)])
    with pytest.raises(VerificationError) as caught:
        verify_module(Module.parse(assembler.build()), store.module)
    assert caught.value.code == "PROGRAM_TOO_COMPLEX"


def _well_formed(a: Any) -> None:
    """One of most things, all right."""
    handle = a.datatype("Pair", _ALL, [(0, False)])
    definition = a.struct(handle, ("first", a.type_parameter(0)), ("second", a.U64))
    arguments = a.signature(a.U64)
    instance = a.add(0xB, bytes([definition, arguments]))
    field = a.add(0xE, bytes([a.add(0xD, bytes([definition, 1])), arguments]))
    code = [
        (op.MOVE_LOC, 0),
        (op.LD_U64, 5),
        (op.PACK_GENERIC, instance),
        (op.ST_LOC, 1),
        (op.IMM_BORROW_LOC, 1),
        (op.IMM_BORROW_FIELD_GENERIC, field),
        (op.READ_REF,),
        (op.COPY_LOC, 1),
        (op.UNPACK_GENERIC, instance),
        (op.POP,),
        (op.ADD,),
        (op.RET,),
    ]
    a.function("f", code, [a.U64], [a.U64], [a.datatype_token(handle, a.U64)])


def test_the_assembler_makes_good_modules_too(
    assembler: Any, publish: Callable[[bytes], tuple[CodeStore, Module]], real_vm_loads: _Loads
) -> None:
    from k3s_daas_localnet.vm import Interpreter, PureHost

    _well_formed(assembler)
    assembler.function("probe", [(op.RET,)])
    raw = assembler.build()
    fork, module = publish(raw)
    assert Interpreter(fork, PureHost()).call(module.id, "f", [], [7]) == [12]
    assert real_vm_loads([raw], "m", "probe", 0)


# ---- Sui's rules; the sandbox does not check these, as it publishes nothing


def _uid(a: Any) -> bytes:
    return bytes(a.datatype_token(a.datatype("UID", Ability.STORE, module=a.module(_SUI, "object"))))


def _context(a: Any) -> bytes:
    return bytes(a.datatype_token(a.datatype("TxContext", Ability.DROP, module=a.module(_SUI, "tx_context"))))


def _object(a: Any) -> tuple[int, bytes]:
    handle = a.datatype("Thing", Ability.KEY | Ability.STORE)
    return a.struct(handle, ("id", _uid(a))), a.datatype_token(handle)


def _key_without_uid(a: Any) -> None:
    a.struct(a.datatype("Thing", Ability.KEY), ("id", a.ADDRESS))


def _key_with_uid_second(a: Any) -> None:
    a.struct(a.datatype("Thing", Ability.KEY), ("name", a.U64), ("id", _uid(a)))


def _reused_uid(a: Any) -> None:
    definition, token = _object(a)
    code = [(op.MOVE_LOC, 0), (op.UNPACK, definition), (op.PACK, definition), (op.RET,)]
    a.function("again", code, [token], [token])


def _given_uid(a: Any) -> None:
    definition, token = _object(a)
    a.function("make", [(op.MOVE_LOC, 0), (op.PACK, definition), (op.RET,)], [_uid(a)], [token])


def _fresh_on_one_way_only(a: Any) -> None:
    definition, token = _object(a)
    maker = a.function_handle("new", [a.mut(_context(a))], [_uid(a)], module=a.module(_SUI, "object"))
    code = [
        (op.MOVE_LOC, 0),
        (op.BR_FALSE, 7),
        (op.MOVE_LOC, 2),
        (op.CALL, maker),
        (op.ST_LOC, 3),
        (op.NOP,),
        (op.BRANCH, 9),
        (op.LD_U64, 1),
        (op.ABORT,),
        (op.MOVE_LOC, 1),
        (op.PACK, definition),
        (op.MOVE_LOC, 3),
        (op.PACK, definition),
        (op.RET,),
    ]
    a.function("make", code, [a.BOOL, _uid(a), a.mut(_context(a))], [token, token], [_uid(a)])


def _foreign_transfer(a: Any) -> None:
    coin = a.datatype_token(
        a.datatype("Coin", Ability.KEY | Ability.STORE, [(0, True)], module=a.module(_SUI, "coin")), a.U64
    )
    transfer = a.function_handle(
        "transfer",
        [a.type_parameter(0), a.ADDRESS],
        type_parameters=[Ability.KEY],
        module=a.module(_SUI, "transfer"),
    )
    instance = a.add(0x4, bytes([transfer, a.signature(coin)]))
    code = [(op.MOVE_LOC, 0), (op.MOVE_LOC, 1), (op.CALL_GENERIC, instance), (op.RET,)]
    a.function("give", code, [coin, a.ADDRESS])


def _foreign_event(a: Any) -> None:
    emit = a.function_handle(
        "emit",
        [a.type_parameter(0)],
        type_parameters=[Ability.COPY | Ability.DROP],
        module=a.module(_SUI, "event"),
    )
    instance = a.add(0x4, bytes([emit, a.signature(a.U64)]))
    a.function("shout", [(op.LD_U64, 1), (op.CALL_GENERIC, instance), (op.RET,)])


def _public_init(a: Any) -> None:
    a.function("init", [(op.RET,)], [a.mut(_context(a))])


def _init_without_context(a: Any) -> None:
    a.function("init", [(op.RET,)], [a.U64], visibility=0)


def _init_called(a: Any) -> None:
    handle = a.function("init", [(op.RET,)], [a.mut(_context(a))], visibility=0)
    a.function("f", [(op.MOVE_LOC, 0), (op.CALL, handle), (op.RET,)], [a.mut(_context(a))])


def _witness_that_can_be_copied(a: Any) -> None:
    a.struct(a.datatype("M", Ability.COPY | Ability.DROP), ("dummy_field", a.BOOL))


def _witness_made_by_hand(a: Any) -> None:
    handle = a.datatype("M", Ability.DROP)
    definition = a.struct(handle, ("dummy_field", a.BOOL))
    code = [(op.LD_TRUE,), (op.PACK, definition), (op.RET,)]
    a.function("fake", code, results=[a.datatype_token(handle)])


def _init_without_its_witness(a: Any) -> None:
    a.struct(a.datatype("M", Ability.DROP), ("dummy_field", a.BOOL))
    a.function("init", [(op.RET,)], [a.mut(_context(a))], visibility=0)


def _init_with_a_false_witness(a: Any) -> None:
    a.function("init", [(op.RET,)], [a.U64, a.mut(_context(a))], visibility=0)


def _entry_returns_a_resource(a: Any) -> None:
    _, token = _resource(a)
    a.function("f", [(op.LD_U64, 1), (op.ABORT,)], results=[token], entry=True)


def _entry_takes_a_struct(a: Any) -> None:
    handle = a.datatype("Plain", _ALL)
    a.struct(handle, ("value", a.U64))
    a.function("f", [(op.RET,)], [a.datatype_token(handle)], entry=True)


def _entry_takes_a_mutable_clock(a: Any) -> None:
    clock = a.datatype_token(a.datatype("Clock", Ability.KEY, module=a.module(_SUI, "clock")))
    a.function("f", [(op.RET,)], [a.mut(clock)], entry=True)


_SUI_RULES: dict[str, tuple[str, _Build]] = {
    "key without UID": ("must be `id: sui::object::UID`", _key_without_uid),
    "key with UID in second place": ("must be `id: sui::object::UID`", _key_with_uid_second),
    "UID of another object": ("without a UID fresh", _reused_uid),
    "UID from outside": ("without a UID fresh", _given_uid),
    "UID fresh beside one that is not": ("without a UID fresh", _fresh_on_one_way_only),
    "transfer of a foreign type": ("there is public_transfer", _foreign_transfer),
    "event of a foreign type": ("takes only types of this module", _foreign_event),
    "public init": ("must be private", _public_init),
    "init without context": ("the last of them &mut TxContext", _init_without_context),
    "init called": ("init cannot be called", _init_called),
    "witness that can be copied": ("has drop only", _witness_that_can_be_copied),
    "witness made by hand": ("makes an instance of one-time witness", _witness_made_by_hand),
    "init without its witness": ("as its first parameter", _init_without_its_witness),
    "init with a false witness": ("there is no one-time witness", _init_with_a_false_witness),
    "entry returns a resource": ("cannot return", _entry_returns_a_resource),
    "entry takes a plain struct": ("cannot take", _entry_takes_a_struct),
    "entry takes a mutable Clock": ("by immutable reference", _entry_takes_a_mutable_clock),
}


@pytest.mark.parametrize("rule", _SUI_RULES)
def test_rules_of_sui(store: CodeStore, assembler: Any, rule: str) -> None:
    message, build = _SUI_RULES[rule]
    build(assembler)
    with pytest.raises(VerificationError, match=message) as caught:
        verify_module(Module.parse(assembler.build()), store.module)
    assert caught.value.code == "SUI_MOVE_VERIFICATION_ERROR"


def test_modules_are_ordered_for_publishing() -> None:
    modules = framework_modules()
    seen: set[object] = set()
    for module in order_by_dependencies(reversed(modules)):
        assert set(module.dependencies()) <= seen
        seen.add(module.id)
    with pytest.raises(VerificationError, match="twice"):
        order_by_dependencies([modules[0], Module.parse(modules[0].raw)])
