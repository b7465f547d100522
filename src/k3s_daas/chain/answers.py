"""From the node's messages to our records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from k3s_daas.chain.errors import ChainError, MalformedRecord, MoveAbort, TransactionFailed
from k3s_daas.chain.messages import rpc
from k3s_daas.chain.model import Event, Object
from k3s_daas.chain.txbytes import ObjectRef

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_object(found: Any) -> Object:
    return Object(
        id=found.object_id,
        version=found.version or 0,
        type=found.object_type or "",
        owner=_owner(found.owner),
        json=_struct(found.json) if found.json is not None else {},
        digest=found.digest or "",
    )


def to_reference(found: Any) -> ObjectRef:
    kind = rpc.OwnerOwnerKind
    shared = found.owner is not None and found.owner.kind in (kind.SHARED, kind.CONSENSUS_ADDRESS)
    return ObjectRef(
        found.object_id, found.version or 0, found.digest, found.owner.version if shared else None
    )


def _owner(owner: Any) -> str:
    if owner is None:
        return ""
    if owner.kind == rpc.OwnerOwnerKind.SHARED:
        return "shared"
    if owner.kind == rpc.OwnerOwnerKind.IMMUTABLE:
        return "immutable"
    return str(owner.address or "")


def _struct(value: Any) -> dict[str, Any]:
    rendered = value.to_dict()
    if not isinstance(rendered, dict):
        raise MalformedRecord(f"Found a {type(rendered).__name__} rendered by the node, wanted a struct")
    return rendered


def to_events(digest: str, events: Any, packages: frozenset[str] | None = None) -> list[Event]:
    """The events of one transaction; with `packages`, only of types these define."""
    found = []
    for index, event in enumerate(events.events if events is not None else ()):
        kind = event.event_type or ""
        # The index counts all of the transaction's events, whoever they belong to.
        if packages is None or kind.partition("::")[0] in packages:
            json = _struct(event.json) if event.json is not None else {}
            found.append(Event(digest, index, kind, json, event.sender or ""))
    return found


def net_gas(effects: Any) -> int:
    """What a transaction costs in the end, in MIST: negative when it frees more storage than it uses."""
    used = effects.gas_used
    if used is None:
        return 0
    return (used.computation_cost or 0) + (used.storage_cost or 0) - (used.storage_rebate or 0)


def milliseconds(moment: datetime | None) -> int:
    """Exact, unlike datetime.timestamp(), which is a float."""
    if moment is None:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def failure(effects: Any, digest: str | None) -> ChainError | None:
    """The error in a transaction's effects. An answered call is no success: only this status says so."""
    status = effects.status if effects is not None else None
    if status is None:
        return TransactionFailed(digest, "the node's answer has no status")
    if status.success:
        return None
    error = status.error
    if error is None:
        return TransactionFailed(digest, "the node gives no reason")
    if error.abort is not None:
        where, clever = error.abort.location, error.abort.clever_error
        return MoveAbort(
            module=(where.module if where else None) or "?",
            function=(where.function_name if where else None) or "?",
            code=error.abort.abort_code or 0,
            name=clever.constant_name if clever else None,
            message=clever.rendered if clever else None,
            digest=digest,
        )
    kind = error.kind.name if error.kind is not None and error.kind.name else "failure"
    return TransactionFailed(digest, f"{kind}: {error.description or 'no description'}")
