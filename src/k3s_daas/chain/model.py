"""What the chain gives back, in plain Python. No pysui type leaves this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: What a Move value looks like as sui.rpc.v2 renders it: u64 and wider as text, vector<u8> as base64.
Json = dict[str, Any]


@dataclass(frozen=True)
class Object:
    """A live object. `owner` is "0x…" (an address or a parent object), "shared" or "immutable"."""

    id: str
    version: int
    type: str
    owner: str
    json: Json
    digest: str


@dataclass(frozen=True)
class Package:
    """Published code. After an upgrade `id` is the new version's, `original_id` still the first one's: types
    and bytecode go on naming that. `modules` is bytecode by name."""

    id: str
    original_id: str
    version: int
    modules: dict[str, bytes]


@dataclass(frozen=True)
class Event:
    """One Move event; (digest, index) identifies it for ever. `type` has 0x + 64 hex addresses."""

    digest: str
    index: int
    type: str
    json: Json
    sender: str


@dataclass(frozen=True)
class CheckpointEvents:
    """One checkpoint, also when it holds no event: progress is information too. Time in ms (Unix).

    `digest` names the checkpoint and, by `previous`, all that came before it: keep it with the sequence.
    """

    sequence: int
    timestamp_ms: int
    events: list[Event]
    digest: str = ""
    previous: str = ""


@dataclass(frozen=True)
class Unsigned:
    """A transaction that `sender` may sign: `encoded` is the BCS of its TransactionData, `digest` its name
    on-chain. Good until one of the coins or owned objects that it names changes."""

    sender: str
    encoded: bytes
    digest: str
    gas_budget_mist: int


@dataclass(frozen=True)
class Preview:
    """What a transaction would do. `gas_mist` is the net cost; a refund is negative."""

    gas_mist: int
    events: list[Event]


@dataclass(frozen=True)
class Receipt:
    """What a transaction did. `created` maps a type ("package" for code) to the new objects' ids."""

    digest: str
    checkpoint: int
    gas_mist: int
    events: list[Event]
    created: dict[str, list[str]]

    def created_of(self, suffix: str) -> list[str]:
        """Ids of the new objects whose type ends in `suffix`, such as "::worker_registry::Registry"."""
        return [i for kind, ids in self.created.items() if kind.endswith(suffix) for i in ids]
