"""Transactions as signed bytes: BCS ``TransactionData``, read and written."""

from __future__ import annotations

from dataclasses import replace

from ..vm.types import encode_type, read_type
from .encoding import Reader, byte_string, text, u16, u64, vector
from .errors import Refused
from .transaction import (
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


def parse(raw: bytes) -> TransactionData:
    """Reads BCS ``TransactionData``.

    :raises Refused: the bytes are no programmable transaction of version 1.
    """
    try:
        return _Parser(raw).transaction()
    except ValueError as error:
        raise Refused(f"Deserialization of the transaction failed: {error}") from error


class _Parser:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._reader = Reader(raw)

    def transaction(self) -> TransactionData:
        reader = self._reader
        if (version := reader.uleb()) != 0:
            raise ValueError(f"transaction data V1 wanted, found variant {version}")
        if (kind := reader.uleb()) != 0:
            raise ValueError(f"a programmable transaction wanted, found kind {kind}")
        inputs = tuple(reader.vector(self._input))
        commands = tuple(reader.vector(self._command))
        sender = reader.address()
        payment = tuple(reader.vector(self._ref))
        gas_owner = reader.address()
        price, budget = reader.u64(), reader.u64()
        starts_at, expires_after, chain = self._expiration()
        reader.finish()
        return TransactionData(
            inputs,
            commands,
            sender,
            payment,
            gas_owner,
            price,
            budget,
            expires_after=expires_after,
            starts_at=starts_at,
            chain=chain,
            raw=self._raw,
        )

    def _expiration(self) -> tuple[int | None, int | None, bytes | None]:
        reader = self._reader
        match reader.uleb():
            case 0:
                return None, None, None
            case 1:
                return None, reader.u64(), None
            case 2:
                first, last = self._optional_u64(), self._optional_u64()
                for _ in range(2):
                    if self._optional_u64() is not None:
                        raise ValueError("expiration by timestamp is not supported")
                chain = reader.byte_string()
                reader.take(4)  # a nonce: it only makes otherwise equal transactions differ
                return first, last, chain
            case other:
                raise ValueError(f"unknown expiration variant {other}")

    def _optional_u64(self) -> int | None:
        return self._reader.u64() if self._reader.boolean() else None

    def _ref(self) -> ObjectRef:
        reader = self._reader
        object_id, version, digest = reader.address(), reader.u64(), reader.byte_string()
        if len(digest) != 32:
            raise ValueError(f"an object digest has 32 bytes, found {len(digest)}")
        return ObjectRef(object_id, version, digest)

    def _input(self) -> Input:
        reader = self._reader
        match reader.uleb():
            case 0:
                return PureInput(reader.byte_string())
            case 1:
                pass
            case 2:
                raise ValueError("withdrawals from address balances are not supported: pay with coins")
            case other:
                raise ValueError(f"unknown input variant {other}")
        match reader.uleb():
            case 0:
                return OwnedInput(self._ref())
            case 1:
                return SharedInput(reader.address(), reader.u64(), reader.boolean())
            case 2:
                return ReceivingInput(self._ref())
            case other:
                raise ValueError(f"unknown object argument variant {other}")

    def _argument(self) -> Argument:
        reader = self._reader
        match reader.uleb():
            case 0:
                return GAS
            case 1:
                return Argument("input", reader.u16())
            case 2:
                return Argument("result", reader.u16())
            case 3:
                return Argument("nested", reader.u16(), reader.u16())
            case other:
                raise ValueError(f"unknown argument variant {other}")

    def _arguments(self) -> tuple[Argument, ...]:
        return tuple(self._reader.vector(self._argument))

    def _command(self) -> Command:
        reader = self._reader
        match reader.uleb():
            case 0:
                package, module, function = reader.address(), reader.text(), reader.text()
                types = tuple(reader.vector(lambda: read_type(reader)))
                return MoveCall(package, module, function, types, self._arguments())
            case 1:
                return TransferObjects(self._arguments(), self._argument())
            case 2:
                return SplitCoins(self._argument(), self._arguments())
            case 3:
                return MergeCoins(self._argument(), self._arguments())
            case 4:
                return Publish(tuple(reader.vector(reader.byte_string)), tuple(reader.vector(reader.address)))
            case 5:
                element = read_type(reader) if reader.boolean() else None
                return MakeVector(element, self._arguments())
            case 6:
                return Upgrade(
                    tuple(reader.vector(reader.byte_string)),
                    tuple(reader.vector(reader.address)),
                    reader.address(),
                    self._argument(),
                )
            case other:
                raise ValueError(f"unknown command variant {other}")


def encode(data: TransactionData) -> TransactionData:
    """The same transaction with its ``raw`` bytes filled in; one without a chain or start epoch only."""
    body = (
        b"\x00\x00"
        + vector(_encode_input(item) for item in data.inputs)
        + vector(_encode_command(item) for item in data.commands)
        + data.sender
        + vector(_encode_ref(item) for item in data.payment)
        + data.gas_owner
        + u64(data.price)
        + u64(data.budget)
        + (b"\x00" if data.expires_after is None else b"\x01" + u64(data.expires_after))
    )
    return replace(data, raw=body)


def _encode_ref(ref: ObjectRef) -> bytes:
    return ref.object_id + u64(ref.version) + byte_string(ref.digest)


def _encode_input(item: Input) -> bytes:
    match item:
        case PureInput():
            return b"\x00" + byte_string(item.data)
        case OwnedInput():
            return b"\x01\x00" + _encode_ref(item.ref)
        case SharedInput():
            return b"\x01\x01" + item.object_id + u64(item.initial_version) + bytes([item.mutable])
        case ReceivingInput():
            return b"\x01\x02" + _encode_ref(item.ref)


def _encode_argument(argument: Argument) -> bytes:
    match argument.kind:
        case "gas":
            return b"\x00"
        case "input":
            return b"\x01" + u16(argument.position)
        case "result":
            return b"\x02" + u16(argument.position)
        case _:
            return b"\x03" + u16(argument.position) + u16(argument.nested)


def _encode_arguments(arguments: tuple[Argument, ...]) -> bytes:
    return vector(_encode_argument(argument) for argument in arguments)


def _encode_command(command: Command) -> bytes:
    match command:
        case MoveCall():
            return (
                b"\x00"
                + command.package
                + text(command.module)
                + text(command.function)
                + vector(encode_type(item) for item in command.type_arguments)
                + _encode_arguments(command.arguments)
            )
        case TransferObjects():
            return b"\x01" + _encode_arguments(command.objects) + _encode_argument(command.recipient)
        case SplitCoins():
            return b"\x02" + _encode_argument(command.coin) + _encode_arguments(command.amounts)
        case MergeCoins():
            return b"\x03" + _encode_argument(command.target) + _encode_arguments(command.sources)
        case Publish():
            return b"\x04" + vector(map(byte_string, command.modules)) + vector(command.dependencies)
        case MakeVector():
            element = b"\x00" if command.element is None else b"\x01" + encode_type(command.element)
            return b"\x05" + element + _encode_arguments(command.elements)
        case Upgrade():
            return (
                b"\x06"
                + vector(map(byte_string, command.modules))
                + vector(command.dependencies)
                + command.package
                + _encode_argument(command.ticket)
            )
