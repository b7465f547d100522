"""Move types: text form, BCS `TypeTag`, substitution.

Types are named tuples (equality and hashing at C speed: they key the interpreter's caches). The same
classes serve signatures inside modules, where `TypeParameter` and `Reference` may occur, and closed type
tags, where they may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .errors import ModuleId


class Primitive(NamedTuple):
    """bool, u8 … u256, address or signer."""

    name: str


class VectorType(NamedTuple):
    element: Type


class StructType(NamedTuple):
    """A struct or an enum; `address` is 32 bytes."""

    address: bytes
    module: str
    name: str
    args: tuple[Type, ...]

    @property
    def module_id(self) -> ModuleId:
        return ModuleId(self.address, self.module)


class TypeParameter(NamedTuple):
    number: int


class Reference(NamedTuple):
    mutable: bool
    target: Type


Type = Primitive | VectorType | StructType | TypeParameter | Reference

BOOL = Primitive("bool")
U8 = Primitive("u8")
U16 = Primitive("u16")
U32 = Primitive("u32")
U64 = Primitive("u64")
U128 = Primitive("u128")
U256 = Primitive("u256")
ADDRESS = Primitive("address")
SIGNER = Primitive("signer")
PRIMITIVES = {p.name: p for p in (BOOL, U8, U16, U32, U64, U128, U256, ADDRESS, SIGNER)}
INTEGERS = frozenset((U8, U16, U32, U64, U128, U256))
BYTES = VectorType(U8)

# Tags of BCS TypeTag (move-core-types language_storage::TypeTag).
_TAGS = {BOOL: 0, U8: 1, U64: 2, U128: 3, ADDRESS: 4, SIGNER: 5, U16: 8, U32: 9, U256: 10}
_VECTOR_TAG = 6
_STRUCT_TAG = 7
_BY_TAG = {tag: primitive for primitive, tag in _TAGS.items()}
MAX_TYPE_DEPTH = 32

_STRUCT_TEXT = re.compile(r"(0x)?([0-9a-fA-F]{1,64})::([A-Za-z_]\w*)::([A-Za-z_]\w*)")
_WORD = re.compile(r"[a-z0-9]+")


def parse_address(text: str) -> bytes:
    """32 bytes of `0x2` or of 64 hex digits, with or without 0x. Raises ValueError."""
    digits = text[2:] if text.startswith("0x") else text
    if not 1 <= len(digits) <= 64:
        raise ValueError(f"an address is 1 to 64 hex digits, found {text!r}")
    return bytes.fromhex(digits.rjust(64, "0"))


def address_to_string(address: bytes) -> str:
    return "0x" + address.hex()


def struct(address: str, module: str, name: str, *args: Type) -> StructType:
    """Short form for code: `struct("0x2", "sui", "SUI")`."""
    return StructType(parse_address(address), module, name, tuple(args))


def parse_type(text: str) -> Type:
    """`0x2::coin::Coin<0x2::sui::SUI>`, `vector<u8>`… to a Type. Raises ValueError saying what was found."""
    source = re.sub(r"\s+", "", text)

    def one(at: int, depth: int) -> tuple[Type, int]:
        if depth > MAX_TYPE_DEPTH:
            raise ValueError(f"type nested deeper than {MAX_TYPE_DEPTH}: {text!r}")
        if source.startswith("vector<", at):
            element, at = one(at + len("vector<"), depth + 1)
            return VectorType(element), expect(at, ">")
        if match := _STRUCT_TEXT.match(source, at):
            at = match.end()
            args: list[Type] = []
            if source.startswith("<", at):
                while True:
                    argument, at = one(at + 1, depth + 1)
                    args.append(argument)
                    if not source.startswith(",", at):
                        break
                at = expect(at, ">")
            address = bytes.fromhex(match[2].rjust(64, "0"))
            return StructType(address, match[3], match[4], tuple(args)), at
        word = _WORD.match(source, at)
        if word is None or word[0] not in PRIMITIVES:
            raise ValueError(f"not a Move type: {text!r} (at {source[at : at + 20]!r})")
        return PRIMITIVES[word[0]], word.end()

    def expect(at: int, token: str) -> int:
        if not source.startswith(token, at):
            raise ValueError(f"not a Move type: {text!r} (wanted {token!r} at {source[at : at + 20]!r})")
        return at + 1

    result, end = one(0, 0)
    if end != len(source):
        raise ValueError(f"not a Move type: {text!r} (left over {source[end:]!r})")
    return result


def type_to_string(type_: Type) -> str:
    """Canonical text: 0x and 64 hex digits, no blanks after commas as in Sui's own canonical form."""
    match type_:
        case Primitive(name):
            return name
        case VectorType(element):
            return f"vector<{type_to_string(element)}>"
        case StructType(address, module, name, args):
            tail = f"<{','.join(map(type_to_string, args))}>" if args else ""
            return f"0x{address.hex()}::{module}::{name}{tail}"
        case TypeParameter(number):
            return f"T{number}"
        case Reference(mutable, target):
            return ("&mut " if mutable else "&") + type_to_string(target)


def encode_type(type_: Type) -> bytes:
    """BCS TypeTag."""
    out = bytearray()
    _encode_type(type_, out)
    return bytes(out)


def _encode_type(type_: Type, out: bytearray) -> None:
    match type_:
        case Primitive():
            out.append(_TAGS[type_])
        case VectorType(element):
            out.append(_VECTOR_TAG)
            _encode_type(element, out)
        case StructType(address, module, name, args):
            out.append(_STRUCT_TAG)
            out += address
            for text in (module, name):
                out += encode_uleb(len(text)) + text.encode()
            out += encode_uleb(len(args))
            for argument in args:
                _encode_type(argument, out)
        case _:
            raise ValueError(f"{type_to_string(type_)} has no type tag")


def read_type(reader: Reader, depth: int = 0) -> Type:
    """BCS TypeTag from a reader. Raises ValueError."""
    if depth > MAX_TYPE_DEPTH:
        raise ValueError(f"type tag nested deeper than {MAX_TYPE_DEPTH}")
    tag = reader.uleb()
    if tag in _BY_TAG:
        return _BY_TAG[tag]
    if tag == _VECTOR_TAG:
        return VectorType(read_type(reader, depth + 1))
    if tag != _STRUCT_TAG:
        raise ValueError(f"unknown type tag {tag}")
    address = reader.take(32)
    module = reader.take(reader.uleb()).decode("ascii")
    name = reader.take(reader.uleb()).decode("ascii")
    return StructType(
        address, module, name, tuple(read_type(reader, depth + 1) for _ in range(reader.uleb()))
    )


def decode_type(data: bytes) -> Type:
    """BCS TypeTag of exactly these bytes. Raises ValueError."""
    reader = Reader(data)
    type_ = read_type(reader)
    if reader.position != len(data):
        raise ValueError(f"{len(data) - reader.position} bytes left over after a type tag")
    return type_


def substitute(type_: Type, args: tuple[Type, ...]) -> Type:
    """Replace type parameters; the same object comes back when there are none."""
    match type_:
        case Primitive():
            return type_
        case TypeParameter(number):
            return args[number]
        case VectorType(element):
            return VectorType(substitute(element, args))
        case Reference(mutable, target):
            return Reference(mutable, substitute(target, args))
        case StructType(address, module, name, inner):
            if not inner:
                return type_
            return StructType(address, module, name, tuple([substitute(t, args) for t in inner]))


def walk(type_: Type) -> Iterator[Type]:
    """The type and all types inside it, outermost first."""
    yield type_
    match type_:
        case VectorType(inner) | Reference(_, inner):
            yield from walk(inner)
        case StructType(_, _, _, args):
            for argument in args:
                yield from walk(argument)
        case _:
            pass


def depth(type_: Type) -> int:
    """Nesting depth; a primitive has 1."""
    match type_:
        case VectorType(inner) | Reference(_, inner):
            return 1 + depth(inner)
        case StructType(_, _, _, args) if args:
            return 1 + max(map(depth, args))
        case _:
            return 1


def encode_uleb(number: int) -> bytes:
    out = bytearray()
    while True:
        low = number & 0x7F
        number >>= 7
        if not number:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


class Reader:
    """A cursor over bytes. Every method raises ValueError when the bytes end or are not canonical."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int = 0, end: int | None = None) -> None:
        self.data = data
        self.position = position
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        at = self.position
        if at >= self.end:
            raise ValueError("unexpected end of bytes")
        self.position = at + 1
        return self.data[at]

    def take(self, count: int) -> bytes:
        at = self.position
        if count > self.end - at:
            raise ValueError(f"{count} bytes wanted, {self.end - at} left")
        self.position = at + count
        return bytes(self.data[at : at + count])

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def uleb(self, maximum: int = 0xFFFFFFFF) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise ValueError("number encoded too long")
        if shift and byte == 0:
            raise ValueError("number not encoded in its shortest form")
        if value > maximum:
            raise ValueError(f"number {value} is over the limit {maximum}")
        return value

    @property
    def left(self) -> int:
        return self.end - self.position
