"""Abilities of types inside a module, where type parameters are open."""

from __future__ import annotations

from collections.abc import Sequence

from ..bytecode import ALL_ABILITIES, Ability, DatatypeHandle, Module
from ..store import combine_abilities
from ..types import SIGNER, Primitive, Reference, StructType, Type, TypeParameter, VectorType

_VALUE = Ability.COPY | Ability.DROP | Ability.STORE


class AbilityTable:
    """What the module's own handles say; that they are true of other modules' types is for linking to
    check.
    """

    def __init__(self, module: Module) -> None:
        self._handles: dict[tuple[bytes, str, str], DatatypeHandle] = {
            (h.module.address, h.module.name, h.name): h for h in module.datatype_handles
        }

    def handle(self, type_: StructType) -> DatatypeHandle:
        return self._handles[type_.address, type_.module, type_.name]

    def of(self, type_: Type, parameters: Sequence[int]) -> int:
        """Ability bits; `parameters` are those of the type parameters in scope."""
        match type_:
            case Primitive():
                return int(Ability.DROP if type_ == SIGNER else _VALUE)
            case TypeParameter(number):
                return parameters[number]
            case Reference():
                return int(Ability.COPY | Ability.DROP)
            case VectorType(element):
                return self.of(element, parameters) & _VALUE
            case StructType():
                handle = self.handle(type_)
                arguments = [
                    self.of(argument, parameters)
                    for argument, parameter in zip(type_.args, handle.parameters, strict=True)
                    if not parameter.phantom
                ]
                return combine_abilities(handle.abilities, arguments)


def requirements(abilities: int) -> int:
    """What a field must have so that its struct may have these: the same, and store for key."""
    needed = abilities & ~Ability.KEY
    return int(needed | Ability.STORE) if abilities & Ability.KEY else needed


ALL = ALL_ABILITIES
