"""The objects of one transaction while it runs: what the VM's natives ask for (``vm.host.Host``).

Nothing here touches the ledger: a transaction's outcome is read off this object at its end, or thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k3s_daas.attestation import Root

from ..vm.errors import NativeAbort, VmError
from ..vm.host import Child
from ..vm.store import CodeStore
from ..vm.types import StructType
from ..vm.values import Value, from_bcs, object_id, to_bcs
from . import limits
from .effects import Event
from .encoding import blake2b, u64
from .gas import REFERENCE_GAS_PRICE
from .objects import IMMUTABLE, LedgerObject, Owner

# Abort codes of sui::transfer and sui::dynamic_field.
_SHARED_NON_NEW_OBJECT = 0
_RECEIVING_TYPE_MISMATCH = 2
_UNABLE_TO_RECEIVE = 3


@dataclass(frozen=True)
class Context:
    """What Move code may know about its transaction. Gas in MIST, times in ms since the Unix epoch."""

    digest: bytes
    sender: bytes
    sponsor: bytes | None
    epoch: int
    epoch_timestamp_ms: int
    gas_price: int
    gas_budget: int
    simulated_nitro_root: Root | None = None


@dataclass(frozen=True)
class Placed:
    """Where an object's value ended up."""

    type: StructType
    value: Value
    owner: Owner


@dataclass
class _ChildEntry:
    parent: bytes
    child: Child
    present: bool


class ObjectRuntime:
    """Implements ``vm.host.Host`` for one transaction.

    :param find: the live object of an id, as the ledger has it.
    :param shared_inputs: ids of the shared objects the transaction takes; only they may be shared again.
    """

    reference_gas_price = REFERENCE_GAS_PRICE

    def __init__(
        self,
        code: CodeStore,
        context: Context,
        find: Callable[[bytes], LedgerObject | None],
        shared_inputs: frozenset[bytes],
    ) -> None:
        self.code = code
        self.context = context
        self.sender = context.sender
        self.sponsor = context.sponsor
        self.epoch = context.epoch
        self.epoch_timestamp_ms = context.epoch_timestamp_ms
        self.gas_price = context.gas_price
        self.gas_budget = context.gas_budget
        self.simulated_nitro_root = context.simulated_nitro_root
        self.ids_created = 0
        self.new_ids: set[bytes] = set()
        self.deleted_ids: set[bytes] = set()
        self.events: list[Event] = []
        self.placed: dict[bytes, Placed] = {}
        self.loaded: dict[bytes, LedgerObject] = {}
        self.received: dict[bytes, LedgerObject] = {}
        self.receivable: dict[bytes, int] = {}
        # The module whose function the current command called: events are attributed to it.
        self.current_module: tuple[bytes, str] = (bytes(32), "")
        self._event_bytes = 0
        self._find = find
        self._shared_inputs = shared_inputs
        self._children: dict[bytes, _ChildEntry] = {}

    # --- ids

    def fresh_id(self) -> bytes:
        identifier = blake2b(b"\xf1" + self.context.digest + u64(self.ids_created))
        self.ids_created += 1
        self.record_new_uid(identifier)
        return identifier

    def record_new_uid(self, object_id: bytes) -> None:
        if len(self.new_ids) >= limits.MAX_NEW_IDS:
            raise _over_limit(f"Creating more than {limits.MAX_NEW_IDS} IDs is not allowed")
        self.new_ids.add(object_id)
        self.deleted_ids.discard(object_id)

    def delete_uid(self, object_id: bytes) -> None:
        if object_id in self.new_ids:
            self.new_ids.discard(object_id)
            return
        if len(self.deleted_ids) >= limits.MAX_DELETED_IDS:
            raise _over_limit(f"Deleting more than {limits.MAX_DELETED_IDS} IDs is not allowed")
        self.deleted_ids.add(object_id)

    # --- events

    def emit(self, type_: StructType, value: Value) -> None:
        if len(self.events) >= limits.MAX_EVENTS:
            raise _over_limit(f"Emitting more than {limits.MAX_EVENTS} events is not allowed")
        layout = self.code.layout(type_)
        contents = to_bcs(layout, value)
        if len(contents) > limits.MAX_EVENT_BYTES:
            raise _over_limit(
                f"Emitting event of size {len(contents)} bytes. Limit is {limits.MAX_EVENT_BYTES} bytes."
            )
        self._event_bytes += len(contents)
        if self._event_bytes > limits.MAX_TOTAL_EVENT_BYTES:
            raise _over_limit(
                f"Reached total event size of {self._event_bytes}. "
                f"Limit is {limits.MAX_TOTAL_EVENT_BYTES} bytes."
            )
        package, module = self.current_module
        self.events.append(Event(package, module, type_, contents, layout.json(value)))

    # --- transfers

    def transfer(self, type_: StructType, value: Value, recipient: bytes) -> None:
        self.place(type_, value, Owner("address", recipient))

    def share(self, type_: StructType, value: Value) -> None:
        identifier = object_id(value)
        if identifier not in self.new_ids and identifier not in self._shared_inputs:
            raise NativeAbort(_SHARED_NON_NEW_OBJECT)
        self.place(type_, value, Owner("shared"))

    def freeze(self, type_: StructType, value: Value) -> None:
        self.place(type_, value, IMMUTABLE)

    def place(self, type_: StructType, value: Value, owner: Owner) -> None:
        """Gives an object to its owner; the last one of a transaction counts."""
        identifier = object_id(value)
        if identifier not in self.placed and len(self.placed) >= limits.MAX_TRANSFERRED_IDS:
            raise _over_limit(f"Transferring more than {limits.MAX_TRANSFERRED_IDS} IDs is not allowed")
        self.placed[identifier] = Placed(type_, value, owner)

    def receive(self, parent: bytes, object_id: bytes, version: int, type_: StructType) -> Value:
        found = self._find(object_id)
        offered = self.receivable.get(object_id)
        if (
            found is None
            or offered != version
            or found.version != version
            or found.owner != Owner("address", parent)
            or object_id in self.received
        ):
            raise NativeAbort(_UNABLE_TO_RECEIVE)
        if found.type != type_:
            raise NativeAbort(_RECEIVING_TYPE_MISMATCH)
        self.received[object_id] = found
        return from_bcs(self.code.layout(type_), found.contents)

    # --- dynamic fields

    def child(self, parent: bytes, object_id: bytes) -> Child | None:
        entry = self._children.get(object_id)
        if entry is not None:
            return entry.child if entry.present and entry.parent == parent else None
        found = self._find(object_id)
        if found is None or found.type is None or found.owner != Owner("object", parent):
            return None
        if len(self.loaded) >= limits.MAX_CACHED_OBJECTS:
            raise _over_limit(
                f"Object runtime cached objects limit ({limits.MAX_CACHED_OBJECTS} entries) reached"
            )
        self.loaded[object_id] = found
        child = Child(found.type, [from_bcs(self.code.layout(found.type), found.contents)])
        self._children[object_id] = _ChildEntry(parent, child, True)
        return child

    def add_child(self, parent: bytes, object_id: bytes, type_: StructType, value: Value) -> None:
        if object_id not in self._children and len(self._children) >= limits.MAX_STORED_OBJECTS:
            raise _over_limit(f"Object runtime store limit ({limits.MAX_STORED_OBJECTS} entries) reached")
        self._children[object_id] = _ChildEntry(parent, Child(type_, [value]), True)

    def remove_child(self, parent: bytes, object_id: bytes) -> None:
        self._children[object_id].present = False

    def feature_enabled(self, name: str) -> bool:
        return False

    # --- the end of the transaction

    def children(self) -> dict[bytes, Placed]:
        """Dynamic fields that exist at the end and were touched, by id."""
        return {
            identifier: Placed(entry.child.type, entry.child.slot[0], Owner("object", entry.parent))
            for identifier, entry in self._children.items()
            if entry.present and isinstance(entry.child.type, StructType)
        }


def _over_limit(message: str) -> VmError:
    return VmError("MEMORY_LIMIT_EXCEEDED", message)
