"""Transactions between their ledger form and sui.rpc.v2 messages."""

from __future__ import annotations

from typing import Any

from ..ledger import encoding, wire
from ..ledger.encoding import base58, hex_address
from ..ledger.errors import Refused
from ..ledger.inputs import Find
from ..ledger.transaction import (
    GAS,
    Argument,
    Command,
    Input,
    MakeVector,
    MergeCoins,
    MoveCall,
    ObjectRef,
    OwnedInput,
    Publish,
    PureInput,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
)
from ..vm import CodeStore
from ..vm.types import parse_type, type_to_string
from . import resolve
from .protocol import Message, v2


def to_message(data: TransactionData) -> Message:
    """A ``sui.rpc.v2.Transaction`` with its BCS."""
    expiration = v2.TransactionExpiration(kind=v2.TransactionExpirationTransactionExpirationKind.NONE)
    if data.expires_after is not None:
        expiration.epoch = data.expires_after
        kinds = v2.TransactionExpirationTransactionExpirationKind
        expiration.kind = kinds.EPOCH if data.chain is None else kinds.VALID_DURING
    return v2.Transaction(
        bcs=v2.Bcs(name="TransactionData", value=data.raw),
        digest=base58(data.digest),
        version=1,
        kind=v2.TransactionKind(
            kind=v2.TransactionKindKind.PROGRAMMABLE_TRANSACTION,
            programmable_transaction=v2.ProgrammableTransaction(
                inputs=[_input(item) for item in data.inputs],
                commands=[_command(item) for item in data.commands],
            ),
        ),
        sender=hex_address(data.sender),
        gas_payment=v2.GasPayment(
            objects=[_ref(item) for item in data.payment],
            owner=hex_address(data.gas_owner),
            price=data.price,
            budget=data.budget,
        ),
        expiration=expiration,
    )


def _ref(ref: ObjectRef) -> Message:
    return v2.ObjectReference(
        object_id=hex_address(ref.object_id), version=ref.version, digest=base58(ref.digest)
    )


def _input(item: Input) -> Message:
    kinds = v2.InputInputKind
    match item:
        case PureInput():
            return v2.Input(kind=kinds.PURE, pure=item.data)
        case SharedInput():
            return v2.Input(
                kind=kinds.SHARED,
                object_id=hex_address(item.object_id),
                version=item.initial_version,
                mutable=item.mutable,
                mutability=v2.InputMutability.MUTABLE if item.mutable else v2.InputMutability.IMMUTABLE,
            )
        case OwnedInput() | ReceivingInput():
            return v2.Input(
                kind=kinds.IMMUTABLE_OR_OWNED if isinstance(item, OwnedInput) else kinds.RECEIVING,
                object_id=hex_address(item.ref.object_id),
                version=item.ref.version,
                digest=base58(item.ref.digest),
            )


def _argument(argument: Argument) -> Message:
    kinds = v2.ArgumentArgumentKind
    match argument.kind:
        case "gas":
            return v2.Argument(kind=kinds.GAS)
        case "input":
            return v2.Argument(kind=kinds.INPUT, input=argument.position)
        case "result":
            return v2.Argument(kind=kinds.RESULT, result=argument.position)
        case _:
            return v2.Argument(kind=kinds.RESULT, result=argument.position, subresult=argument.nested)


def _arguments(arguments: tuple[Argument, ...]) -> list[Message]:
    return [_argument(argument) for argument in arguments]


def _command(command: Command) -> Message:
    match command:
        case MoveCall():
            call = v2.MoveCall(
                package=hex_address(command.package),
                module=command.module,
                function=command.function,
                type_arguments=[type_to_string(item) for item in command.type_arguments],
                arguments=_arguments(command.arguments),
            )
            return v2.Command(move_call=call)
        case TransferObjects():
            transfer = v2.TransferObjects(
                objects=_arguments(command.objects), address=_argument(command.recipient)
            )
            return v2.Command(transfer_objects=transfer)
        case SplitCoins():
            split = v2.SplitCoins(coin=_argument(command.coin), amounts=_arguments(command.amounts))
            return v2.Command(split_coins=split)
        case MergeCoins():
            merge = v2.MergeCoins(coin=_argument(command.target), coins_to_merge=_arguments(command.sources))
            return v2.Command(merge_coins=merge)
        case Publish():
            publish = v2.Publish(
                modules=list(command.modules),
                dependencies=[hex_address(item) for item in command.dependencies],
            )
            return v2.Command(publish=publish)
        case MakeVector():
            element = None if command.element is None else type_to_string(command.element)
            vector = v2.MakeMoveVector(element_type=element, elements=_arguments(command.elements))
            return v2.Command(make_move_vector=vector)
        case Upgrade():
            upgrade = v2.Upgrade(
                modules=list(command.modules),
                dependencies=[hex_address(item) for item in command.dependencies],
                package=hex_address(command.package),
                ticket=_argument(command.ticket),
            )
            return v2.Command(upgrade=upgrade)


def from_message(message: Message, *, price: int, find: Find, code: CodeStore) -> TransactionData:
    """Reads a transaction out of a request: from its BCS when it has one, else from its fields.

    :param price: gas price in MIST for a transaction that names none.
    :param find: gives the objects that it names by id alone.
    :raises Refused: it is incomplete or malformed.
    """
    if message is None:
        raise Refused("The request holds no transaction")
    if message.bcs is not None and message.bcs.value:
        return wire.parse(message.bcs.value)
    kind = message.kind
    programmable = kind.programmable_transaction if kind is not None else None
    if programmable is None or not message.sender:
        raise Refused("The request holds neither BCS nor a programmable transaction with its sender")
    try:
        sender = _address(message.sender)
        payment = message.gas_payment
        commands = tuple(_read_command(item) for item in programmable.commands)
        last = _read_expiration(message.expiration)
        data = TransactionData(
            inputs=tuple(
                _read_input(item, position, commands, find, code)
                for position, item in enumerate(programmable.inputs)
            ),
            commands=commands,
            sender=sender,
            payment=tuple(_read_ref(item) for item in payment.objects) if payment else (),
            gas_owner=_address(payment.owner) if payment and payment.owner else sender,
            price=(payment.price if payment else None) or price,
            budget=(payment.budget if payment else None) or 0,
            expires_after=last,
        )
        return wire.encode(data)
    except ValueError as error:
        raise Refused(f"The transaction in the request is malformed: {error}") from error


def _address(text: str | None) -> bytes:
    return encoding.address(text or "")


def _read_expiration(message: Message) -> int | None:
    kinds = v2.TransactionExpirationTransactionExpirationKind
    if message is None or message.kind in (None, kinds.TRANSACTION_EXPIRATION_KIND_UNKNOWN, kinds.NONE):
        return None
    if message.kind != kinds.EPOCH:
        raise ValueError(f"expiration {message.kind} is only supported in BCS")
    return message.epoch or 0


def _read_ref(message: Message) -> ObjectRef:
    # Only the id is needed to simulate: an absent version means the current one.
    digest = encoding.from_base58(message.digest) if message.digest else b""
    return ObjectRef(_address(message.object_id), message.version or 0, digest)


def _read_input(
    message: Message, position: int, commands: tuple[Command, ...], find: Find, code: CodeStore
) -> Input:
    kinds = v2.InputInputKind
    if message.object_id is None:
        if message.pure is None:
            raise ValueError("an input that is neither a plain value nor an object is not supported")
        return PureInput(bytes(message.pure))
    match message.kind:
        case kinds.SHARED:
            mutable = bool(message.mutable) or message.mutability == v2.InputMutability.MUTABLE
            return SharedInput(_address(message.object_id), message.version or 0, mutable)
        case kinds.RECEIVING:
            return ReceivingInput(_read_ref(message))
        case kinds.IMMUTABLE_OR_OWNED:
            return OwnedInput(_read_ref(message))
        case _:
            object_id = _address(message.object_id)
            return resolve.unresolved(object_id, message, position, commands, find, code)


def _read_argument(message: Message) -> Argument:
    kinds = v2.ArgumentArgumentKind
    if message is None:
        raise ValueError("a command lacks an argument")
    match message.kind:
        case kinds.GAS:
            return GAS
        case kinds.INPUT:
            return Argument("input", message.input or 0)
        case kinds.RESULT if message.subresult is not None:
            return Argument("nested", message.result or 0, message.subresult)
        case kinds.RESULT:
            return Argument("result", message.result or 0)
        case other:
            raise ValueError(f"unknown argument kind {other}")


def _read_arguments(messages: list[Any]) -> tuple[Argument, ...]:
    return tuple(_read_argument(item) for item in messages)


def _read_command(message: Message) -> Command:
    if (call := message.move_call) is not None:
        return MoveCall(
            _address(call.package),
            call.module or "",
            call.function or "",
            tuple(parse_type(item) for item in call.type_arguments),
            _read_arguments(call.arguments),
        )
    if (transfer := message.transfer_objects) is not None:
        return TransferObjects(_read_arguments(transfer.objects), _read_argument(transfer.address))
    if (split := message.split_coins) is not None:
        return SplitCoins(_read_argument(split.coin), _read_arguments(split.amounts))
    if (merge := message.merge_coins) is not None:
        return MergeCoins(_read_argument(merge.coin), _read_arguments(merge.coins_to_merge))
    if (publish := message.publish) is not None:
        dependencies = tuple(_address(item) for item in publish.dependencies)
        return Publish(tuple(publish.modules), dependencies)
    if (vector := message.make_move_vector) is not None:
        element = parse_type(vector.element_type) if vector.element_type else None
        return MakeVector(element, _read_arguments(vector.elements))
    if (upgrade := message.upgrade) is not None:
        return Upgrade(
            tuple(upgrade.modules),
            tuple(_address(item) for item in upgrade.dependencies),
            _address(upgrade.package),
            _read_argument(upgrade.ticket),
        )
    raise ValueError("unknown command")
