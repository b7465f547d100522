"""From our Transaction to the bytes that are signed: BCS of Sui's TransactionData.

Written here rather than with pysui's BCS, which encodes a type argument `vector<u8>` wrongly, can't encode an
address as one, and takes a bytecode module apart byte by byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import base58

from k3s_daas.chain import bcs
from k3s_daas.chain.errors import ObjectNotFound
from k3s_daas.chain.transaction import Arg, Call, Command, Merge, Publish, Pure, Split, Transaction, Transfer

# Variant numbers, in the order of Sui's enums.
_V1 = _PROGRAMMABLE = _NO_EXPIRATION = b"\0"
_PURE, _OBJECT = b"\0", b"\1"
_OWNED, _SHARED = b"\0", b"\1"
_GAS_COIN, _INPUT, _RESULT, _NESTED_RESULT = b"\0", b"\1", b"\2", b"\3"
_MOVE_CALL, _TRANSFER, _SPLIT, _MERGE, _PUBLISH = b"\0", b"\1", b"\2", b"\3", b"\4"
_UPGRADE = b"\6"


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


def transaction_bytes(
    tx: Transaction, refs: dict[str, ObjectRef], gas: Gas, merge: Sequence[ObjectRef] = ()
) -> bytes:
    """BCS of the TransactionData. `merge` are coins joined to the gas coin first: a payment takes 256.

    Raises ObjectNotFound for an object that `refs` doesn't have.
    """
    inputs = []
    for item in tx.inputs:
        if isinstance(item, Pure):
            inputs.append(_PURE + bcs.data(item.encoded))
        elif item.id in refs:
            inputs.append(_object(refs[item.id], item.mutable))
        else:
            raise ObjectNotFound(item.id)
    commands = []
    if merge:
        coins = [Arg("input", len(inputs) + number) for number in range(len(merge))]
        inputs += [_object(ref, True) for ref in merge]
        commands.append(_command(Merge(tx.GAS, tuple(coins)), 0))
    offset = len(commands)
    commands += [_command(command, offset) for command in tx.commands]
    sender = bcs.address(tx.sender)
    return b"".join(
        (
            _V1 + _PROGRAMMABLE,
            bcs.vector(inputs),
            bcs.vector(commands),
            sender,
            bcs.vector(_reference(ref) for ref in gas.payment),
            sender,
            bcs.unsigned(gas.price, 8),
            bcs.unsigned(gas.budget, 8),
            _NO_EXPIRATION,
        )
    )


def transaction_digest(encoded: bytes) -> str:
    """The transaction's name on-chain, known before it is sent."""
    digest = hashlib.blake2b(b"TransactionData::" + encoded, digest_size=32).digest()
    return base58.b58encode(digest).decode()


def _object(ref: ObjectRef, mutable: bool) -> bytes:
    if ref.shared_since is None:
        return _OBJECT + _OWNED + _reference(ref)
    since = bcs.unsigned(ref.shared_since, 8)
    return _OBJECT + _SHARED + bcs.address(ref.id) + since + (b"\1" if mutable else b"\0")


def _reference(ref: ObjectRef) -> bytes:
    digest = bcs.data(base58.b58decode(ref.digest))
    return bcs.address(ref.id) + bcs.unsigned(ref.version, 8) + digest


def _argument(arg: Arg, offset: int) -> bytes:
    if arg.kind == "gas":
        return _GAS_COIN
    if arg.kind == "input":
        return _INPUT + bcs.unsigned(arg.index, 2)
    index = bcs.unsigned(arg.index + offset, 2)
    return _RESULT + index if arg.part is None else _NESTED_RESULT + index + bcs.unsigned(arg.part, 2)


def _command(command: Command, offset: int) -> bytes:
    """`offset` is how many commands were put before those of the transaction."""

    def one(arg: Arg) -> bytes:
        return _argument(arg, offset)

    def many(args: Sequence[Arg]) -> bytes:
        return bcs.vector(map(one, args))

    match command:
        case Call():
            target = bcs.address(command.package) + bcs.string(command.module) + bcs.string(command.function)
            return _MOVE_CALL + target + bcs.vector(map(bcs.type_tag, command.type_args)) + many(command.args)
        case Transfer():
            return _TRANSFER + many(command.objects) + one(command.to)
        case Split():
            return _SPLIT + one(command.coin) + many(command.amounts)
        case Merge():
            return _MERGE + one(command.into) + many(command.coins)
        case _:
            code = bcs.vector(map(bcs.data, command.modules))
            code += bcs.vector(map(bcs.address, command.dependencies))
            if isinstance(command, Publish):
                return _PUBLISH + code
            return _UPGRADE + code + bcs.address(command.package) + one(command.ticket)
