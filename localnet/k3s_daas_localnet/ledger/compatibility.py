"""What an upgrade may change, by its ticket's policy. Source: move-binary-format ``compatibility.rs``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..vm import DatatypeHandle, FunctionDef, Module, Visibility
from ..vm import opcodes as op
from .errors import ExecutionFailure, upgrade_error
from .objects import PackageData

COMPATIBLE, ADDITIVE, DEP_ONLY = 0, 128, 192


def check(before: PackageData, after: Iterable[Module], policy: int) -> None:
    """Refuses an upgrade that its policy doesn't allow.

    :param after: modules of the new version, at the original id as those of ``before`` are.
    :raises ExecutionFailure: a ``PACKAGE_UPGRADE_ERROR`` that names the first thing that is wrong.
    """
    if policy not in (COMPATIBLE, ADDITIVE, DEP_ONLY):
        raise upgrade_error("UNKNOWN_UPGRADE_POLICY", f"Unknown upgrade policy {policy}", policy=policy)
    new_modules = {module.name: module for module in after}
    if policy == DEP_ONLY and len(new_modules) != len(before.modules):
        raise _incompatible(
            f"Existing package has {len(before.modules)} modules, but new package has {len(new_modules)}. "
            "Adding or removing a module to a deps only package is not allowed."
        )
    for name, raw in before.modules.items():
        new = new_modules.get(name)
        if new is None:
            raise _incompatible(f"Existing module {name} not found in next version of package")
        old = Module.parse(raw)
        if policy == COMPATIBLE:
            _check_compatible(old, new)
        else:
            _check_included(old, new, exact=policy == DEP_ONLY)


def _incompatible(detail: str) -> ExecutionFailure:
    return upgrade_error(
        "INCOMPATIBLE_UPGRADE", f"New package is incompatible with previous version: {detail}"
    )


def _check_compatible(old: Module, new: Module) -> None:
    """Public functions and all types stay as they are; everything else may change."""
    for name, definition in _datatypes(old).items():
        if name not in _datatypes(new):
            raise _incompatible(f"type {old.name}::{name} is missing")
        if _datatypes(new)[name] != definition:
            raise _incompatible(
                f"type {old.name}::{name} has other abilities, type parameters, fields or variants"
            )
    for name, function in old.functions.items():
        if function.visibility != Visibility.PUBLIC:
            continue
        now = new.functions.get(name)
        if now is None or now.visibility != Visibility.PUBLIC:
            raise _incompatible(f"public function {old.name}::{name} is missing or not public any more")
        same_signature = (function.parameters, function.results) == (now.parameters, now.results)
        # Type parameters may ask for less than before, never for more.
        if (
            not same_signature
            or len(function.type_parameters) != len(now.type_parameters)
            or any(
                theirs & ~mine
                for mine, theirs in zip(function.type_parameters, now.type_parameters, strict=True)
            )
        ):
            raise _incompatible(f"the signature of public function {old.name}::{name} changed")


def _check_included(old: Module, new: Module, *, exact: bool) -> None:
    """All of the old module is in the new one, unchanged; with ``exact`` nothing else is."""
    if old.version > new.version:
        raise _incompatible(f"module {old.name} has binary format {new.version}, before {old.version}")
    kinds: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("type", _datatypes(old), _datatypes(new)),
        ("function", _functions(old), _functions(new)),
    )
    for kind, before, after in kinds:
        for name, definition in before.items():
            if after.get(name) != definition:
                raise _incompatible(f"{kind} {old.name}::{name} is missing or changed")
        added = sorted(after.keys() - before.keys())
        if exact and added:
            raise _incompatible(f"{kind} {old.name}::{added[0]} is new")
    if exact and len(old.friends) != len(new.friends):
        raise _incompatible(f"module {old.name} has {len(new.friends)} friends, before {len(old.friends)}")


def _datatypes(module: Module) -> dict[str, Any]:
    """Types by name, in a form that is equal when they are the same."""

    def described(handle: DatatypeHandle, body: object) -> Any:
        return handle.abilities, handle.parameters, body

    handles = module.datatype_handles
    structs = {n: described(handles[s.handle], s.fields) for n, s in module.structs.items()}
    enums = {n: described(handles[e.handle], e.variants) for n, e in module.enums.items()}
    return structs | enums


def _functions(module: Module) -> dict[str, Any]:
    """Functions by name with their code, free of the positions that tables happen to have."""
    return {name: _function(module, function) for name, function in module.functions.items()}


def _function(module: Module, function: FunctionDef) -> Any:
    return (
        function.visibility,
        function.is_entry,
        function.is_native,
        function.type_parameters,
        function.parameters,
        function.results,
        function.locals,
        tuple(_instruction(module, function, *instruction) for instruction in function.code),
    )


def _instruction(module: Module, function: FunctionDef, code: int, operand: int, second: int) -> Any:
    return code, _operand(module, function, code, operand), second


def _operand(module: Module, function: FunctionDef, code: int, operand: int) -> Any:
    """What an instruction's operand stands for."""
    signature = module.signatures
    if code == op.LD_CONST:
        return module.constants[operand]
    if code == op.CALL:
        return _callee(module, operand)
    if code == op.CALL_GENERIC:
        called = module.function_instantiations[operand]
        return _callee(module, called.target), signature[called.signature]
    if code in (op.PACK, op.UNPACK):
        return _struct(module, operand)
    if code in (op.PACK_GENERIC, op.UNPACK_GENERIC):
        packed = module.struct_instantiations[operand]
        return _struct(module, packed.target), signature[packed.signature]
    if code in (op.MUT_BORROW_FIELD, op.IMM_BORROW_FIELD):
        field = module.field_handles[operand]
        return _struct(module, field.struct), field.field
    if code in (op.MUT_BORROW_FIELD_GENERIC, op.IMM_BORROW_FIELD_GENERIC):
        instance = module.field_instantiations[operand]
        field = module.field_handles[instance.target]
        return _struct(module, field.struct), field.field, signature[instance.signature]
    if code in _VARIANT_OPCODES:
        variant = module.variant_handles[operand]
        return _enum(module, variant.enum), variant.variant
    if code in _GENERIC_VARIANT_OPCODES:
        variant = module.variant_instantiations[operand]
        enum = module.enum_instantiations[variant.enum]
        return _enum(module, enum.target), variant.variant, signature[enum.signature]
    if code == op.VARIANT_SWITCH:
        table = function.jump_tables[operand]
        return _enum(module, table.enum), table.targets
    if code in _VECTOR_OPCODES:
        return signature[operand]
    return operand


def _callee(module: Module, index: int) -> Any:
    handle = module.function_handles[index]
    return handle.module, handle.name


def _struct(module: Module, index: int) -> str:
    return module.datatype_handles[module.struct_defs[index].handle].name


def _enum(module: Module, index: int) -> str:
    return module.datatype_handles[module.enum_defs[index].handle].name


_VARIANT_OPCODES = frozenset(
    (op.PACK_VARIANT, op.UNPACK_VARIANT, op.UNPACK_VARIANT_IMM_REF, op.UNPACK_VARIANT_MUT_REF)
)
_GENERIC_VARIANT_OPCODES = frozenset(
    (
        op.PACK_VARIANT_GENERIC,
        op.UNPACK_VARIANT_GENERIC,
        op.UNPACK_VARIANT_GENERIC_IMM_REF,
        op.UNPACK_VARIANT_GENERIC_MUT_REF,
    )
)
_VECTOR_OPCODES = frozenset(
    (
        op.VEC_PACK,
        op.VEC_UNPACK,
        op.VEC_LEN,
        op.VEC_IMM_BORROW,
        op.VEC_MUT_BORROW,
        op.VEC_PUSH_BACK,
        op.VEC_POP_BACK,
        op.VEC_SWAP,
    )
)
