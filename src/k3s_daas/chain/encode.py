"""From our Transaction to the bytes that are signed, and from the node's messages to our records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import base58
import pysui.sui.sui_bcs.bcs as sui_bcs

from k3s_daas.chain.errors import ChainError, MalformedRecord, MoveAbort, ObjectNotFound, TransactionFailed
from k3s_daas.chain.model import Event, Object
from k3s_daas.chain.transaction import Arg, Call, Merge, Pure, Split, Transaction, Transfer
from k3s_daas.chain.transport import rpc

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ObjectRef:
    """What a transaction says of an object it takes. `shared_since` is None for owned and immutable ones."""

    id: str
    version: int
    digest: str
    shared_since: int | None


@dataclass(frozen=True)
class Gas:
    """Who pays what. No `payment` in a simulation: the node then lends a coin. Amounts in MIST."""

    price: int
    budget: int
    payment: Sequence[ObjectRef] = ()


# -- transactions ------------------------------------------------------------------------------------------


def transaction_bytes(
    tx: Transaction, refs: dict[str, ObjectRef], gas: Gas, merge: Sequence[ObjectRef] = ()
) -> bytes:
    """BCS of the TransactionData. `merge` are coins joined to the gas coin first: a payment takes 256."""
    inputs = []
    for item in tx.inputs:
        if isinstance(item, Pure):
            inputs.append(sui_bcs.CallArg("Pure", list(item.encoded)))
        else:
            if item.id not in refs:
                raise ObjectNotFound(item.id)
            inputs.append(_object_input(refs[item.id], item.mutable))
    commands = []
    if merge:
        first = len(inputs)
        inputs += [_object_input(ref, True) for ref in merge]
        coins = [sui_bcs.Argument("Input", first + i) for i in range(len(merge))]
        commands.append(sui_bcs.Command("MergeCoins", sui_bcs.MergeCoins(_argument(tx.GAS, 0), coins)))
    offset = len(commands)
    commands += [_command(command, offset) for command in tx.commands]
    sender = _address(tx.sender)
    data = sui_bcs.TransactionData(
        "V1",
        sui_bcs.TransactionDataV1(
            sui_bcs.TransactionKind(
                "ProgrammableTransaction", sui_bcs.ProgrammableTransaction(inputs, commands)
            ),
            sender,
            sui_bcs.GasData([_reference(ref) for ref in gas.payment], sender, gas.price, gas.budget),
            sui_bcs.TransactionExpiration("None"),
        ),
    )
    return bytes(data.serialize())


def transaction_digest(encoded: bytes) -> str:
    """The transaction's name on-chain, known before it is sent."""
    digest = hashlib.blake2b(b"TransactionData::" + encoded, digest_size=32).digest()
    return base58.b58encode(digest).decode()


def _object_input(ref: ObjectRef, mutable: bool) -> Any:
    if ref.shared_since is None:
        return sui_bcs.CallArg("Object", sui_bcs.ObjectArg("ImmOrOwnedObject", _reference(ref)))
    shared = sui_bcs.SharedObjectReference(_address(ref.id), ref.shared_since, mutable)
    return sui_bcs.CallArg("Object", sui_bcs.ObjectArg("SharedObject", shared))


def _reference(ref: ObjectRef) -> Any:
    return sui_bcs.ObjectReference(_address(ref.id), ref.version, sui_bcs.Digest.from_str(ref.digest))


def _address(text: str) -> Any:
    return sui_bcs.Address.from_str(text)


def _argument(arg: Arg, offset: int) -> Any:
    if arg.kind == "gas":
        return sui_bcs.Argument("GasCoin")
    if arg.kind == "input":
        return sui_bcs.Argument("Input", arg.index)
    if arg.part is None:
        return sui_bcs.Argument("Result", arg.index + offset)
    return sui_bcs.Argument("NestedResult", (arg.index + offset, arg.part))


def _command(command: Any, offset: int) -> Any:
    def args(of: Sequence[Arg]) -> list[Any]:
        return [_argument(arg, offset) for arg in of]

    match command:
        case Call():
            types = [sui_bcs.TypeTag.type_tag_from(text) for text in command.type_args]
            target = (_address(command.package), command.module, command.function)
            return sui_bcs.Command(
                "MoveCall", sui_bcs.ProgrammableMoveCall(*target, types, args(command.args))
            )
        case Split():
            split = sui_bcs.SplitCoin(_argument(command.coin, offset), args(command.amounts))
            return sui_bcs.Command("SplitCoin", split)
        case Merge():
            merge = sui_bcs.MergeCoins(_argument(command.into, offset), args(command.coins))
            return sui_bcs.Command("MergeCoins", merge)
        case Transfer():
            transfer = sui_bcs.TransferObjects(args(command.objects), _argument(command.to, offset))
            return sui_bcs.Command("TransferObjects", transfer)
        case _:
            modules = [list(code) for code in command.modules]
            publish = sui_bcs.Publish(modules, [_address(i) for i in command.dependencies])
            return sui_bcs.Command("Publish", publish)


# -- answers -----------------------------------------------------------------------------------------------


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
