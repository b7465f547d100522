"""Objects as the ledger keeps them, and their BCS form.

The encoding is Sui's own (``sui_types::object::Object``), so a digest served here is the one any client
computes from the bytes, and the stored form is one that other tools can read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from ..vm.bytecode import Module
from ..vm.types import StructType, Type, encode_type, read_type, struct
from .encoding import Reader, blake2b, byte_string, text, u64, vector

SUI = struct("0x2", "sui", "SUI")
SUI_COIN = struct("0x2", "coin", "Coin", SUI)
CLOCK = struct("0x2", "clock", "Clock")
CLOCK_ID = bytes(31) + b"\x06"
ID_LENGTH = 32

_OTHER, _GAS_COIN, _STAKED_SUI, _COIN = range(4)
_STAKED_SUI_TYPE = struct("0x3", "staking_pool", "StakedSui")


class Owner(NamedTuple):
    """Who may use an object.

    ``kind`` is address, object (a dynamic field of ``address``), shared (since ``version``) or immutable.
    """

    kind: str
    address: bytes = b""
    version: int = 0


IMMUTABLE = Owner("immutable")


class TypeOrigin(NamedTuple):
    """The package version that first defined a type."""

    module: str
    name: str
    package: bytes


class Upgraded(NamedTuple):
    """Which version of a dependency a package is linked against."""

    package: bytes
    version: int


@dataclass(frozen=True)
class PackageData:
    """A version of a published package: modules by name, sorted."""

    modules: dict[str, bytes]
    type_origins: tuple[TypeOrigin, ...] = ()
    linkage: dict[bytes, Upgraded] = field(default_factory=dict)

    @cached_property
    def original_id(self) -> bytes:
        """Id of the package's first version: what its bytecode, and that of its users, calls it."""
        return Module.parse(next(iter(self.modules.values()))).address


@dataclass(frozen=True)
class LedgerObject:
    """One version of an object or package.

    :ivar contents: BCS of the Move value, its id first; empty for a package.
    :ivar rebate: MIST of storage fees that are tied up in it.
    :ivar previous: digest of the transaction that wrote it.
    """

    object_id: bytes
    version: int
    owner: Owner
    previous: bytes
    rebate: int
    type: StructType | None = None
    contents: bytes = b""
    public_transfer: bool = False
    package: PackageData | None = None

    @cached_property
    def encoded(self) -> bytes:
        """BCS of the whole object."""
        data = b"\x01" + self._package() if self.package is not None else b"\x00" + self._move_object()
        return data + _owner(self.owner) + byte_string(self.previous) + u64(self.rebate)

    @cached_property
    def digest(self) -> bytes:
        return blake2b(b"Object::" + self.encoded)

    @property
    def coin_type(self) -> Type | None:
        """``T`` when this is a ``Coin<T>``."""
        if self.type is not None and self.type[:3] == SUI_COIN[:3]:
            return self.type.args[0]
        return None

    @property
    def coin_value(self) -> int:
        """Balance of a coin in its smallest unit; only meaningful where ``coin_type`` is set."""
        return int.from_bytes(self.contents[ID_LENGTH : ID_LENGTH + 8], "little")

    def written(self, version: int, previous: bytes, rebate: int) -> LedgerObject:
        """The same contents as a new version."""
        return replace(self, version=version, previous=previous, rebate=rebate)

    def _move_object(self) -> bytes:
        assert self.type is not None
        return (
            _object_type(self.type)
            + bytes([self.public_transfer])
            + u64(self.version)
            + byte_string(self.contents)
        )

    def _package(self) -> bytes:
        assert self.package is not None
        package = self.package
        modules = sorted((text(name), byte_string(code)) for name, code in package.modules.items())
        origins = (text(o.module) + text(o.name) + o.package for o in package.type_origins)
        linkage = sorted((original, up.package + u64(up.version)) for original, up in package.linkage.items())
        return (
            self.object_id
            + u64(self.version)
            + vector(name + code for name, code in modules)
            + vector(origins)
            + vector(original + upgraded for original, upgraded in linkage)
        )


def decode(encoded: bytes) -> LedgerObject:
    """Reads what ``LedgerObject.encoded`` wrote.

    :raises ValueError: the bytes are no object.
    """
    reader = Reader(encoded)
    if reader.uleb() == 0:
        type_ = _read_object_type(reader)
        public_transfer, version = reader.boolean(), reader.u64()
        contents = reader.byte_string()
        owner, previous, rebate = _read_tail(reader)
        return LedgerObject(
            contents[:ID_LENGTH],
            version,
            owner,
            previous,
            rebate,
            type=type_,
            contents=contents,
            public_transfer=public_transfer,
        )
    object_id, version = reader.address(), reader.u64()
    modules = dict(reader.vector(lambda: (reader.text(), reader.byte_string())))
    origins = reader.vector(lambda: TypeOrigin(reader.text(), reader.text(), reader.address()))
    linkage = dict(
        reader.vector(lambda: (reader.address(), Upgraded(reader.address(), reader.u64()))),
    )
    owner, previous, rebate = _read_tail(reader)
    package = PackageData(modules, tuple(origins), linkage)
    return LedgerObject(object_id, version, owner, previous, rebate, package=package)


def _read_tail(reader: Reader) -> tuple[Owner, bytes, int]:
    owner, previous, rebate = _read_owner(reader), reader.byte_string(), reader.u64()
    reader.finish()
    return owner, previous, rebate


def _owner(owner: Owner) -> bytes:
    match owner.kind:
        case "address":
            return b"\x00" + owner.address
        case "object":
            return b"\x01" + owner.address
        case "shared":
            return b"\x02" + u64(owner.version)
        case _:
            return b"\x03"


def _read_owner(reader: Reader) -> Owner:
    match reader.uleb():
        case 0:
            return Owner("address", reader.address())
        case 1:
            return Owner("object", reader.address())
        case 2:
            return Owner("shared", version=reader.u64())
        case 3:
            return IMMUTABLE
        case other:
            raise ValueError(f"unknown owner variant {other}")


def _object_type(type_: StructType) -> bytes:
    # Sui abbreviates the commonest types; the digest depends on it.
    if type_ == SUI_COIN:
        return bytes([_GAS_COIN])
    if type_ == _STAKED_SUI_TYPE:
        return bytes([_STAKED_SUI])
    if type_[:3] == SUI_COIN[:3]:
        return bytes([_COIN]) + encode_type(type_.args[0])
    # A StructTag is a TypeTag without the tag.
    return bytes([_OTHER]) + encode_type(type_)[1:]


def _read_object_type(reader: Reader) -> StructType:
    match reader.uleb():
        case 1:
            return SUI_COIN
        case 2:
            return _STAKED_SUI_TYPE
        case 3:
            return struct("0x2", "coin", "Coin", read_type(reader))
        case 0:
            address, module, name = reader.address(), reader.text(), reader.text()
            return StructType(address, module, name, tuple(reader.vector(lambda: read_type(reader))))
        case other:
            raise ValueError(f"unknown object type variant {other}")
