"""BCS of the few value types our contracts take. Binary canonical serialization, as Move defines it."""

from __future__ import annotations

import hashlib
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


# -- reading -----------------------------------------------------------------------------------------------


class Reader:
    """Takes values off encoded bytes, in order. Every method raises ValueError for what isn't BCS."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise ValueError(f"{len(self._raw)} bytes end before byte {end}")
        part, self._at = self._raw[self._at : end], end
        return part

    def uleb(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or number >= 1 << 32:
                    break
                return number
        raise ValueError("a length that isn't the shortest ULEB128 of 32 bits")

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def flag(self) -> bool:
        value = self.unsigned(1)
        if value > 1:
            raise ValueError(f"boolean {value}")
        return value == 1

    def address(self) -> str:
        return "0x" + self.take(32).hex()

    def data(self) -> bytes:
        return self.take(self.uleb())

    def string(self) -> str:
        return self.data().decode("utf-8")

    def end(self) -> None:
        """Nothing may be left over."""
        if self._at != len(self._raw):
            raise ValueError(f"{len(self._raw) - self._at} bytes too many")


# -- types and derived ids ---------------------------------------------------------------------------------

#: Variant numbers of TypeTag; 7 is a struct, which has no keyword.
_TYPE_NAMES = ("bool", "u8", "u64", "u128", "address", "signer", "vector", "", "u16", "u32", "u256")
_STRUCT_TAG = 7


def type_tag(text: str) -> bytes:
    """BCS of the TypeTag written as `text`, such as `0x1::string::String` or `vector<u8>`."""
    encoded, rest = _type_tag(text.replace(" ", ""))
    if rest:
        raise ValueError(f"Found {rest!r} after the type in {text!r}")
    return encoded


def _type_tag(text: str) -> tuple[bytes, str]:
    match = re.match(r"[^<>,]+", text)
    if match is None:
        raise ValueError(f"Found {text!r}, wanted a Move type")
    name, rest = match[0], text[match.end() :]
    arguments: list[bytes] = []
    if rest.startswith("<"):
        while not rest.startswith(">"):
            argument, rest = _type_tag(rest[1:])
            arguments.append(argument)
            if rest[:1] not in (",", ">"):
                raise ValueError(f"Found an unclosed '<' in {text!r}")
        rest = rest[1:]
    if "::" in name:
        package, module, struct = name.split("::")
        tag = bytes([_STRUCT_TAG]) + address(package) + string(module) + string(struct)
        return tag + vector(arguments), rest
    if name not in _TYPE_NAMES or len(arguments) != (name == "vector"):
        raise ValueError(f"Found {text!r}, wanted a Move type")
    return bytes([_TYPE_NAMES.index(name)]) + b"".join(arguments), rest


def dynamic_field_id(parent: str, name_type: str, name_bcs: bytes) -> str:
    """Id of the object that holds `parent`'s dynamic field (`sui::dynamic_field::hash_type_and_key`)."""
    key = unsigned(len(name_bcs), 8) + name_bcs
    preimage = b"\xf0" + address(parent) + key + type_tag(name_type)
    return "0x" + hashlib.blake2b(preimage, digest_size=32).hexdigest()
