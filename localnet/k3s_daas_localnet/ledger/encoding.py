"""BCS, base58 and the hashes Sui names things by.

BCS (binary canonical serialization) is little-endian, length-prefixed with ULEB128 and has exactly one
encoding per value; the reader refuses every other one, because digests and signatures depend on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..vm import types

T = TypeVar("T")

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INDEX = {character: value for value, character in enumerate(_ALPHABET)}
ADDRESS_LENGTH = 32
ZERO_ADDRESS = bytes(ADDRESS_LENGTH)


class Reader(types.Reader):
    """Reads BCS values off the front of some bytes; every method raises ValueError on other input."""

    def u8(self) -> int:
        return self.byte()

    def u16(self) -> int:
        return self.integer(2)

    def u64(self) -> int:
        return self.integer(8)

    def boolean(self) -> bool:
        value = self.byte()
        if value > 1:
            raise ValueError(f"a boolean is 0 or 1, found {value}")
        return value == 1

    def byte_string(self) -> bytes:
        return self.take(self.uleb())

    def text(self) -> str:
        return self.byte_string().decode()

    def address(self) -> bytes:
        return self.take(ADDRESS_LENGTH)

    def vector(self, item: Callable[[], T]) -> list[T]:
        """A vector whose items ``item`` reads."""
        count = self.uleb()
        # Every item takes at least a byte: refuse a count that can't be before looping over it.
        if count > self.left:
            raise ValueError(f"a vector of {count} items does not fit into {self.left} bytes")
        return [item() for _ in range(count)]

    def finish(self) -> None:
        """Refuses bytes that are left over."""
        if self.left:
            raise ValueError(f"{self.left} bytes are left over")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def byte_string(value: bytes) -> bytes:
    return types.encode_uleb(len(value)) + value


def text(value: str) -> bytes:
    return byte_string(value.encode())


def vector(items: Iterable[bytes]) -> bytes:
    """A vector of items that are encoded already."""
    encoded = list(items)
    return types.encode_uleb(len(encoded)) + b"".join(encoded)


def base58(data: bytes) -> str:
    """``data`` in the Bitcoin alphabet, as Sui writes digests."""
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, remainder = divmod(number, 58)
        digits.append(_ALPHABET[remainder])
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(digits))


def from_base58(encoded: str, length: int = 32) -> bytes:
    """The ``length`` bytes written as ``encoded``.

    :raises ValueError: a character outside the alphabet, or another number of bytes.
    """
    number = 0
    for character in encoded:
        if character not in _INDEX:
            raise ValueError(f"{encoded!r} is not base58: found {character!r}")
        number = number * 58 + _INDEX[character]
    zeros = len(encoded) - len(encoded.lstrip("1"))
    body = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if zeros + len(body) != length:
        raise ValueError(f"{encoded!r} holds {zeros + len(body)} bytes, {length} wanted")
    return bytes(zeros) + body


def blake2b(data: bytes) -> bytes:
    """BLAKE2b with a 32-byte result: Sui's hash for ids, digests and addresses."""
    return hashlib.blake2b(data, digest_size=32).digest()


def address(written: str) -> bytes:
    """The 32 bytes of an address written as hex, with or without 0x and leading zeros.

    :raises ValueError: not hex, or longer than 32 bytes.
    """
    digits = written[2:] if written[:2] in ("0x", "0X") else written
    if not digits or len(digits) > 2 * ADDRESS_LENGTH:
        raise ValueError(f"{written!r} is not an address: 1 to 64 hex digits wanted")
    try:
        return bytes.fromhex(digits.rjust(2 * ADDRESS_LENGTH, "0"))
    except ValueError:
        raise ValueError(f"{written!r} is not an address: hex digits wanted") from None


def hex_address(raw: bytes) -> str:
    """An address as Sui writes it: 0x and 64 hex digits."""
    return "0x" + raw.hex()
