"""What protobuf demands of a message and betterproto2 does not check: it reads torn ones as far as it can."""

from __future__ import annotations

from functools import cache
from typing import Any

import betterproto2

_MAX_DEPTH = 100
_MAX_VARINT_BYTES = 10
_LENGTH = 2
_WIRES = {
    kind: wire
    for kinds, wire in (
        (betterproto2.WIRE_VARINT_TYPES, 0),
        (betterproto2.WIRE_FIXED_64_TYPES, 1),
        (betterproto2.WIRE_LEN_DELIM_TYPES, _LENGTH),
        (betterproto2.WIRE_FIXED_32_TYPES, 5),
    )
    for kind in kinds
}


def check(data: bytes, kind: type) -> None:
    """Follows the bytes of a message of class ``kind`` to their end.

    :raises ValueError: they are torn, malformed or nested too deeply.
    """
    _check(memoryview(data), kind, 0)


def _check(data: memoryview, kind: type, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("recursion limit reached")
    fields = _fields(kind)
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"invalid tag value: {number}")
        wires, nested = fields.get(number, (None, None))
        if wires is not None and wire not in wires:
            raise ValueError(
                f"invalid wire type value: {wire}, field {number} of {kind.__name__} wants another"
            )
        match wire:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(data, position)
                end = position + length
                if end <= len(data) and nested is not None:
                    _check(data[position:end], nested, depth + 1)
                position = end
            case 5:
                position += 4
            case _:
                raise ValueError(f"invalid wire type value: {wire}")
    if position > len(data):
        raise ValueError("buffer underflow")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(data):
            raise ValueError("buffer underflow")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("invalid varint")


@cache
def _fields(kind: Any) -> dict[int, tuple[frozenset[int], type | None]]:
    """Wire types that a field may have, and its class where it holds messages, by number."""
    about = kind._betterproto
    found: dict[int, tuple[frozenset[int], type | None]] = {}
    for number, name in about.field_name_by_number.items():
        field = about.meta_by_field_name[name]
        wires = {_WIRES[field.proto_type]}
        if field.repeated:
            wires.add(_LENGTH)  # numbers may be packed
        class_ = about.cls_by_field.get(name)
        found[number] = frozenset(wires), class_ if hasattr(class_, "_betterproto") else None
    return found
