"""Where natives are registered, and what they share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from .types import Type, parse_address
from .values import Ref, Value

if TYPE_CHECKING:
    from .interpreter import Interpreter

Native = Callable[["Interpreter", tuple[Type, ...], list[Value]], list[Value]]
NATIVES: dict[tuple[bytes, str, str], Native] = {}

# Hashing and copying in natives cost a step for so many bytes.
HASH_BLOCK = 64


def native(address: str, module: str, *names: str) -> Callable[[Native], Native]:
    def register(function: Native) -> Native:
        for name in names:
            NATIVES[(parse_address(address), module, name)] = function
        return function

    return register


def blake2b256(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def bytes_of(reference: Ref) -> bytes:
    """The bytes behind a `&vector<u8>`."""
    return bytes(reference.get())
