"""What the natives of Sui's framework need from whoever runs a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from k3s_daas.attestation import Root

from .errors import VmError
from .types import StructType, Type
from .values import Value


@dataclass(slots=True)
class Child:
    """A dynamic field (or dynamic object field) as the VM works on it.

    `slot` holds exactly one value; the VM hands out references into it, so a host must keep the Child as
    long as the transaction runs and read `slot[0]` at its end to see what was written.
    """

    type: Type
    slot: list[Value]


class Host(Protocol):
    """One transaction's surroundings. Ids and addresses are 32 bytes, gas amounts MIST, times ms.

    A method may raise VmError (a limit, an impossible state) or NativeAbort(code) (the framework's own
    abort codes); the interpreter adds the location.
    """

    @property
    def sender(self) -> bytes: ...
    @property
    def sponsor(self) -> bytes | None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def epoch_timestamp_ms(self) -> int: ...
    @property
    def reference_gas_price(self) -> int: ...
    @property
    def gas_price(self) -> int: ...
    @property
    def gas_budget(self) -> int: ...
    @property
    def ids_created(self) -> int: ...
    @property
    def simulated_nitro_root(self) -> Root | None:
        """Root of an attestation emulator, believed beside the AWS root; None on a network like the real."""
        ...

    def fresh_id(self) -> bytes:
        """The next object id of the transaction; counts as a new uid."""
        ...

    def record_new_uid(self, object_id: bytes) -> None: ...

    def delete_uid(self, object_id: bytes) -> None: ...

    def emit(self, type_: StructType, value: Value) -> None: ...

    def transfer(self, type_: StructType, value: Value, recipient: bytes) -> None: ...

    def share(self, type_: StructType, value: Value) -> None: ...

    def freeze(self, type_: StructType, value: Value) -> None: ...

    def receive(self, parent: bytes, object_id: bytes, version: int, type_: StructType) -> Value:
        """The value of an object sent to `parent`. NativeAbort 3: cannot be received, 2: of another type."""
        ...

    def child(self, parent: bytes, object_id: bytes) -> Child | None:
        """The dynamic field, loaded when first asked for; None when there is none (or it was removed)."""
        ...

    def add_child(self, parent: bytes, object_id: bytes, type_: StructType, value: Value) -> None:
        """Called only when `child` gave None."""
        ...

    def remove_child(self, parent: bytes, object_id: bytes) -> None:
        """Called after `child`; its value lives on in the program, so it must not be read any more."""
        ...

    def feature_enabled(self, name: str) -> bool:
        """Protocol feature flags as `sui::protocol_config` asks for them."""
        ...


class PureHost:
    """A host for pure calls (views, tests): no ids, no objects, no events."""

    sender = bytes(32)
    sponsor: bytes | None = None
    epoch = 0
    epoch_timestamp_ms = 0
    reference_gas_price = 1000
    gas_price = 1000
    gas_budget = 0
    ids_created = 0
    simulated_nitro_root: Root | None = None

    def _refuse(self, *_: Any) -> Any:
        raise VmError("UNSUPPORTED", "this call may not touch objects, ids or events")

    fresh_id = record_new_uid = delete_uid = emit = transfer = share = freeze = _refuse
    receive = add_child = remove_child = _refuse

    def child(self, parent: bytes, object_id: bytes) -> Child | None:
        return None

    def feature_enabled(self, name: str) -> bool:
        return False
