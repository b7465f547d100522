"""Turns a function and its type arguments into what the interpreter's loop runs.

Every operand is resolved here once: field offsets, callees, constants, element kinds. Generic instructions
become their plain counterparts. The loop then never looks at a module's tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import opcodes as op
from .bytecode import FunctionDef, FunctionHandle, Module
from .errors import ModuleId, VmError
from .types import U8, Type, VectorType, substitute
from .values import INTEGER_CLASSES, INTEGER_MAX, Value, clone, from_bcs

if TYPE_CHECKING:
    from .store import CodeStore, Linkage

PreparedInstruction = tuple[int, Any]

# Set by `coverage` while it records: wraps the code of every function that is prepared.
trace: Callable[[FunctionDef, list[PreparedInstruction]], list[PreparedInstruction]] | None = None

# Instructions the loop does not tell apart become one of these.
CAST = op.CAST_U8
LITERAL = op.LD_U64

_LITERAL_CLASSES = {
    op.LD_U8: INTEGER_CLASSES["u8"],
    op.LD_U16: INTEGER_CLASSES["u16"],
    op.LD_U32: INTEGER_CLASSES["u32"],
    op.LD_U64: INTEGER_CLASSES["u64"],
    op.LD_U128: INTEGER_CLASSES["u128"],
    op.LD_U256: INTEGER_CLASSES["u256"],
}
_CAST_CLASSES = {
    op.CAST_U8: INTEGER_CLASSES["u8"],
    op.CAST_U16: INTEGER_CLASSES["u16"],
    op.CAST_U32: INTEGER_CLASSES["u32"],
    op.CAST_U64: INTEGER_CLASSES["u64"],
    op.CAST_U128: INTEGER_CLASSES["u128"],
    op.CAST_U256: INTEGER_CLASSES["u256"],
}


class Prepared:
    """A function with closed type arguments. `code` is made on first use, so preparing never recurses."""

    __slots__ = ("_code", "_store", "function", "linkage", "locals_count", "parameter_count", "type_args")

    def __init__(
        self, store: CodeStore, function: FunctionDef, type_args: tuple[Type, ...], linkage: Linkage
    ) -> None:
        self._store = store
        self._code: list[PreparedInstruction] | None = None
        self.function = function
        self.type_args = type_args
        self.linkage = linkage
        self.parameter_count = len(function.parameters)
        self.locals_count = len(function.locals)

    @property
    def code(self) -> list[PreparedInstruction]:
        if self._code is None:
            module = self._store.module(self.function.module)
            assert module is not None
            self._code = [_Preparer(self._store, module, self)(*i) for i in self.function.code]
            if trace is not None:
                self._code = trace(self.function, self._code)
        return self._code


class _Preparer:
    """Resolves the operands of one function's instructions."""

    def __init__(self, store: CodeStore, module: Module, prepared: Prepared) -> None:
        self.store = store
        self.module = module
        self.function = prepared.function
        self.type_args = prepared.type_args
        self.linkage = prepared.linkage
        self._versions = dict(prepared.linkage)

    def __call__(self, code: int, operand: int, second: int) -> PreparedInstruction:
        handler = _HANDLERS.get(code)
        return handler(self, code, operand, second) if handler else (code, operand)

    def literal(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return LITERAL, _LITERAL_CLASSES[code](operand)

    def cast(self, code: int, operand: int, second: int) -> PreparedInstruction:
        cls = _CAST_CLASSES[code]
        return CAST, (cls, INTEGER_MAX[cls])

    def constant(self, code: int, operand: int, second: int) -> PreparedInstruction:
        constant = self.module.constants[operand]
        value: Value = from_bcs(self.store.layout(constant.type), constant.data)
        # A container must be a fresh one each time it is loaded; clone() returns scalars as they are.
        return (LITERAL, value) if clone(value) is value else (op.LD_CONST, value)

    def field(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return op.IMM_BORROW_FIELD, self.module.field_handles[operand].field

    def generic_field(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return self.field(code, self.module.field_instantiations[operand].target, 0)

    def callee(self, handle: FunctionHandle, type_args: tuple[Type, ...]) -> PreparedInstruction:
        address, name = handle.module
        module = ModuleId(self._versions.get(address, address), name)
        function = self.store.function(module, handle.name)
        if function is None:
            raise VmError("FUNCTION_RESOLUTION_FAILURE", f"{module}::{handle.name}")
        return op.CALL, self.store.prepared(function, type_args, self.linkage)

    def call(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return self.callee(self.module.function_handles[operand], ())

    def generic_call(self, code: int, operand: int, second: int) -> PreparedInstruction:
        instantiation = self.module.function_instantiations[operand]
        args = self.module.signatures[instantiation.signature]
        closed = tuple([substitute(argument, self.type_args) for argument in args])
        for type_ in closed:
            self.store.check_type(type_)  # stops types that grow from call to call
        return self.callee(self.module.function_handles[instantiation.target], closed)

    def _check_depth(self, handle_index: int, args: tuple[Type, ...]) -> None:
        closed = tuple([substitute(argument, self.type_args) for argument in args])
        self.store.value_depth(self.module.datatype_handles[handle_index].type(closed))

    def pack(self, code: int, operand: int, second: int, args: tuple[Type, ...] = ()) -> PreparedInstruction:
        definition = self.module.struct_defs[operand]
        assert definition.fields is not None
        self._check_depth(definition.handle, args)
        return op.PACK, len(definition.fields)

    def generic_pack(self, code: int, operand: int, second: int) -> PreparedInstruction:
        instantiation = self.module.struct_instantiations[operand]
        return self.pack(code, instantiation.target, 0, self.module.signatures[instantiation.signature])

    def unpack(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return op.UNPACK, 0

    def vector_pack(self, code: int, operand: int, second: int) -> PreparedInstruction:
        element = substitute(self.module.signatures[operand][0], self.type_args)
        self.store.value_depth(VectorType(element))
        return code, (second, element == U8)

    def vector_unpack(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return code, second

    def variant(self, code: int, operand: int, second: int) -> PreparedInstruction:
        handle = self.module.variant_handles[operand]
        return self._variant(code, handle.enum, handle.variant, ())

    def generic_variant(self, code: int, operand: int, second: int) -> PreparedInstruction:
        handle = self.module.variant_instantiations[operand]
        instantiation = self.module.enum_instantiations[handle.enum]
        args = self.module.signatures[instantiation.signature]
        return self._variant(code, instantiation.target, handle.variant, args)

    def _variant(self, code: int, enum: int, tag: int, args: tuple[Type, ...]) -> PreparedInstruction:
        definition = self.module.enum_defs[enum]
        self._check_depth(definition.handle, args)
        return _PLAIN_VARIANT[code], (tag, len(definition.variants[tag].fields))

    def switch(self, code: int, operand: int, second: int) -> PreparedInstruction:
        return code, self.function.jump_tables[operand].targets


_PLAIN_VARIANT = {
    op.PACK_VARIANT: op.PACK_VARIANT,
    op.PACK_VARIANT_GENERIC: op.PACK_VARIANT,
    op.UNPACK_VARIANT: op.UNPACK_VARIANT,
    op.UNPACK_VARIANT_GENERIC: op.UNPACK_VARIANT,
    op.UNPACK_VARIANT_IMM_REF: op.UNPACK_VARIANT_IMM_REF,
    op.UNPACK_VARIANT_MUT_REF: op.UNPACK_VARIANT_IMM_REF,
    op.UNPACK_VARIANT_GENERIC_IMM_REF: op.UNPACK_VARIANT_IMM_REF,
    op.UNPACK_VARIANT_GENERIC_MUT_REF: op.UNPACK_VARIANT_IMM_REF,
}

_HANDLERS: dict[int, Callable[[_Preparer, int, int, int], PreparedInstruction]] = {
    **dict.fromkeys(_LITERAL_CLASSES, _Preparer.literal),
    **dict.fromkeys(_CAST_CLASSES, _Preparer.cast),
    op.LD_CONST: _Preparer.constant,
    op.MUT_BORROW_LOC: lambda self, code, operand, second: (op.IMM_BORROW_LOC, operand),
    op.MUT_BORROW_FIELD: _Preparer.field,
    op.IMM_BORROW_FIELD: _Preparer.field,
    op.MUT_BORROW_FIELD_GENERIC: _Preparer.generic_field,
    op.IMM_BORROW_FIELD_GENERIC: _Preparer.generic_field,
    op.CALL: _Preparer.call,
    op.CALL_GENERIC: _Preparer.generic_call,
    op.PACK: _Preparer.pack,
    op.PACK_GENERIC: _Preparer.generic_pack,
    op.UNPACK: _Preparer.unpack,
    op.UNPACK_GENERIC: _Preparer.unpack,
    op.VEC_PACK: _Preparer.vector_pack,
    op.VEC_UNPACK: _Preparer.vector_unpack,
    op.VEC_MUT_BORROW: lambda self, code, operand, second: (op.VEC_IMM_BORROW, 0),
    op.PACK_VARIANT: _Preparer.variant,
    op.UNPACK_VARIANT: _Preparer.variant,
    op.UNPACK_VARIANT_IMM_REF: _Preparer.variant,
    op.UNPACK_VARIANT_MUT_REF: _Preparer.variant,
    op.PACK_VARIANT_GENERIC: _Preparer.generic_variant,
    op.UNPACK_VARIANT_GENERIC: _Preparer.generic_variant,
    op.UNPACK_VARIANT_GENERIC_IMM_REF: _Preparer.generic_variant,
    op.UNPACK_VARIANT_GENERIC_MUT_REF: _Preparer.generic_variant,
    op.VARIANT_SWITCH: _Preparer.switch,
}
