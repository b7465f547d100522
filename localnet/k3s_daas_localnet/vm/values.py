"""Move values in Python, their BCS form and their JSON form.

| Move                     | Python                                                        |
|--------------------------|---------------------------------------------------------------|
| bool                     | bool                                                          |
| u64                      | int                                                           |
| u8 u16 u32 u128 u256     | U8 U16 U32 U128 U256, subclasses of int (arithmetic needs the width) |
| address, signer          | bytes of length 32                                            |
| vector<u8>               | bytearray                                                     |
| any other vector         | list                                                          |
| struct                   | list of its fields, in order                                  |
| enum                     | EnumValue(tag, fields)                                        |
| reference                | Ref(container, index); never inside another value             |

An object is a struct whose first field is a UID, which is `[[address]]`: see `object_id`.
Structs, vectors and enums are mutable and moved, not copied: whoever hands one over must not keep it.
"""

from __future__ import annotations

import base64
from typing import Any, Protocol

from .errors import VmError
from .types import (
    ADDRESS,
    BOOL,
    SIGNER,
    U8,
    Primitive,
    Reader,
    StructType,
    Type,
    VectorType,
    encode_uleb,
    parse_address,
    type_to_string,
)

Value = Any


class U8Value(int):
    __slots__ = ()


class U16Value(int):
    __slots__ = ()


class U32Value(int):
    __slots__ = ()


class U128Value(int):
    __slots__ = ()


class U256Value(int):
    __slots__ = ()


INTEGER_CLASSES: dict[str, type[int]] = {
    "u8": U8Value,
    "u16": U16Value,
    "u32": U32Value,
    "u64": int,
    "u128": U128Value,
    "u256": U256Value,
}
INTEGER_BITS: dict[type[int], int] = {INTEGER_CLASSES[n]: int(n[1:]) for n in INTEGER_CLASSES}
INTEGER_MAX: dict[type[int], int] = {c: (1 << bits) - 1 for c, bits in INTEGER_BITS.items()}


class EnumValue:
    __slots__ = ("fields", "tag")

    def __init__(self, tag: int, fields: list[Value]) -> None:
        self.tag = tag
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnumValue) and self.tag == other.tag and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"EnumValue({self.tag}, {self.fields})"


class Ref:
    """A reference to one slot of a container: a frame's locals, a struct's fields, a vector's elements."""

    __slots__ = ("container", "index")

    def __init__(self, container: Any, index: int) -> None:
        self.container = container
        self.index = index

    def get(self) -> Value:
        container = self.container
        if type(container) is bytearray:
            return U8Value(container[self.index])
        return container[self.index]

    def set(self, value: Value) -> None:
        self.container[self.index] = value

    @staticmethod
    def to(value: Value) -> Ref:
        """A reference to a value held by nobody else."""
        return Ref([value], 0)


def clone(value: Value) -> Value:
    """A deep copy of a value that is no reference."""
    kind = type(value)
    if kind is list:
        return [clone(item) for item in value]
    if kind is bytearray:
        return bytearray(value)
    if kind is EnumValue:
        return EnumValue(value.tag, [clone(item) for item in value.fields])
    return value


def object_id(value: Value) -> bytes:
    """The 32-byte id of an object's value: its first field is a UID, a struct of a struct of the address."""
    identifier: bytes = value[0][0][0]
    return identifier


class Layout(Protocol):
    """How values of one closed type are written. Made by `CodeStore.layout`."""

    def encode(self, value: Value, out: bytearray) -> None: ...

    def decode(self, reader: Reader) -> Value:
        """Raises ValueError on bytes that are no such value."""
        ...

    def json(self, value: Value) -> Any:
        """As the `json` field of sui.rpc.v2 renders it."""
        ...


def to_bcs(layout: Layout, value: Value) -> bytes:
    out = bytearray()
    layout.encode(value, out)
    return bytes(out)


def from_bcs(layout: Layout, data: bytes) -> Value:
    """Raises ValueError, also when bytes are left over."""
    reader = Reader(data)
    value = layout.decode(reader)
    if reader.left:
        raise ValueError(f"{reader.left} bytes left over after the value")
    return value


class IntegerLayout:
    __slots__ = ("_cls", "_size")

    def __init__(self, name: str) -> None:
        self._cls = INTEGER_CLASSES[name]
        self._size = INTEGER_BITS[self._cls] // 8

    def encode(self, value: Value, out: bytearray) -> None:
        out += value.to_bytes(self._size, "little")

    def decode(self, reader: Reader) -> Value:
        return self._cls(reader.integer(self._size))

    def json(self, value: Value) -> Any:
        # JSON numbers are exact to 2^53 only.
        return int(value) if self._size <= 4 else str(int(value))


class BoolLayout:
    __slots__ = ()

    def encode(self, value: Value, out: bytearray) -> None:
        out.append(1 if value else 0)

    def decode(self, reader: Reader) -> Value:
        byte = reader.byte()
        if byte > 1:
            raise ValueError(f"a bool is 0 or 1, found {byte}")
        return byte == 1

    def json(self, value: Value) -> Any:
        return value


class AddressLayout:
    __slots__ = ()

    def encode(self, value: Value, out: bytearray) -> None:
        out += value

    def decode(self, reader: Reader) -> Value:
        return reader.take(32)

    def json(self, value: Value) -> Any:
        return "0x" + value.hex()


class BytesLayout:
    """vector<u8>"""

    __slots__ = ()

    def encode(self, value: Value, out: bytearray) -> None:
        out += encode_uleb(len(value))
        out += value

    def decode(self, reader: Reader) -> Value:
        return bytearray(reader.take(reader.uleb()))

    def json(self, value: Value) -> Any:
        return base64.b64encode(value).decode()


class VectorLayout:
    __slots__ = ("_element",)

    def __init__(self, element: Layout) -> None:
        self._element = element

    def encode(self, value: Value, out: bytearray) -> None:
        out += encode_uleb(len(value))
        encode = self._element.encode
        for item in value:
            encode(item, out)

    def decode(self, reader: Reader) -> Value:
        decode = self._element.decode
        # Every Move value takes at least one byte, so a count cannot promise more than the bytes there are.
        count = reader.uleb()
        if count > reader.left:
            raise ValueError(f"a vector of {count} elements in {reader.left} bytes")
        return [decode(reader) for _ in range(count)]

    def json(self, value: Value) -> Any:
        return [self._element.json(item) for item in value]


class StructLayout:
    __slots__ = ("fields",)

    def __init__(self, fields: list[tuple[str, Layout]]) -> None:
        self.fields = fields

    def encode(self, value: Value, out: bytearray) -> None:
        for (_, layout), item in zip(self.fields, value, strict=True):
            layout.encode(item, out)

    def decode(self, reader: Reader) -> Value:
        return [layout.decode(reader) for _, layout in self.fields]

    def json(self, value: Value) -> Any:
        return {name: layout.json(item) for (name, layout), item in zip(self.fields, value, strict=True)}


class EnumLayout:
    __slots__ = ("variants",)

    def __init__(self, variants: list[tuple[str, StructLayout]]) -> None:
        self.variants = variants

    def encode(self, value: Value, out: bytearray) -> None:
        out.append(value.tag)  # at most 127 variants: one byte of ULEB128
        self.variants[value.tag][1].encode(value.fields, out)

    def decode(self, reader: Reader) -> Value:
        tag = reader.uleb()
        if tag >= len(self.variants):
            raise ValueError(f"variant {tag} of {len(self.variants)}")
        return EnumValue(tag, self.variants[tag][1].decode(reader))

    def json(self, value: Value) -> Any:
        name, layout = self.variants[value.tag]
        return {"@variant": name, **layout.json(value.fields)}


class StringLayout(StructLayout):
    """Strings of std, and structs around one (Url, TypeName): JSON shows the text."""

    __slots__ = ()

    def json(self, value: Value) -> Any:
        while isinstance(value, list):
            value = value[0]
        return value.decode("utf-8", "replace")


class OptionLayout(StructLayout):
    __slots__ = ()

    def json(self, value: Value) -> Any:
        if not value[0]:
            return None
        layout = self.fields[0][1]
        if isinstance(layout, BytesLayout):
            return int(value[0][0])
        assert isinstance(layout, VectorLayout)
        return layout.json(value[0])[0]


class IdLayout(StructLayout):
    """UID and ID: JSON shows the address."""

    __slots__ = ()

    def json(self, value: Value) -> Any:
        while isinstance(value, list):
            value = value[0]
        return "0x" + value.hex()


class BalanceLayout(StructLayout):
    __slots__ = ()

    def json(self, value: Value) -> Any:
        return str(value[0])


_ONE = parse_address("0x1")
_TWO = parse_address("0x2")
_SPECIAL_STRUCTS: dict[tuple[bytes, str, str], type[StructLayout]] = {
    (_ONE, "string", "String"): StringLayout,
    (_ONE, "ascii", "String"): StringLayout,
    (_ONE, "type_name", "TypeName"): StringLayout,
    (_TWO, "url", "Url"): StringLayout,
    (_ONE, "option", "Option"): OptionLayout,
    (_TWO, "object", "UID"): IdLayout,
    (_TWO, "object", "ID"): IdLayout,
    (_TWO, "balance", "Balance"): BalanceLayout,
}

_BOOL_LAYOUT = BoolLayout()
_ADDRESS_LAYOUT = AddressLayout()
_BYTES_LAYOUT = BytesLayout()
_INTEGER_LAYOUTS = {name: IntegerLayout(name) for name in INTEGER_CLASSES}


class DatatypeShape(Protocol):
    """What layouts need to know of the code: the fields of a struct, or the variants of an enum."""

    def struct_fields(self, type_: StructType) -> list[tuple[str, Type]] | None: ...

    def enum_variants(self, type_: StructType) -> list[tuple[str, list[tuple[str, Type]]]] | None: ...

    def layout(self, type_: Type) -> Layout: ...


def build_layout(shapes: DatatypeShape, type_: Type) -> Layout:
    """The layout of a closed type; inner ones come from `shapes.layout`, which caches. Raises VmError."""
    match type_:
        case Primitive(name) if name in _INTEGER_LAYOUTS:
            return _INTEGER_LAYOUTS[name]
        case Primitive():
            if type_ == BOOL:
                return _BOOL_LAYOUT
            if type_ in (ADDRESS, SIGNER):
                return _ADDRESS_LAYOUT
        case VectorType(element):
            return _BYTES_LAYOUT if element == U8 else VectorLayout(shapes.layout(element))
        case StructType():
            fields = shapes.struct_fields(type_)
            if fields is not None:
                cls = _SPECIAL_STRUCTS.get((type_.address, type_.module, type_.name), StructLayout)
                return cls([(name, shapes.layout(inner)) for name, inner in fields])
            variants = shapes.enum_variants(type_)
            if variants is not None:
                return EnumLayout(
                    [(n, StructLayout([(f, shapes.layout(t)) for f, t in fs])) for n, fs in variants]
                )
    raise VmError("TYPE_RESOLUTION_FAILURE", f"no layout for {type_to_string(type_)}")
