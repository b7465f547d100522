"""The native functions of 0x1 and 0x2.

A native takes the interpreter, the closed type arguments and the arguments, and gives its results. What is
absent from `NATIVES` fails by name when called: pairings, VRF, zkLogin, Groth16, Poseidon, VDF, party objects
and the funds accumulator, none of which an ordinary contract needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import crypto_natives as _registers_its_natives  # noqa: F401
from .errors import NativeAbort, VmError
from .native_table import HASH_BLOCK, NATIVES, blake2b256, native
from .types import BOOL, U8, Primitive, StructType, Type, VectorType, encode_type
from .values import Ref, U8Value, U256Value, Value, object_id, to_bcs

if TYPE_CHECKING:
    from .interpreter import Interpreter

__all__ = ["NATIVES", "blake2b256", "derive_id", "dynamic_field_id"]

# Abort codes of the framework's own natives.
_FIELD_EXISTS = 0
_FIELD_MISSING = 1
_FIELD_OTHER_TYPE = 2
_ADDRESS_PARSE = 0
_NOT_A_DATATYPE = 0
_VECTOR_INDEX, _VECTOR_EMPTY, _VECTOR_NOT_EMPTY = 1, 2, 3

# Leading bytes of hashed ids (Sui's HashingIntentScope).
_CHILD_OBJECT_ID = b"\xf0"
_REGULAR_OBJECT_ID = b"\xf1"


def derive_id(transaction_digest: bytes, number: int) -> bytes:
    """The id of the number-th object a transaction makes."""
    return blake2b256(_REGULAR_OBJECT_ID + transaction_digest + number.to_bytes(8, "little"))


def dynamic_field_id(parent: bytes, key_type: Type, key: bytes) -> bytes:
    """The id of a dynamic field's object: parent, type of its key, BCS of its key."""
    return blake2b256(
        _CHILD_OBJECT_ID + parent + len(key).to_bytes(8, "little") + key + encode_type(key_type)
    )


# ---- 0x1


@native("0x1", "bcs", "to_bytes")
def _bcs_to_bytes(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    out = bytearray()
    vm.code.layout(types[0]).encode(args[0].get(), out)
    vm.charge(len(out) // HASH_BLOCK)
    return [out]


@native("0x1", "string", "internal_check_utf8")
def _check_utf8(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    data = args[0].get()
    vm.charge(len(data) // HASH_BLOCK)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return [False]
    return [True]


def _is_char_boundary(data: bytearray, index: int) -> bool:
    return index in (0, len(data)) or (index < len(data) and data[index] & 0xC0 != 0x80)


@native("0x1", "string", "internal_is_char_boundary")
def _char_boundary(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [_is_char_boundary(args[0].get(), args[1])]


@native("0x1", "string", "internal_sub_string")
def _sub_string(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    data, start, end = args[0].get(), args[1], args[2]
    if start > end or end > len(data):
        raise NativeAbort(1)
    vm.charge((end - start) // HASH_BLOCK)
    return [data[start:end]]


@native("0x1", "string", "internal_index_of")
def _index_of(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    data = args[0].get()
    vm.charge(len(data) // HASH_BLOCK)
    found = data.find(args[1].get())
    return [len(data) if found < 0 else found]


def _bare_type_name(type_: Type, package: Callable[[bytes], bytes]) -> str:
    """As `std::type_name` writes it: 64 hex digits, no 0x. `package` says which id of it to write."""
    match type_:
        case StructType(address, module, name, args):
            tail = f"<{','.join([_bare_type_name(item, package) for item in args])}>" if args else ""
            return f"{package(address).hex()}::{module}::{name}{tail}"
        case VectorType(element):
            return f"vector<{_bare_type_name(element, package)}>"
        case Primitive(name):
            return name
        case _:
            raise VmError("TYPE_RESOLUTION_FAILURE", "a type name of an open type")


def _type_name(name: str, address: str, package: Callable[[Interpreter, bytes], bytes]) -> None:
    """The two natives for one kind of id: the type's name, and the address in it."""

    @native("0x1", "type_name", name)
    def _(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
        text = _bare_type_name(types[0], lambda found: package(vm, found))
        return [[[bytearray(text.encode())]]]  # TypeName { name: ascii::String { bytes } }

    @native("0x1", "type_name", address)
    def _(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
        type_ = types[0]
        if not isinstance(type_, StructType):
            raise NativeAbort(_NOT_A_DATATYPE)
        return [package(vm, type_.address)]


_type_name("with_defining_ids", "defining_id", lambda vm, package: package)
_type_name("with_original_ids", "original_id", lambda vm, package: vm.code.original_id(package))


@native("0x1", "debug", "print", "print_stack_trace")
def _debug(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return []


# The compiler makes instructions of these; only who calls them by hand gets here.


@native("0x1", "vector", "empty")
def _vector_empty(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [bytearray() if types[0] == U8 else []]


@native("0x1", "vector", "length")
def _vector_length(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [len(args[0].get())]


@native("0x1", "vector", "borrow", "borrow_mut")
def _vector_borrow(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vector, index = args[0].get(), args[1]
    if index >= len(vector):
        raise NativeAbort(_VECTOR_INDEX)
    return [Ref(vector, index)]


@native("0x1", "vector", "push_back")
def _vector_push(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    args[0].get().append(args[1])
    return []


@native("0x1", "vector", "pop_back")
def _vector_pop(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vector = args[0].get()
    if not vector:
        raise NativeAbort(_VECTOR_EMPTY)
    value = vector.pop()
    return [U8Value(value) if type(vector) is bytearray else value]


@native("0x1", "vector", "destroy_empty")
def _vector_destroy(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    if args[0]:
        raise NativeAbort(_VECTOR_NOT_EMPTY)
    return []


@native("0x1", "vector", "swap")
def _vector_swap(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vector, first, second = args[0].get(), args[1], args[2]
    if first >= len(vector) or second >= len(vector):
        raise NativeAbort(_VECTOR_INDEX)
    vector[first], vector[second] = vector[second], vector[first]
    return []


# ---- 0x2: addresses


@native("0x2", "address", "to_u256")
def _address_to_u256(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [U256Value(int.from_bytes(args[0], "big"))]


@native("0x2", "address", "from_u256")
def _address_from_u256(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [int(args[0]).to_bytes(32, "big")]


@native("0x2", "address", "from_bytes")
def _address_from_bytes(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    if len(args[0]) != 32:
        raise NativeAbort(_ADDRESS_PARSE)
    return [bytes(args[0])]


# ---- 0x2: transaction, objects, events


@native("0x2", "types", "is_one_time_witness")
def _is_one_time_witness(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    type_ = types[0]
    if not isinstance(type_, StructType) or type_.name != type_.module.upper():
        return [False]
    fields = vm.code.struct_fields(type_)
    return [fields is not None and [field for _, field in fields] == [BOOL]]


def _context(name: str, read: Callable[[Interpreter], Value]) -> None:
    native("0x2", "tx_context", name)(lambda vm, types, args: [read(vm)])


_context("native_sender", lambda vm: vm.host.sender)
_context("native_epoch", lambda vm: vm.host.epoch)
_context("native_epoch_timestamp_ms", lambda vm: vm.host.epoch_timestamp_ms)
_context("native_rgp", lambda vm: vm.host.reference_gas_price)
_context("native_gas_price", lambda vm: vm.host.gas_price)
_context("native_gas_budget", lambda vm: vm.host.gas_budget)
_context("native_ids_created", lambda vm: vm.host.ids_created)
_context("native_sponsor", lambda vm: [] if vm.host.sponsor is None else [vm.host.sponsor])
_context("fresh_id", lambda vm: vm.host.fresh_id())


@native("0x2", "tx_context", "derive_id")
def _derive_id(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [derive_id(bytes(args[0]), args[1])]


@native("0x2", "protocol_config", "is_feature_enabled")
def _is_feature_enabled(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [vm.host.feature_enabled(bytes(args[0]).decode("utf-8", "replace"))]


@native("0x2", "object", "borrow_uid")
def _borrow_uid(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [Ref(args[0].get(), 0)]


@native("0x2", "object", "delete_impl")
def _delete_uid(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.delete_uid(args[0])
    return []


@native("0x2", "object", "record_new_uid")
def _record_new_uid(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.record_new_uid(args[0])
    return []


def _datatype(type_: Type) -> StructType:
    if not isinstance(type_, StructType):
        raise VmError("INVALID_TYPE_ARGUMENT", "a struct or enum is wanted here")
    return type_


@native("0x2", "event", "emit")
def _emit(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.emit(_datatype(types[0]), args[0])
    return []


@native("0x2", "transfer", "transfer_impl")
def _transfer(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.transfer(_datatype(types[0]), args[0], args[1])
    return []


@native("0x2", "transfer", "share_object_impl")
def _share(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.share(_datatype(types[0]), args[0])
    return []


@native("0x2", "transfer", "freeze_object_impl")
def _freeze(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    vm.host.freeze(_datatype(types[0]), args[0])
    return []


@native("0x2", "transfer", "receive_impl")
def _receive(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [vm.host.receive(args[0], args[1][0], args[2], _datatype(types[0]))]


# ---- 0x2: dynamic fields


@native("0x2", "dynamic_field", "hash_type_and_key")
def _hash_type_and_key(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    key = to_bcs(vm.code.layout(types[0]), args[1])
    vm.charge(1 + len(key) // HASH_BLOCK)
    return [dynamic_field_id(args[0], types[0], key)]


@native("0x2", "dynamic_field", "add_child_object")
def _add_child(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    parent, value = args
    child_id = object_id(value)
    if vm.host.child(parent, child_id) is not None:
        raise NativeAbort(_FIELD_EXISTS)
    vm.host.add_child(parent, child_id, _datatype(types[0]), value)
    return []


@native("0x2", "dynamic_field", "borrow_child_object", "borrow_child_object_mut")
def _borrow_child(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    parent: bytes = args[0].get()[0][0]  # &UID
    child = vm.host.child(parent, args[1])
    if child is None:
        raise NativeAbort(_FIELD_MISSING)
    if child.type != types[0]:
        raise NativeAbort(_FIELD_OTHER_TYPE)
    return [Ref(child.slot, 0)]


@native("0x2", "dynamic_field", "remove_child_object")
def _remove_child(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    parent, child_id = args
    child = vm.host.child(parent, child_id)
    if child is None:
        raise NativeAbort(_FIELD_MISSING)
    if child.type != types[0]:
        raise NativeAbort(_FIELD_OTHER_TYPE)
    vm.host.remove_child(parent, child_id)
    return [child.slot[0]]


@native("0x2", "dynamic_field", "has_child_object")
def _has_child(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    return [vm.host.child(args[0], args[1]) is not None]


@native("0x2", "dynamic_field", "has_child_object_with_ty")
def _has_child_with_type(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    child = vm.host.child(args[0], args[1])
    return [child is not None and child.type == types[0]]
