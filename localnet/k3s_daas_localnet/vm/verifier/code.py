"""Types, operand stack and locals of one function's code.

Sources: move-bytecode-verifier `stack_usage_verifier.rs`, `type_safety.rs`, `locals_safety`.
Within a block the operand stack starts and ends empty, so types are checked block by block without joins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import opcodes as op
from ..bytecode import Ability, FunctionDef, Module, StructDef
from ..errors import VerificationError
from ..types import (
    BOOL,
    INTEGERS,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    Reference,
    StructType,
    Type,
    VectorType,
    substitute,
    type_to_string,
)
from .abilities import AbilityTable
from .control_flow import ControlFlow

MAX_STACK = 1024

_LITERALS: dict[int, Type] = {
    op.LD_U8: U8,
    op.LD_U16: U16,
    op.LD_U32: U32,
    op.LD_U64: U64,
    op.LD_U128: U128,
    op.LD_U256: U256,
    op.LD_TRUE: BOOL,
    op.LD_FALSE: BOOL,
}
_CASTS: dict[int, Type] = {
    op.CAST_U8: U8,
    op.CAST_U16: U16,
    op.CAST_U32: U32,
    op.CAST_U64: U64,
    op.CAST_U128: U128,
    op.CAST_U256: U256,
}


def verify_code(module: Module, function: FunctionDef, flow: ControlFlow) -> None:
    checker = _TypeChecker(module, function)
    for first, last in flow.blocks.values():
        checker.check_block(first, last)
    _verify_locals(checker, flow)


class _TypeChecker:
    def __init__(self, module: Module, function: FunctionDef) -> None:
        self.module = module
        self.function = function
        self.locals: Sequence[Type] = function.parameters + function.locals
        self.table = AbilityTable(module)
        self.stack: list[Type] = []
        self.offset = 0

    def abilities(self, type_: Type) -> int:
        return self.table.of(type_, self.function.type_parameters)

    def fail(self, code: str, detail: str) -> VerificationError:
        name = op.NAMES[self.function.code[self.offset][0]]
        return VerificationError(code, f"@{self.offset} {name}: {detail}")

    def check_block(self, first: int, last: int) -> None:
        self.stack = []
        for self.offset in range(first, last + 1):
            opcode, operand, second = self.function.code[self.offset]
            _HANDLERS[opcode](self, opcode, operand, second)
            if len(self.stack) > MAX_STACK:
                raise self.fail("VALUE_STACK_OVERFLOW", f"more than {MAX_STACK} values")
        if self.stack:
            raise self.fail(
                "POSITIVE_STACK_SIZE_AT_BLOCK_END", f"{len(self.stack)} values left at the block's end"
            )

    def push(self, type_: Type) -> None:
        self.stack.append(type_)

    def pop(self) -> Type:
        if not self.stack:
            raise self.fail("NEGATIVE_STACK_SIZE_WITHIN_BLOCK", "nothing left to take")
        return self.stack.pop()

    def pop_expecting(self, wanted: Type, code: str) -> None:
        found = self.pop()
        if found != wanted:
            raise self.fail(code, f"found {type_to_string(found)}, wanted {type_to_string(wanted)}")

    def pop_all(self, wanted: Sequence[Type], code: str) -> None:
        for type_ in reversed(wanted):
            self.pop_expecting(type_, code)

    def pop_integer(self, code: str = "INTEGER_OP_TYPE_MISMATCH_ERROR") -> Type:
        found = self.pop()
        if found not in INTEGERS:
            raise self.fail(code, f"found {type_to_string(found)}, wanted an integer")
        return found

    def need(self, type_: Type, ability: Ability, code: str) -> None:
        if not self.abilities(type_) & ability:
            raise self.fail(code, f"{type_to_string(type_)} has not {ability!r}")

    def pop_reference(self, code: str, mutable_only: bool = False) -> Reference:
        found = self.pop()
        if not isinstance(found, Reference) or (mutable_only and not found.mutable):
            wanted = "a mutable reference" if mutable_only else "a reference"
            raise self.fail(code, f"found {type_to_string(found)}, wanted {wanted}")
        return found

    # ---- instructions; each takes opcode, operand, second operand

    def do_pop(self, opcode: int, operand: int, second: int) -> None:
        self.need(self.pop(), Ability.DROP, "POP_WITHOUT_DROP_ABILITY")

    def do_ret(self, opcode: int, operand: int, second: int) -> None:
        self.pop_all(self.function.results, "RET_TYPE_MISMATCH_ERROR")

    def do_branch_if(self, opcode: int, operand: int, second: int) -> None:
        self.pop_expecting(BOOL, "BR_TYPE_MISMATCH_ERROR")

    def do_nothing(self, opcode: int, operand: int, second: int) -> None:
        pass

    def do_abort(self, opcode: int, operand: int, second: int) -> None:
        self.pop_expecting(U64, "ABORT_TYPE_MISMATCH_ERROR")

    def do_literal(self, opcode: int, operand: int, second: int) -> None:
        self.push(_LITERALS[opcode])

    def do_constant(self, opcode: int, operand: int, second: int) -> None:
        self.push(self.module.constants[operand].type)

    def do_copy_local(self, opcode: int, operand: int, second: int) -> None:
        self.need(self.locals[operand], Ability.COPY, "COPYLOC_WITHOUT_COPY_ABILITY")
        self.push(self.locals[operand])

    def do_move_local(self, opcode: int, operand: int, second: int) -> None:
        self.push(self.locals[operand])

    def do_store_local(self, opcode: int, operand: int, second: int) -> None:
        self.pop_expecting(self.locals[operand], "STLOC_TYPE_MISMATCH_ERROR")

    def do_borrow_local(self, opcode: int, operand: int, second: int) -> None:
        type_ = self.locals[operand]
        if isinstance(type_, Reference):
            raise self.fail("BORROWLOC_REFERENCE_ERROR", "a reference to a reference")
        self.push(Reference(opcode == op.MUT_BORROW_LOC, type_))

    def do_borrow_field(self, opcode: int, operand: int, second: int) -> None:
        args: tuple[Type, ...] = ()
        if opcode in (op.MUT_BORROW_FIELD_GENERIC, op.IMM_BORROW_FIELD_GENERIC):
            instance = self.module.field_instantiations[operand]
            args = self.module.signatures[instance.signature]
            operand = instance.target
        mutable = opcode in (op.MUT_BORROW_FIELD, op.MUT_BORROW_FIELD_GENERIC)
        handle = self.module.field_handles[operand]
        definition = self.module.struct_defs[handle.struct]
        assert definition.fields is not None
        code = "BORROWFIELD_TYPE_MISMATCH_ERROR"
        found = self.pop_reference(code, mutable_only=mutable)
        wanted = self._struct_type(definition, args)
        if found.target != wanted:
            raise self.fail(code, f"found {type_to_string(found.target)}, wanted {type_to_string(wanted)}")
        self.push(Reference(mutable, substitute(definition.fields[handle.field].type, args)))

    def do_call(self, opcode: int, operand: int, second: int) -> None:
        args: tuple[Type, ...] = ()
        if opcode == op.CALL_GENERIC:
            instance = self.module.function_instantiations[operand]
            args = self.module.signatures[instance.signature]
            operand = instance.target
        handle = self.module.function_handles[operand]
        for type_ in reversed(self.module.signatures[handle.parameters]):
            self.pop_expecting(substitute(type_, args), "CALL_TYPE_MISMATCH_ERROR")
        for type_ in self.module.signatures[handle.results]:
            self.push(substitute(type_, args))

    def _struct(self, opcode: int, operand: int) -> tuple[StructType, list[Type]]:
        args: tuple[Type, ...] = ()
        if opcode in (op.PACK_GENERIC, op.UNPACK_GENERIC):
            instance = self.module.struct_instantiations[operand]
            args = self.module.signatures[instance.signature]
            operand = instance.target
        definition = self.module.struct_defs[operand]
        if definition.fields is None:
            raise self.fail("PACK_TYPE_MISMATCH_ERROR", "a native struct has no fields")
        return self._struct_type(definition, args), [substitute(f.type, args) for f in definition.fields]

    def _struct_type(self, definition: StructDef, args: tuple[Type, ...]) -> StructType:
        return self.module.datatype_handles[definition.handle].type(args)

    def do_pack(self, opcode: int, operand: int, second: int) -> None:
        type_, fields = self._struct(opcode, operand)
        self.pop_all(fields, "PACK_TYPE_MISMATCH_ERROR")
        self.push(type_)

    def do_unpack(self, opcode: int, operand: int, second: int) -> None:
        type_, fields = self._struct(opcode, operand)
        self.pop_expecting(type_, "UNPACK_TYPE_MISMATCH_ERROR")
        self.stack += fields

    def _variant(self, generic: bool, operand: int) -> tuple[StructType, list[Type]]:
        args: tuple[Type, ...] = ()
        if generic:
            index, tag = self.module.variant_instantiations[operand]
            instance = self.module.enum_instantiations[index]
            args = self.module.signatures[instance.signature]
            enum = self.module.enum_defs[instance.target]
        else:
            index, tag = self.module.variant_handles[operand]
            enum = self.module.enum_defs[index]
        type_ = self.module.datatype_handles[enum.handle].type(args)
        return type_, [substitute(f.type, args) for f in enum.variants[tag].fields]

    def do_pack_variant(self, opcode: int, operand: int, second: int) -> None:
        type_, fields = self._variant(opcode == op.PACK_VARIANT_GENERIC, operand)
        self.pop_all(fields, "PACK_TYPE_MISMATCH_ERROR")
        self.push(type_)

    def do_unpack_variant(self, opcode: int, operand: int, second: int) -> None:
        type_, fields = self._variant(opcode == op.UNPACK_VARIANT_GENERIC, operand)
        self.pop_expecting(type_, "UNPACK_TYPE_MISMATCH_ERROR")
        self.stack += fields

    def do_unpack_variant_reference(self, opcode: int, operand: int, second: int) -> None:
        generic = opcode in (op.UNPACK_VARIANT_GENERIC_IMM_REF, op.UNPACK_VARIANT_GENERIC_MUT_REF)
        mutable = opcode in (op.UNPACK_VARIANT_MUT_REF, op.UNPACK_VARIANT_GENERIC_MUT_REF)
        type_, fields = self._variant(generic, operand)
        self.pop_expecting(Reference(mutable, type_), "UNPACK_TYPE_MISMATCH_ERROR")
        self.stack += [Reference(mutable, field) for field in fields]

    def do_switch(self, opcode: int, operand: int, second: int) -> None:
        table = self.function.jump_tables[operand]
        enum = self.module.enum_defs[table.enum]
        handle = self.module.datatype_handles[enum.handle]
        code = "ENUM_SWITCH_ENUM_TYPE_MISMATCH"
        found = self.pop_reference(code)
        target = found.target
        if found.mutable or not isinstance(target, StructType) or target != handle.type(target.args):
            raise self.fail(code, f"found {type_to_string(found)}, wanted a reference to {handle.name}")
        if len(table.targets) != len(enum.variants):
            raise self.fail("INVALID_ENUM_SWITCH", f"{len(table.targets)} of {len(enum.variants)} variants")

    def do_read_reference(self, opcode: int, operand: int, second: int) -> None:
        target = self.pop_reference("READREF_TYPE_MISMATCH_ERROR").target
        self.need(target, Ability.COPY, "READREF_WITHOUT_COPY_ABILITY")
        self.push(target)

    def do_write_reference(self, opcode: int, operand: int, second: int) -> None:
        code = "WRITEREF_TYPE_MISMATCH_ERROR"
        target = self.pop_reference(code, mutable_only=True).target
        self.need(target, Ability.DROP, "WRITEREF_WITHOUT_DROP_ABILITY")
        self.pop_expecting(target, code)

    def do_freeze(self, opcode: int, operand: int, second: int) -> None:
        found = self.pop_reference("FREEZEREF_TYPE_MISMATCH_ERROR", mutable_only=True)
        self.push(Reference(False, found.target))

    def do_arithmetic(self, opcode: int, operand: int, second: int) -> None:
        right = self.pop_integer()
        self.pop_expecting(right, "INTEGER_OP_TYPE_MISMATCH_ERROR")
        self.push(right)

    def do_order(self, opcode: int, operand: int, second: int) -> None:
        right = self.pop_integer()
        self.pop_expecting(right, "INTEGER_OP_TYPE_MISMATCH_ERROR")
        self.push(BOOL)

    def do_shift(self, opcode: int, operand: int, second: int) -> None:
        self.pop_expecting(U8, "INTEGER_OP_TYPE_MISMATCH_ERROR")
        self.push(self.pop_integer())

    def do_cast(self, opcode: int, operand: int, second: int) -> None:
        self.pop_integer()
        self.push(_CASTS[opcode])

    def do_logic(self, opcode: int, operand: int, second: int) -> None:
        self.pop_all((BOOL, BOOL), "BOOLEAN_OP_TYPE_MISMATCH_ERROR")
        self.push(BOOL)

    def do_not(self, opcode: int, operand: int, second: int) -> None:
        self.pop_expecting(BOOL, "BOOLEAN_OP_TYPE_MISMATCH_ERROR")
        self.push(BOOL)

    def do_equality(self, opcode: int, operand: int, second: int) -> None:
        right = self.pop()
        self.pop_expecting(right, "EQUALITY_OP_TYPE_MISMATCH_ERROR")
        self.need(right, Ability.DROP, "EQUALITY_OP_TYPE_MISMATCH_ERROR")
        self.push(BOOL)

    def _pop_vector(self, element: Type, mutable_only: bool) -> None:
        found = self.pop_reference("TYPE_MISMATCH", mutable_only)
        if found.target != VectorType(element):
            raise self.fail(
                "TYPE_MISMATCH",
                f"found {type_to_string(found.target)}, wanted vector<{type_to_string(element)}>",
            )

    def do_vector(self, opcode: int, operand: int, second: int) -> None:
        element = self.module.signatures[operand][0]
        code = "TYPE_MISMATCH"
        match opcode:
            case op.VEC_PACK:
                for _ in range(second):
                    self.pop_expecting(element, code)
                self.push(VectorType(element))
            case op.VEC_UNPACK:
                self.pop_expecting(VectorType(element), code)
                if second > MAX_STACK:
                    raise self.fail("VALUE_STACK_OVERFLOW", f"{second} elements")
                self.stack += [element] * second
            case op.VEC_LEN:
                self._pop_vector(element, mutable_only=False)
                self.push(U64)
            case op.VEC_IMM_BORROW | op.VEC_MUT_BORROW:
                mutable = opcode == op.VEC_MUT_BORROW
                self.pop_expecting(U64, code)
                self._pop_vector(element, mutable)
                self.push(Reference(mutable, element))
            case op.VEC_PUSH_BACK:
                self.pop_expecting(element, code)
                self._pop_vector(element, mutable_only=True)
            case op.VEC_POP_BACK:
                self._pop_vector(element, mutable_only=True)
                self.push(element)
            case _:  # VEC_SWAP
                self.pop_all((U64, U64), code)
                self._pop_vector(element, mutable_only=True)


_Handler = Callable[[_TypeChecker, int, int, int], None]
_HANDLERS: dict[int, _Handler] = {
    op.POP: _TypeChecker.do_pop,
    op.RET: _TypeChecker.do_ret,
    **dict.fromkeys((op.BR_TRUE, op.BR_FALSE), _TypeChecker.do_branch_if),
    **dict.fromkeys((op.BRANCH, op.NOP), _TypeChecker.do_nothing),
    op.ABORT: _TypeChecker.do_abort,
    **dict.fromkeys(_LITERALS, _TypeChecker.do_literal),
    op.LD_CONST: _TypeChecker.do_constant,
    op.COPY_LOC: _TypeChecker.do_copy_local,
    op.MOVE_LOC: _TypeChecker.do_move_local,
    op.ST_LOC: _TypeChecker.do_store_local,
    **dict.fromkeys((op.MUT_BORROW_LOC, op.IMM_BORROW_LOC), _TypeChecker.do_borrow_local),
    **dict.fromkeys(
        (op.MUT_BORROW_FIELD, op.IMM_BORROW_FIELD, op.MUT_BORROW_FIELD_GENERIC, op.IMM_BORROW_FIELD_GENERIC),
        _TypeChecker.do_borrow_field,
    ),
    **dict.fromkeys((op.CALL, op.CALL_GENERIC), _TypeChecker.do_call),
    **dict.fromkeys((op.PACK, op.PACK_GENERIC), _TypeChecker.do_pack),
    **dict.fromkeys((op.UNPACK, op.UNPACK_GENERIC), _TypeChecker.do_unpack),
    **dict.fromkeys((op.PACK_VARIANT, op.PACK_VARIANT_GENERIC), _TypeChecker.do_pack_variant),
    **dict.fromkeys((op.UNPACK_VARIANT, op.UNPACK_VARIANT_GENERIC), _TypeChecker.do_unpack_variant),
    **dict.fromkeys(
        (
            op.UNPACK_VARIANT_IMM_REF,
            op.UNPACK_VARIANT_MUT_REF,
            op.UNPACK_VARIANT_GENERIC_IMM_REF,
            op.UNPACK_VARIANT_GENERIC_MUT_REF,
        ),
        _TypeChecker.do_unpack_variant_reference,
    ),
    op.VARIANT_SWITCH: _TypeChecker.do_switch,
    op.READ_REF: _TypeChecker.do_read_reference,
    op.WRITE_REF: _TypeChecker.do_write_reference,
    op.FREEZE_REF: _TypeChecker.do_freeze,
    **dict.fromkeys(
        (op.ADD, op.SUB, op.MUL, op.MOD, op.DIV, op.BIT_OR, op.BIT_AND, op.XOR), _TypeChecker.do_arithmetic
    ),
    **dict.fromkeys((op.LT, op.GT, op.LE, op.GE), _TypeChecker.do_order),
    **dict.fromkeys((op.SHL, op.SHR), _TypeChecker.do_shift),
    **dict.fromkeys(_CASTS, _TypeChecker.do_cast),
    **dict.fromkeys((op.OR, op.AND), _TypeChecker.do_logic),
    op.NOT: _TypeChecker.do_not,
    **dict.fromkeys((op.EQ, op.NEQ), _TypeChecker.do_equality),
    **dict.fromkeys(range(op.VEC_PACK, op.VEC_SWAP + 1), _TypeChecker.do_vector),
}


# A local's state is a pair of bits: it may be set, it may be unset.
_SET, _UNSET = 1, 2


def _verify_locals(checker: _TypeChecker, flow: ControlFlow) -> None:
    """Locals are read only when set, and not overwritten or left behind when they must not be dropped."""
    function = checker.function
    droppable = [bool(checker.abilities(type_) & Ability.DROP) for type_ in checker.locals]

    def run(state: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
        now = list(state)
        for offset in range(first, last + 1):
            opcode, operand, _ = function.code[offset]
            checker.offset = offset
            match opcode:
                case op.COPY_LOC:
                    if now[operand] != _SET:
                        raise checker.fail("COPYLOC_UNAVAILABLE_ERROR", f"local {operand}")
                case op.MOVE_LOC:
                    if now[operand] != _SET:
                        raise checker.fail("MOVELOC_UNAVAILABLE_ERROR", f"local {operand}")
                    now[operand] = _UNSET
                case op.MUT_BORROW_LOC | op.IMM_BORROW_LOC:
                    if now[operand] != _SET:
                        raise checker.fail("BORROWLOC_UNAVAILABLE_ERROR", f"local {operand}")
                case op.ST_LOC:
                    if now[operand] & _SET and not droppable[operand]:
                        raise checker.fail("STLOC_UNSAFE_TO_DESTROY_ERROR", f"local {operand}")
                    now[operand] = _SET
                case op.RET:
                    for local, bits in enumerate(now):
                        if bits & _SET and not droppable[local]:
                            raise checker.fail(
                                "UNSAFE_RET_UNUSED_VALUES_WITHOUT_DROP", f"local {local} is still set"
                            )
                case _:
                    pass
        return tuple(now)

    def join(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...] | None:
        joined = tuple([a | b for a, b in zip(old, new, strict=True)])
        return None if joined == old else joined

    start = (_SET,) * len(function.parameters) + (_UNSET,) * len(function.locals)
    flow.analyze(start, run, join)
