"""What a transaction asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..vm.types import Type
from .encoding import blake2b


class ObjectRef(NamedTuple):
    """An object at one version, as the signer saw it."""

    object_id: bytes
    version: int
    digest: bytes


@dataclass(frozen=True)
class PureInput:
    """BCS bytes of a plain value."""

    data: bytes


@dataclass(frozen=True)
class OwnedInput:
    """An object owned by the sender, or an immutable one."""

    ref: ObjectRef


@dataclass(frozen=True)
class ReceivingInput:
    """An object owned by the address of another object."""

    ref: ObjectRef


@dataclass(frozen=True)
class SharedInput:
    """A shared object, taken mutably or not; ``initial_version`` is where it became shared."""

    object_id: bytes
    initial_version: int
    mutable: bool


Input = PureInput | OwnedInput | ReceivingInput | SharedInput


class Argument(NamedTuple):
    """A command's argument: ``kind`` is gas, input, result (all of it) or nested (one value of it)."""

    kind: str
    position: int = 0
    nested: int = 0


GAS = Argument("gas")


@dataclass(frozen=True)
class MoveCall:
    package: bytes
    module: str
    function: str
    type_arguments: tuple[Type, ...]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class TransferObjects:
    objects: tuple[Argument, ...]
    recipient: Argument


@dataclass(frozen=True)
class SplitCoins:
    coin: Argument
    amounts: tuple[Argument, ...]


@dataclass(frozen=True)
class MergeCoins:
    target: Argument
    sources: tuple[Argument, ...]


@dataclass(frozen=True)
class Publish:
    modules: tuple[bytes, ...]
    dependencies: tuple[bytes, ...]


@dataclass(frozen=True)
class MakeVector:
    element: Type | None
    elements: tuple[Argument, ...]


@dataclass(frozen=True)
class Upgrade:
    modules: tuple[bytes, ...]
    dependencies: tuple[bytes, ...]
    package: bytes
    ticket: Argument


Command = MoveCall | TransferObjects | SplitCoins | MergeCoins | Publish | MakeVector | Upgrade


@dataclass(frozen=True)
class TransactionData:
    """A programmable transaction.

    :ivar payment: coins the gas is paid from; empty only in a simulation, which then pays from nowhere.
    :ivar price: MIST per computation unit.
    :ivar budget: the most the transaction may cost, in MIST.
    :ivar expires_after: last epoch it is valid in, None for no end.
    :ivar starts_at: first epoch it is valid in, None for no start.
    :ivar chain: digest the transaction is bound to, None when it may run on any chain.
    :ivar raw: the signed bytes, BCS ``TransactionData``; see ``wire``.
    """

    inputs: tuple[Input, ...]
    commands: tuple[Command, ...]
    sender: bytes
    payment: tuple[ObjectRef, ...]
    gas_owner: bytes
    price: int
    budget: int
    expires_after: int | None = None
    starts_at: int | None = None
    chain: bytes | None = None
    raw: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the signed form."""
        return len(self.raw)

    @property
    def digest(self) -> bytes:
        """The transaction's name: hash of its signed bytes."""
        return blake2b(b"TransactionData::" + self.raw)

    @property
    def signing_digest(self) -> bytes:
        """What a wallet signs: the intent (transaction, version 0, Sui) and the bytes, hashed."""
        return blake2b(b"\x00\x00\x00" + self.raw)
