"""The newest sealed snapshot of the master's state, as the chain anchors it. Times in ms since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3s_daas.chain.errors import ChainError, MalformedRecord
from k3s_daas.chain.model import Receipt
from k3s_daas.registry.agreed import AgreedRegistry, EndpointsDisagree
from k3s_daas.registry.client import CLOCK_ID, Registry
from k3s_daas.registry.model import Fields
from k3s_daas.registry.operation import Operation

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Transaction

HASH_BYTES = 32
#: An empty struct is one false byte on-chain.
_ANCHOR_KEY = b"\0"


class NothingToAbandon(ChainError):
    """No snapshot is anchored, or the last one is given up already."""


@dataclass(frozen=True)
class Anchor:
    """`counter` is 1 for the first. `hash` is the SHA-256 of the sealed file; empty once it was given up."""

    counter: int
    hash: bytes
    epoch: int
    anchored_at_ms: int

    @property
    def abandoned(self) -> bool:
        return not self.hash


async def read_anchor(registry: Registry) -> Anchor | None:
    """None until the first snapshot. Raises what `k3s_daas.chain` raises."""
    key = f"{registry.deployment.types_id}::snapshots::AnchorKey"
    found = await registry.chain.dynamic_field(registry.deployment.registry_id, key, _ANCHOR_KEY)
    if found is None:
        return None
    fields = Fields(found.json, "Anchor field").struct("value")
    anchor = Anchor(
        fields.number("counter"), fields.data("hash"), fields.number("epoch"), fields.number("anchored_at_ms")
    )
    if len(anchor.hash) not in (0, HASH_BYTES):
        raise MalformedRecord(f"The anchor's hash has {len(anchor.hash)} bytes, wanted {HASH_BYTES} or none.")
    return anchor


class Anchors:
    """Reads and moves the anchor of one registry."""

    def __init__(self, registry: AgreedRegistry) -> None:
        self._registry = registry

    async def newest(self) -> Anchor | None:
        """What all endpoints that answer agree on. Raises EndpointsDisagree, and as `read_anchor`."""
        answers = await self._registry.each(read_anchor)
        if any(answer != answers[0] for answer in answers):
            said = [0 if answer is None else answer.counter for answer in answers]
            raise EndpointsDisagree(
                f"Endpoints disagree on the newest snapshot: numbers {said}. Wanted: one answer. One of them "
                "lags or lies; nothing is restored or sealed until they agree."
            )
        return answers[0]

    async def anchor(self, counter: int, previous: bytes, hash_: bytes) -> Receipt:
        """Anchor the next snapshot (needs the live MasterCap). `previous` is the hash of the one before, or
        empty where there is none. MoveAbort when another was anchored meanwhile."""
        registry = self._registry
        cap = await registry.cap("MasterCap")

        async def build(tx: Transaction) -> None:
            clock = tx.object(CLOCK_ID, mutable=False)
            args = tx.object(cap), tx.u64(counter), tx.data(previous), tx.data(hash_), clock
            registry.call(tx, "snapshots::anchor_snapshot", *args)

        return await registry.chain.execute(build)


async def plan_abandoning(registry: Registry) -> tuple[Anchor, Operation]:
    """(the newest snapshot, what to send) of its being given up. NothingToAbandon when there is none;
    MissingCap without OperatorCap."""
    anchor = await read_anchor(registry)
    if anchor is None or anchor.abandoned:
        found = "no snapshot anchored" if anchor is None else f"number {anchor.counter} given up already"
        raise NothingToAbandon(
            f"Found {found} in registry {registry.deployment.registry_id}, wanted an anchored one. There is "
            "nothing to do."
        )
    cap = await registry.cap("OperatorCap")

    async def build(tx: Transaction) -> None:
        registry.call(tx, "snapshots::abandon_snapshots", tx.object(cap))

    meaning = [
        f"Gives up snapshot {anchor.counter} and all before it: they can never be restored again, and the "
        "next master begins with an empty cluster. Workers stay staked and join anew.",
    ]
    return anchor, Operation([build], meaning=meaning)
