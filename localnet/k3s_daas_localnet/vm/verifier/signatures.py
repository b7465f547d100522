"""Types are well formed where they stand: references only outermost, constraints met, phantom parameters
unused.

Sources: move-bytecode-verifier `signature.rs`, `instruction_consistency.rs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import opcodes as op
from ..bytecode import Ability, FunctionDef, Module
from ..errors import VerificationError
from ..types import Reference, StructType, Type, TypeParameter, VectorType, type_to_string, walk
from .abilities import AbilityTable
from .bounds import type_arguments

_MAX_VECTOR_COUNT = 0xFFFF


def verify(module: Module) -> None:
    table = AbilityTable(module)
    for signature in module.signatures:
        for type_ in signature:
            _no_reference(type_.target if isinstance(type_, Reference) else type_)
    for handle in module.function_handles:
        for type_ in module.signatures[handle.parameters] + module.signatures[handle.results]:
            _check_constraints(table, type_, handle.type_parameters)
    for definition in module.struct_defs:
        _check_fields(module, table, definition.handle, [f.type for f in definition.fields or ()])
    for enum in module.enum_defs:
        _check_fields(module, table, enum.handle, [f.type for v in enum.variants for f in v.fields])
    for function in module.function_defs:
        if not function.is_native:
            _check_code(module, table, function)


def _no_reference(type_: Type) -> None:
    if any(isinstance(inner, Reference) for inner in walk(type_)):
        raise VerificationError("INVALID_SIGNATURE_TOKEN", f"reference inside {type_to_string(type_)}")


def _check_constraints(table: AbilityTable, type_: Type, scope: Sequence[int]) -> None:
    """Type arguments inside a type satisfy what its datatypes ask for."""
    for inner in walk(type_):
        if isinstance(inner, StructType):
            wanted = [parameter.constraints for parameter in table.handle(inner).parameters]
            _check_arguments(table, inner.args, wanted, scope, inner.name)


def _check_arguments(
    table: AbilityTable, arguments: Sequence[Type], wanted: Sequence[int], scope: Sequence[int], where: str
) -> None:
    if len(arguments) != len(wanted):
        raise VerificationError(
            "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH", f"{where}: {len(arguments)}, wanted {len(wanted)}"
        )
    for argument, constraint in zip(arguments, wanted, strict=True):
        missing = constraint & ~table.of(argument, scope)
        if missing:
            raise VerificationError(
                "CONSTRAINT_NOT_SATISFIED",
                f"{where}: {type_to_string(argument)} lacks {Ability(missing)!r}",
            )


def _check_fields(module: Module, table: AbilityTable, handle_index: int, types: Iterable[Type]) -> None:
    handle = module.datatype_handles[handle_index]
    scope = [parameter.constraints for parameter in handle.parameters]
    phantoms = {n for n, parameter in enumerate(handle.parameters) if parameter.phantom}
    for type_ in types:
        _no_reference(type_)
        _check_constraints(table, type_, scope)
        _check_phantoms(table, type_, phantoms, phantom_position=False)


def _check_phantoms(table: AbilityTable, type_: Type, phantoms: set[int], phantom_position: bool) -> None:
    match type_:
        case TypeParameter(number):
            if number in phantoms and not phantom_position:
                raise VerificationError("INVALID_PHANTOM_TYPE_PARAM_POSITION", f"type parameter {number}")
        case VectorType(element):
            _check_phantoms(table, element, phantoms, phantom_position=False)
        case StructType(_, _, _, args):
            for argument, parameter in zip(args, table.handle(type_).parameters, strict=True):
                _check_phantoms(table, argument, phantoms, parameter.phantom)
        case _:
            pass


def _check_code(module: Module, table: AbilityTable, function: FunctionDef) -> None:
    scope = function.type_parameters
    for type_ in function.locals:
        _check_constraints(table, type_, scope)
    for offset, (code, operand, second) in enumerate(function.code):
        where = f"{function.name} @{offset} {op.NAMES[code]}"
        arguments = type_arguments(module, code, operand)
        wanted = _wanted_arguments(module, code, operand)
        if wanted is not None and bool(wanted) != (arguments is not None):
            raise VerificationError("GENERIC_MEMBER_OPCODE_MISMATCH", where)
        if code in op.VECTOR_COUNT_OPERAND and second > _MAX_VECTOR_COUNT:
            raise VerificationError("CONSTRAINT_NOT_SATISFIED", f"{where}: {second} elements")
        if arguments is None:
            continue
        for argument in arguments:
            _no_reference(argument)
            _check_constraints(table, argument, scope)
        _check_arguments(table, arguments, [0] if wanted is None else wanted, scope, where)


def _wanted_arguments(module: Module, code: int, operand: int) -> list[int] | None:
    """Constraints of the type parameters of what an instruction names; None when it names nothing generic."""

    def struct(index: int) -> list[int]:
        handle = module.datatype_handles[module.struct_defs[index].handle]
        return [parameter.constraints for parameter in handle.parameters]

    def enum(index: int) -> list[int]:
        handle = module.datatype_handles[module.enum_defs[index].handle]
        return [parameter.constraints for parameter in handle.parameters]

    match code:
        case op.CALL:
            return list(module.function_handles[operand].type_parameters)
        case op.CALL_GENERIC:
            target = module.function_instantiations[operand].target
            return list(module.function_handles[target].type_parameters)
        case op.PACK | op.UNPACK:
            return struct(operand)
        case op.PACK_GENERIC | op.UNPACK_GENERIC:
            return struct(module.struct_instantiations[operand].target)
        case op.MUT_BORROW_FIELD | op.IMM_BORROW_FIELD:
            return struct(module.field_handles[operand].struct)
        case op.MUT_BORROW_FIELD_GENERIC | op.IMM_BORROW_FIELD_GENERIC:
            return struct(module.field_handles[module.field_instantiations[operand].target].struct)
        case op.PACK_VARIANT | op.UNPACK_VARIANT | op.UNPACK_VARIANT_IMM_REF | op.UNPACK_VARIANT_MUT_REF:
            return enum(module.variant_handles[operand].enum)
        case (
            op.PACK_VARIANT_GENERIC
            | op.UNPACK_VARIANT_GENERIC
            | op.UNPACK_VARIANT_GENERIC_IMM_REF
            | op.UNPACK_VARIANT_GENERIC_MUT_REF
        ):
            return enum(module.enum_instantiations[module.variant_instantiations[operand].enum].target)
        case _:
            return None
