"""What protobuf demands of a message and betterproto2 does not check: it reads torn ones as far as it can."""

from __future__ import annotations

from functools import cache
from typing import Any

_MAX_DEPTH = 100
_MAX_VARINT_BYTES = 10


def check(data: bytes, kind: type) -> None:
    """Follows the bytes of a message of class ``kind`` to their end.

    :raises ValueError: they are torn, malformed or nested too deeply.
    """
    _check(memoryview(data), kind, 0)


def _check(data: memoryview, kind: type | None, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("recursion limit reached")
    nested = _nested(kind) if kind is not None else {}
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"invalid tag value: {number}")
        match wire:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(data, position)
                end = position + length
                if end <= len(data) and number in nested:
                    _check(data[position:end], nested[number], depth + 1)
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
def _nested(kind: Any) -> dict[int, type]:
    """Classes of the fields that hold messages, by number."""
    about = kind._betterproto
    return {
        number: about.cls_by_field[name]
        for number, name in about.field_name_by_number.items()
        if hasattr(about.cls_by_field.get(name), "_betterproto")
    }
