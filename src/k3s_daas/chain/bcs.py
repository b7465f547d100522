"""BCS of the few value types our contracts take. Binary canonical serialization, as Move defines it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from k3s_daas.chain.errors import InvalidAddress

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)


def normalize_address(text: str) -> str:
    """`text` as 0x and 64 lower-case hex digits; InvalidAddress when it is no address or object id."""
    if not isinstance(text, str) or _ADDRESS.fullmatch(text) is None:
        raise InvalidAddress(
            f"Found {str(text)!r:.80}, wanted a Sui address or object id: 0x and 1 to 64 hex digits."
        )
    return "0x" + text[2:].lower().rjust(64, "0")


def uleb(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def unsigned(number: int, size: int) -> bytes:
    """`number` in `size` bytes, little-endian; OverflowError when it doesn't fit."""
    return number.to_bytes(size, "little")


def address(text: str) -> bytes:
    return bytes.fromhex(normalize_address(text)[2:])


def data(value: bytes) -> bytes:
    """vector<u8>."""
    return uleb(len(value)) + value


def string(text: str) -> bytes:
    """0x1::string::String, and a struct that holds nothing but one."""
    return data(text.encode())


def vector(items: Iterable[bytes]) -> bytes:
    """A vector of values that are encoded already."""
    encoded = list(items)
    return uleb(len(encoded)) + b"".join(encoded)
