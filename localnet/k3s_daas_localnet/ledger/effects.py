"""The outcome of a transaction: what the executor hands to the ledger and to the RPC server."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ..vm.types import StructType, Type, type_to_string
from .encoding import blake2b, u64
from .errors import ExecutionFailure
from .gas import GasSummary
from .objects import LedgerObject
from .transaction import TransactionData

Json = Any  # what json.dumps takes: the rendered form of a Move value


@dataclass(frozen=True)
class Event:
    """Emitted by Move code: ``package`` and ``module`` are those of the called function's command."""

    package: bytes
    module: str
    type: StructType
    contents: bytes
    json: Json


@dataclass(frozen=True)
class Change:
    """One object before and after; ``before`` is None for the created and unwrapped, ``after`` for the
    deleted and wrapped.

    :ivar operation: created, deleted or none, as the object's *id* saw it (an object that is wrapped keeps
        its id).
    """

    before: LedgerObject | None
    after: LedgerObject | None
    operation: str

    @property
    def object_id(self) -> bytes:
        found = self.after or self.before
        assert found is not None
        return found.object_id


@dataclass(frozen=True)
class ReturnValue:
    """A value a command returned."""

    type: Type
    contents: bytes
    json: Json


@dataclass(frozen=True)
class CommandReturn:
    """All values of one command."""

    values: tuple[ReturnValue, ...]


@dataclass(frozen=True)
class Executed:
    """Everything that is known about an executed or simulated transaction.

    :ivar lamport: version given to every object written.
    :ivar gas_object: id of the coin that paid, None when a simulation paid from nowhere.
    :ivar read: shared objects that were used immutably, as they were.
    :ivar clever: rendered form of a ``#[error]`` constant: constant name, message and source line.
    """

    digest: bytes
    transaction: TransactionData
    signatures: tuple[bytes, ...]
    epoch: int
    failure: ExecutionFailure | None
    gas: GasSummary
    lamport: int
    changes: tuple[Change, ...]
    gas_object: bytes | None
    read: tuple[LedgerObject, ...]
    events: tuple[Event, ...]
    returns: tuple[CommandReturn, ...]
    dependencies: tuple[bytes, ...]
    clever: CleverError | None = None

    @property
    def written(self) -> list[LedgerObject]:
        return [change.after for change in self.changes if change.after is not None]

    @property
    def removed(self) -> list[bytes]:
        return [change.object_id for change in self.changes if change.after is None]

    @property
    def effects_digest(self) -> bytes:
        """A digest over what changed. Its preimage is this network's own, not Sui's effects encoding."""
        status = b"\1" if self.failure is None else b"\0" + str(self.failure).encode()
        objects = b"".join(
            change.object_id + (change.after.digest if change.after is not None else b"")
            for change in self.changes
        )
        used = self.gas.computation + self.gas.storage
        return blake2b(
            b"TransactionEffects::" + self.digest + u64(self.lamport) + u64(used) + status + objects
        )

    @property
    def events_digest(self) -> bytes:
        body = b"".join(type_to_string(event.type).encode() + event.contents for event in self.events)
        return blake2b(b"TransactionEvents::" + self.digest + body)

    def balance_changes(self) -> dict[tuple[bytes, Type], int]:
        """What each address gained or lost in coins, by coin type; zero changes are left out."""
        changes: defaultdict[tuple[bytes, Type], int] = defaultdict(int)
        for change in self.changes:
            for item, sign in ((change.before, -1), (change.after, 1)):
                if item is not None and item.coin_type is not None and item.owner.kind == "address":
                    changes[item.owner.address, item.coin_type] += sign * item.coin_value
        return {key: amount for key, amount in changes.items() if amount}


@dataclass(frozen=True)
class CleverError:
    """A ``#[error]`` constant that an abort named.

    :ivar rendered: the message when it is text, else None.
    :ivar raw: BCS of the constant when it is not text.
    """

    line: int
    error_code: int | None
    constant_name: str | None
    constant_type: str | None
    rendered: str | None
    raw: bytes | None
