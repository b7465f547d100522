"""Ledger objects, events and outcomes as sui.rpc.v2 messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ..ledger.effects import Change, CommandReturn, Event, Executed
from ..ledger.encoding import base58, hex_address
from ..ledger.errors import ExecutionFailure
from ..ledger.gas import GasSummary
from ..ledger.objects import ID_LENGTH, LedgerObject, Owner
from ..vm.store import CodeStore
from ..vm.types import Reader, StructType, Type, struct, type_to_string
from ..vm.values import from_bcs
from . import packages, transactions
from .masks import Mask
from .protocol import Message, v2, value

_EVERYTHING = Mask()
_FIELD = struct("0x2", "dynamic_field", "Field")[:3]
_WRAPPER = struct("0x2", "dynamic_object_field", "Wrapper")[:3]
_OPERATIONS = {
    "none": v2.ChangedObjectIdOperation.NONE,
    "created": v2.ChangedObjectIdOperation.CREATED,
    "deleted": v2.ChangedObjectIdOperation.DELETED,
}


def timestamp(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def owner(found: Owner) -> Message:
    kinds = v2.OwnerOwnerKind
    match found.kind:
        case "address":
            return v2.Owner(kind=kinds.ADDRESS, address=hex_address(found.address))
        case "object":
            return v2.Owner(kind=kinds.OBJECT, address=hex_address(found.address))
        case "shared":
            return v2.Owner(kind=kinds.SHARED, version=found.version)
        case _:
            return v2.Owner(kind=kinds.IMMUTABLE)


def type_name(item: LedgerObject) -> str:
    """Type of an object as clients see it; a package has the type "package"."""
    return "package" if item.type is None else type_to_string(item.type)


def ledger_object(item: LedgerObject, code: CodeStore, mask: Mask = _EVERYTHING) -> Message:
    """An ``Object`` with the fields ``mask`` asks for."""
    message = v2.Object(
        object_id=hex_address(item.object_id),
        version=item.version,
        digest=base58(item.digest),
        owner=owner(item.owner),
        object_type=type_name(item),
        has_public_transfer=item.public_transfer,
        previous_transaction=base58(item.previous),
        storage_rebate=item.rebate,
    )
    if "bcs" in mask:
        message.bcs = v2.Bcs(name="Object", value=item.encoded)
    if item.type is None:
        if "package" in mask:
            message.package = packages.package(item, code)
        return mask.prune(message)
    if "contents" in mask:
        message.contents = v2.Bcs(name=type_name(item), value=item.contents)
    if "json" in mask:
        layout = code.layout(item.type)
        message.json = value(layout.json(from_bcs(layout, item.contents)))
    if item.coin_type is not None:
        message.balance = item.coin_value
    return mask.prune(message)


@dataclass(frozen=True)
class FieldParts:
    """A dynamic field taken apart. ``child`` is the id of the object behind a dynamic object field."""

    name_type: Type
    name: bytes
    value_type: Type
    value: bytes
    child: bytes | None


def split_field(item: LedgerObject, code: CodeStore) -> FieldParts | None:
    """The parts of a ``dynamic_field::Field``; None for any other object."""
    if item.type is None or item.type[:3] != _FIELD:
        return None
    name_type, value_type = item.type.args
    reader = Reader(item.contents, ID_LENGTH)
    code.layout(name_type).decode(reader)
    name, value_ = item.contents[ID_LENGTH : reader.position], item.contents[reader.position :]
    child = None
    if isinstance(name_type, StructType) and name_type[:3] == _WRAPPER:
        name_type, child = name_type.args[0], value_
    return FieldParts(name_type, name, value_type, value_, child)


def command_result(result: CommandReturn) -> Message:
    """What a command of a simulation returned."""
    outputs = [
        v2.CommandOutput(
            value=v2.Bcs(name=type_to_string(item.type), value=item.contents), json=value(item.json)
        )
        for item in result.values
    ]
    return v2.CommandResult(return_values=outputs)


def executed(outcome: Executed, checkpoint: int | None, timestamp_ms: int) -> Message:
    """An ``ExecutedTransaction`` without its object set, which is made when it is asked for."""
    return v2.ExecutedTransaction(
        digest=base58(outcome.digest),
        transaction=transactions.to_message(outcome.transaction),
        signatures=[
            v2.UserSignature(
                bcs=v2.Bcs(name="UserSignatureBytes", value=raw),
                scheme=v2.SignatureScheme(raw[0]),
                simple=v2.SimpleSignature(
                    scheme=v2.SignatureScheme(raw[0]), signature=raw[1:65], public_key=raw[65:]
                ),
            )
            for raw in outcome.signatures
        ],
        effects=_effects(outcome),
        events=_events(outcome),
        checkpoint=checkpoint,
        transaction_index=None if checkpoint is None else 0,
        timestamp=timestamp(timestamp_ms),
        balance_changes=[
            v2.BalanceChange(address=hex_address(address), coin_type=type_to_string(coin), amount=str(amount))
            for (address, coin), amount in sorted(outcome.balance_changes().items())
        ],
    )


def gas_summary(gas: GasSummary) -> Message:
    return v2.GasCostSummary(
        computation_cost=gas.computation,
        storage_cost=gas.storage,
        storage_rebate=gas.rebate,
        non_refundable_storage_fee=gas.non_refundable,
    )


def _events(outcome: Executed) -> Message | None:
    if not outcome.events:
        return None
    sender = hex_address(outcome.transaction.sender)

    def event(index: int, found: Event) -> Message:
        return v2.Event(
            package_id=hex_address(found.package),
            module=found.module,
            sender=sender,
            event_type=type_to_string(found.type),
            contents=v2.Bcs(name=type_to_string(found.type), value=found.contents),
            json=value(found.json),
            event_index=index,
        )

    return v2.TransactionEvents(
        digest=base58(outcome.events_digest),
        events=[event(index, found) for index, found in enumerate(outcome.events)],
    )


def _effects(outcome: Executed) -> Message:
    status = v2.ExecutionStatus(success=outcome.failure is None)
    if outcome.failure is not None:
        status.error = _error(outcome.failure, outcome)
    changes = [_change(change) for change in outcome.changes]
    paid = hex_address(outcome.gas_object) if outcome.gas_object is not None else None
    unchanged = v2.UnchangedConsensusObjectUnchangedConsensusObjectKind.READ_ONLY_ROOT
    return v2.TransactionEffects(
        digest=base58(outcome.effects_digest),
        version=2,
        status=status,
        epoch=outcome.epoch,
        gas_used=gas_summary(outcome.gas),
        transaction_digest=base58(outcome.digest),
        gas_object=next((change for change in changes if change.object_id == paid), None),
        events_digest=base58(outcome.events_digest) if outcome.events else None,
        dependencies=[base58(digest) for digest in outcome.dependencies],
        lamport_version=outcome.lamport,
        changed_objects=changes,
        unchanged_consensus_objects=[
            v2.UnchangedConsensusObject(
                kind=unchanged,
                object_id=hex_address(item.object_id),
                version=item.version,
                digest=base58(item.digest),
                object_type=type_name(item),
            )
            for item in outcome.read
        ],
    )


def _change(change: Change) -> Message:
    before, after = change.before, change.after
    inputs, outputs = v2.ChangedObjectInputObjectState, v2.ChangedObjectOutputObjectState
    named = after or before
    assert named is not None
    message = v2.ChangedObject(
        object_id=hex_address(change.object_id),
        object_type=type_name(named),
        id_operation=_OPERATIONS[change.operation],
        input_state=inputs.DOES_NOT_EXIST,
        output_state=outputs.DOES_NOT_EXIST,
    )
    if before is not None:
        message.input_state = inputs.EXISTS
        message.input_version = before.version
        message.input_digest = base58(before.digest)
        message.input_owner = owner(before.owner)
    if after is not None:
        message.output_state = outputs.OBJECT_WRITE if after.package is None else outputs.PACKAGE_WRITE
        message.output_version = after.version
        message.output_digest = base58(after.digest)
        message.output_owner = owner(after.owner)
    return message


def _error(failure: ExecutionFailure, outcome: Executed) -> Message:
    message = v2.ExecutionError(
        description=failure.description,
        command=failure.command,
        kind=v2.ExecutionErrorExecutionErrorKind[failure.kind],
    )
    if failure.argument is not None:
        index, kind = failure.argument
        message.command_argument_error = v2.CommandArgumentError(
            argument=index, kind=v2.CommandArgumentErrorCommandArgumentErrorKind[kind]
        )
    if failure.type_argument is not None:
        index, kind = failure.type_argument
        message.type_argument_error = v2.TypeArgumentError(
            type_argument=index, kind=v2.TypeArgumentErrorTypeArgumentErrorKind[kind]
        )
    if failure.size is not None:
        message.size_error = v2.SizeError(size=failure.size[0], max_size=failure.size[1])
    if failure.object_id is not None:
        message.object_id = hex_address(failure.object_id)
    if failure.abort is not None:
        message.abort = _abort(failure, outcome)
    if (upgrade := failure.upgrade) is not None:
        message.package_upgrade_error = v2.PackageUpgradeError(
            kind=v2.PackageUpgradeErrorPackageUpgradeErrorKind[upgrade.kind],
            package_id=None if upgrade.package_id is None else hex_address(upgrade.package_id),
            digest=None if upgrade.digest is None else base58(upgrade.digest),
            policy=upgrade.policy,
            ticket_id=None if upgrade.ticket_id is None else hex_address(upgrade.ticket_id),
        )
    return message


def _abort(failure: ExecutionFailure, outcome: Executed) -> Message:
    abort = failure.abort
    assert abort is not None
    message = v2.MoveAbort(
        abort_code=abort.code,
        location=v2.MoveLocation(
            package=hex_address(abort.package),
            module=abort.module,
            function=abort.function,
            instruction=abort.instruction,
            function_name=abort.function_name,
        ),
    )
    if (clever := outcome.clever) is not None:
        message.clever_error = v2.CleverError(
            error_code=clever.error_code,
            line_number=clever.line,
            constant_name=clever.constant_name,
            constant_type=clever.constant_type,
            rendered=clever.rendered,
            raw=clever.raw,
        )
    return message
