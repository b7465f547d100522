"""Every index of a module points at something. Source: move-binary-format `check_bounds.rs`."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from .. import opcodes as op
from ..bytecode import LOCAL_MAX, FunctionDef, Module
from ..errors import VerificationError
from ..types import StructType, Type, TypeParameter, walk

# Number of type parameters by address, module and name of a datatype.
Arities = dict[tuple[bytes, str, str], int]


def _check(index: int, items: Sized, what: str) -> None:
    if index >= len(items):
        raise VerificationError(
            "INDEX_OUT_OF_BOUNDS", f"{what} refers to entry {index} of a table with {len(items)}"
        )


def verify(module: Module) -> None:
    arities: Arities = {
        (h.module.address, h.module.name, h.name): len(h.parameters) for h in module.datatype_handles
    }
    for handle in module.function_handles:
        _check(handle.parameters, module.signatures, f"function {handle.name}")
        _check(handle.results, module.signatures, f"function {handle.name}")
        parameters = len(handle.type_parameters)
        _check_types(arities, module.signatures[handle.parameters], parameters, handle.name)
        _check_types(arities, module.signatures[handle.results], parameters, handle.name)
    for definition in module.struct_defs:
        owner = module.datatype_handles[definition.handle]
        if definition.fields is not None:
            field_types = [field.type for field in definition.fields]
            _check_types(arities, field_types, len(owner.parameters), owner.name)
    for enum in module.enum_defs:
        owner = module.datatype_handles[enum.handle]
        for variant in enum.variants:
            field_types = [field.type for field in variant.fields]
            _check_types(arities, field_types, len(owner.parameters), owner.name)
    for instance in module.function_instantiations:
        _check(instance.target, module.function_handles, "a function instantiation")
        _check(instance.signature, module.signatures, "a function instantiation")
    for instance in module.struct_instantiations:
        _check(instance.target, module.struct_defs, "a struct instantiation")
        _check(instance.signature, module.signatures, "a struct instantiation")
    for field_handle in module.field_handles:
        _check(field_handle.struct, module.struct_defs, "a field handle")
        _check(field_handle.field, module.struct_defs[field_handle.struct].fields or (), "a field handle")
    for instance in module.field_instantiations:
        _check(instance.target, module.field_handles, "a field instantiation")
        _check(instance.signature, module.signatures, "a field instantiation")
    for instance in module.enum_instantiations:
        _check(instance.target, module.enum_defs, "an enum instantiation")
        _check(instance.signature, module.signatures, "an enum instantiation")
    for variant_handle in module.variant_handles:
        _check(variant_handle.enum, module.enum_defs, "a variant handle")
        _check(variant_handle.variant, module.enum_defs[variant_handle.enum].variants, "a variant handle")
    for variant_handle in module.variant_instantiations:
        _check(variant_handle.enum, module.enum_instantiations, "a variant instantiation")
        enum = module.enum_defs[module.enum_instantiations[variant_handle.enum].target]
        _check(variant_handle.variant, enum.variants, "a variant instantiation")
    for signature in module.signatures:
        _check_types(arities, signature, None, "a signature")
    for constant in module.constants:
        _check_types(arities, [constant.type], 0, "a constant")
    for function in module.function_defs:
        if not function.is_native:
            _check_code(module, arities, function)


def _check_types(arities: Arities, types: Iterable[Type], parameters: int | None, where: str) -> None:
    """Type parameters exist (unless their number is not known here), generic types have all their
    arguments.
    """
    for type_ in types:
        for inner in walk(type_):
            if isinstance(inner, StructType):
                wanted = arities[inner.address, inner.module, inner.name]
                if wanted != len(inner.args):
                    raise VerificationError(
                        "NUMBER_OF_TYPE_ARGUMENTS_MISMATCH",
                        f"{where}: {inner.name} has {len(inner.args)} type arguments, wanted {wanted}",
                    )
            elif isinstance(inner, TypeParameter) and parameters is not None and inner.number >= parameters:
                raise VerificationError(
                    "INDEX_OUT_OF_BOUNDS", f"{where}: type parameter {inner.number} of {parameters}"
                )


def _check_code(module: Module, arities: Arities, function: FunctionDef) -> None:
    parameters = len(function.type_parameters)
    _check_types(arities, function.locals, parameters, function.name)
    local_count = len(function.parameters) + len(function.locals)
    if local_count > LOCAL_MAX:
        raise VerificationError("TOO_MANY_LOCALS", f"{function.name} has {local_count}, at most {LOCAL_MAX}")
    tables: dict[int, Sized] = {
        op.LD_CONST: module.constants,
        op.MUT_BORROW_FIELD: module.field_handles,
        op.IMM_BORROW_FIELD: module.field_handles,
        op.MUT_BORROW_FIELD_GENERIC: module.field_instantiations,
        op.IMM_BORROW_FIELD_GENERIC: module.field_instantiations,
        op.CALL: module.function_handles,
        op.CALL_GENERIC: module.function_instantiations,
        op.PACK: module.struct_defs,
        op.UNPACK: module.struct_defs,
        op.PACK_GENERIC: module.struct_instantiations,
        op.UNPACK_GENERIC: module.struct_instantiations,
        op.VARIANT_SWITCH: function.jump_tables,
        **dict.fromkeys(range(op.VEC_PACK, op.VEC_SWAP + 1), module.signatures),
        **dict.fromkeys(op.LOCAL_OPERAND, range(local_count)),
        **dict.fromkeys(op.BRANCH_OPERAND, function.code),
        **dict.fromkeys(
            (op.PACK_VARIANT, op.UNPACK_VARIANT, op.UNPACK_VARIANT_IMM_REF, op.UNPACK_VARIANT_MUT_REF),
            module.variant_handles,
        ),
        **dict.fromkeys(
            (
                op.PACK_VARIANT_GENERIC,
                op.UNPACK_VARIANT_GENERIC,
                op.UNPACK_VARIANT_GENERIC_IMM_REF,
                op.UNPACK_VARIANT_GENERIC_MUT_REF,
            ),
            module.variant_instantiations,
        ),
    }
    for offset, (code, operand, _) in enumerate(function.code):
        table = tables.get(code)
        if table is None:
            continue
        where = f"{function.name} @{offset} {op.NAMES[code]}"
        _check(operand, table, where)
        arguments = type_arguments(module, code, operand)
        if arguments is not None:
            _check_types(arities, arguments, parameters, where)
    for jump_table in function.jump_tables:
        _check(jump_table.enum, module.enum_defs, f"a jump table of {function.name}")
        for target in jump_table.targets:
            _check(target, function.code, f"a jump table of {function.name}")


def type_arguments(module: Module, code: int, operand: int) -> tuple[Type, ...] | None:
    """The type arguments a generic instruction carries; None for all other instructions."""
    if op.VEC_PACK <= code <= op.VEC_SWAP:
        return module.signatures[operand]
    if code == op.CALL_GENERIC:
        return module.signatures[module.function_instantiations[operand].signature]
    if code in (op.PACK_GENERIC, op.UNPACK_GENERIC):
        return module.signatures[module.struct_instantiations[operand].signature]
    if code in (op.MUT_BORROW_FIELD_GENERIC, op.IMM_BORROW_FIELD_GENERIC):
        return module.signatures[module.field_instantiations[operand].signature]
    if code == op.PACK_VARIANT_GENERIC or code in range(
        op.UNPACK_VARIANT_GENERIC, op.UNPACK_VARIANT_GENERIC_MUT_REF + 1
    ):
        enum = module.variant_instantiations[operand].enum
        return module.signatures[module.enum_instantiations[enum].signature]
    return None
