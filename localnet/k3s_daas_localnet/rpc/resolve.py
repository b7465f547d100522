"""Objects that a transaction names by id alone: how it uses them says how they are taken.

Clients send such transactions to be simulated; the answer holds the resolved one, which they sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ledger.encoding import hex_address
from ..ledger.errors import Refused
from ..ledger.inputs import Find
from ..ledger.transaction import (
    Argument,
    Command,
    Input,
    MakeVector,
    MergeCoins,
    MoveCall,
    ObjectRef,
    OwnedInput,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransferObjects,
)
from ..vm import CodeStore
from ..vm.errors import ModuleId
from ..vm.types import Reference, StructType, Type, struct
from .protocol import Message

_RECEIVING = struct("0x2", "transfer", "Receiving")[:3]


def unresolved(
    object_id: bytes,
    message: Message,
    position: int,
    commands: Sequence[Command],
    find: Find,
    code: CodeStore,
) -> Input:
    """The input that ``message``, which says no kind, stands for.

    :param position: index of the input.
    :raises Refused: there is no such object.
    """
    found = find(object_id)
    if found is None:
        raise Refused(f"Could not find the referenced object {hex_address(object_id)}")
    uses = _uses(position, commands, code)
    if found.owner.kind == "shared":
        mutable = bool(message.mutable) or any(_takes_mutably(type_) for type_ in uses)
        return SharedInput(object_id, found.owner.version, mutable)
    reference = ObjectRef(object_id, message.version or found.version, found.digest)
    if any(isinstance(type_, StructType) and type_[:3] == _RECEIVING for type_ in uses):
        return ReceivingInput(reference)
    return OwnedInput(reference)


def _takes_mutably(type_: Type | None) -> bool:
    """None stands for uses other than calls, which all write."""
    return not isinstance(type_, Reference) or type_.mutable


def _uses(position: int, commands: Sequence[Command], code: CodeStore) -> list[Type | None]:
    """Types of the parameters that an input is given for."""
    wanted = Argument("input", position)
    found: list[Type | None] = []
    for command in commands:
        match command:
            case MoveCall():
                function = code.function(ModuleId(command.package, command.module), command.function)
                parameters: Sequence[Type] = () if function is None else function.parameters
                found += [
                    type_
                    for argument, type_ in zip(command.arguments, parameters, strict=False)
                    if argument == wanted
                ]
            case TransferObjects(objects):
                found += [None] * objects.count(wanted)
            case SplitCoins(coin):
                found += [None] * (coin == wanted)
            case MergeCoins(target, sources):
                found += [None] * ((target, *sources).count(wanted))
            case MakeVector(_, elements):
                found += [None] * elements.count(wanted)
            case _:
                pass
    return found
