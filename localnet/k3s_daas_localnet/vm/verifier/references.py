"""No dangling references, no write behind a reference's back. Source: move-bytecode-verifier
`reference_safety`.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import opcodes as op
from ..bytecode import FunctionDef, Module
from ..errors import VerificationError
from ..types import Reference, Type
from .borrow_graph import BorrowGraph, Label
from .control_flow import ControlFlow

# Edges of borrow graphs looked at in one function. Sui meters this too; the framework needs some thousands.
MAX_GRAPH_WORK = 1_000_000

# On the abstract stack and in locals: the id of a reference, or None for a value.
_Abstract = int | None


def verify_references(module: Module, function: FunctionDef, flow: ControlFlow) -> None:
    analysis = _Analysis(module, function)
    flow.analyze(_State.initial(function), analysis.run_block, _State.join)


class _State:
    """Locals and borrow graph. Ids 0…n-1 stand for the n locals at block ends, n for the frame itself."""

    __slots__ = ("graph", "locals", "next_id")

    def __init__(self, locals_: list[_Abstract], graph: BorrowGraph) -> None:
        self.locals = locals_
        self.graph = graph
        self.next_id = len(locals_) + 1

    @staticmethod
    def initial(function: FunctionDef) -> _State:
        count = len(function.parameters) + len(function.locals)
        state = _State([None] * count, BorrowGraph())
        for index, type_ in enumerate(function.parameters):
            if isinstance(type_, Reference):
                state.graph.add(index, type_.mutable)
                state.locals[index] = index
        state.graph.add(state.frame, True)
        return state

    @property
    def frame(self) -> int:
        return len(self.locals)

    def copy(self) -> _State:
        return _State(list(self.locals), self.graph.copy())

    def new(self, mutable: bool) -> int:
        node = self.next_id
        self.next_id += 1
        self.graph.add(node, mutable)
        return node

    def canonical(self) -> _State:
        names = {node: index for index, node in enumerate(self.locals) if node is not None}
        locals_: list[_Abstract] = [None if node is None else i for i, node in enumerate(self.locals)]
        return _State(locals_, self.graph.renamed(names))

    def join(self, other: _State) -> _State | None:
        joined, theirs = self.copy(), other.copy()
        changed = False
        for index, (mine, their) in enumerate(zip(self.locals, other.locals, strict=True)):
            if mine is not None and their is None:
                joined.graph.release(mine)
                joined.locals[index] = None
                changed = True
            elif mine is None and their is not None:
                theirs.graph.release(their)
        changed |= joined.graph.join(theirs.graph)
        return joined if changed else None


class _Analysis:
    def __init__(self, module: Module, function: FunctionDef) -> None:
        self.module = module
        self.function = function
        self.state = _State([], BorrowGraph())
        self.stack: list[_Abstract] = []
        self.offset = 0
        self.work = 0

    def run_block(self, state: _State, first: int, last: int) -> _State:
        self.state = state.copy()
        self.stack = []
        before = state.graph.work
        for self.offset in range(first, last + 1):
            self._step(*self.function.code[self.offset])
            # Scanning one node's borrowers is part of most instructions.
            self.state.graph.work += 1 + self.state.graph.borrower_count(self.state.frame)
            if self.work + self.state.graph.work - before > MAX_GRAPH_WORK:
                raise self._fail("PROGRAM_TOO_COMPLEX")
        self.work += self.state.graph.work - before
        return self.state.canonical()

    def _fail(self, code: str) -> VerificationError:
        return VerificationError(code, f"@{self.offset} {op.NAMES[self.function.code[self.offset][0]]}")

    def _reference(self) -> int:
        node = self.stack.pop()
        assert node is not None  # the type checker has seen a reference here
        return node

    def _drop(self, count: int) -> None:
        """Take values (not references)."""
        if count:
            del self.stack[-count:]

    def _values(self, count: int) -> None:
        self.stack += [None] * count

    def _writable(self, node: int) -> bool:
        return not self.state.graph.is_borrowed(node, None, mutable_only=False)

    def _readable(self, node: int, label: Label | None = None) -> bool:
        graph = self.state.graph
        return not graph.is_mutable(node) or not graph.is_borrowed(node, label, mutable_only=True)

    def _step(self, opcode: int, operand: int, second: int) -> None:
        state = self.state
        graph = state.graph
        stack = self.stack
        match opcode:
            case op.COPY_LOC:
                node = state.locals[operand]
                if node is not None:
                    made = state.new(graph.is_mutable(node))
                    graph.borrow_exactly(node, (), made)
                    stack.append(made)
                else:
                    if graph.is_borrowed(state.frame, operand, mutable_only=True):
                        raise self._fail("COPYLOC_EXISTS_BORROW_ERROR")
                    stack.append(None)
            case op.MOVE_LOC:
                node = state.locals[operand]
                state.locals[operand] = None
                if node is None and graph.is_borrowed(state.frame, operand, mutable_only=False):
                    raise self._fail("MOVELOC_EXISTS_BORROW_ERROR")
                stack.append(node)
            case op.ST_LOC:
                old = state.locals[operand]
                state.locals[operand] = stack.pop()
                if old is not None:
                    graph.release(old)
                elif graph.is_borrowed(state.frame, operand, mutable_only=False):
                    raise self._fail("STLOC_UNSAFE_TO_DESTROY_ERROR")
            case op.POP:
                node = stack.pop()
                if node is not None:
                    graph.release(node)
            case op.MUT_BORROW_LOC | op.IMM_BORROW_LOC:
                mutable = opcode == op.MUT_BORROW_LOC
                if graph.has_full_borrows(state.frame) or (
                    not mutable and graph.is_borrowed(state.frame, operand, mutable_only=True)
                ):
                    raise self._fail("BORROWLOC_EXISTS_BORROW_ERROR")
                made = state.new(mutable)
                graph.borrow_exactly(state.frame, (operand,), made)
                stack.append(made)
            case op.MUT_BORROW_FIELD | op.IMM_BORROW_FIELD:
                self._borrow_field(operand, opcode == op.MUT_BORROW_FIELD)
            case op.MUT_BORROW_FIELD_GENERIC | op.IMM_BORROW_FIELD_GENERIC:
                handle = self.module.field_instantiations[operand].target
                self._borrow_field(handle, opcode == op.MUT_BORROW_FIELD_GENERIC)
            case op.FREEZE_REF:
                node = self._reference()
                if graph.is_borrowed(node, None, mutable_only=True):
                    raise self._fail("FREEZEREF_EXISTS_MUTABLE_BORROW_ERROR")
                made = state.new(False)
                graph.borrow_exactly(node, (), made)
                graph.release(node)
                stack.append(made)
            case op.READ_REF:
                node = self._reference()
                if not self._readable(node):
                    raise self._fail("READREF_EXISTS_MUTABLE_BORROW_ERROR")
                graph.release(node)
                stack.append(None)
            case op.WRITE_REF:
                node = self._reference()
                self._drop(1)
                if not self._writable(node):
                    raise self._fail("WRITEREF_EXISTS_BORROW_ERROR")
                graph.release(node)
            case op.EQ | op.NEQ:
                right, left = stack.pop(), stack.pop()
                if right is not None and left is not None:
                    if not (self._readable(right) and self._readable(left)):
                        raise self._fail("READREF_EXISTS_MUTABLE_BORROW_ERROR")
                    graph.release(right)
                    graph.release(left)
                stack.append(None)
            case op.CALL:
                self._call(operand)
            case op.CALL_GENERIC:
                self._call(self.module.function_instantiations[operand].target)
            case op.RET:
                self._return()
            case op.VEC_LEN:
                graph.release(self._reference())
                stack.append(None)
            case op.VEC_IMM_BORROW | op.VEC_MUT_BORROW:
                mutable = opcode == op.VEC_MUT_BORROW
                self._drop(1)
                node = self._reference()
                if not (self._writable(node) if mutable else self._readable(node)):
                    raise self._fail("VEC_BORROW_ELEMENT_EXISTS_MUTABLE_BORROW_ERROR")
                made = state.new(mutable)
                graph.borrow_weakly(node, made)
                graph.release(node)
                stack.append(made)
            case op.VEC_PUSH_BACK | op.VEC_POP_BACK | op.VEC_SWAP:
                self._drop({op.VEC_PUSH_BACK: 1, op.VEC_POP_BACK: 0, op.VEC_SWAP: 2}[opcode])
                node = self._reference()
                if not self._writable(node):
                    raise self._fail("VEC_UPDATE_EXISTS_MUTABLE_BORROW_ERROR")
                graph.release(node)
                self._values(1 if opcode == op.VEC_POP_BACK else 0)
            case (
                op.UNPACK_VARIANT_IMM_REF
                | op.UNPACK_VARIANT_MUT_REF
                | op.UNPACK_VARIANT_GENERIC_IMM_REF
                | op.UNPACK_VARIANT_GENERIC_MUT_REF
            ):
                self._unpack_variant_reference(opcode, operand)
            case op.VARIANT_SWITCH:
                graph.release(self._reference())
            case _:
                taken, given = value_effect(self.module, opcode, operand, second)
                self._drop(taken)
                self._values(given)

    def _borrow_field(self, handle: int, mutable: bool) -> None:
        graph = self.state.graph
        node = self._reference()
        label = ("field", handle)
        if graph.has_full_borrows(node) if mutable else not self._readable(node, label):
            raise self._fail("FIELD_EXISTS_MUTABLE_BORROW_ERROR")
        made = self.state.new(mutable)
        graph.borrow_exactly(node, (label,), made)
        graph.release(node)
        self.stack.append(made)

    def _unpack_variant_reference(self, opcode: int, operand: int) -> None:
        mutable = opcode in (op.UNPACK_VARIANT_MUT_REF, op.UNPACK_VARIANT_GENERIC_MUT_REF)
        if opcode in (op.UNPACK_VARIANT_IMM_REF, op.UNPACK_VARIANT_MUT_REF):
            enum, tag = self.module.variant_handles[operand]
        else:
            instance, tag = self.module.variant_instantiations[operand]
            enum = self.module.enum_instantiations[instance].target
        graph = self.state.graph
        node = self._reference()
        if graph.has_full_borrows(node) if mutable else not self._readable(node):
            raise self._fail("FIELD_EXISTS_MUTABLE_BORROW_ERROR")
        for position in range(len(self.module.enum_defs[enum].variants[tag].fields)):
            made = self.state.new(mutable)
            graph.borrow_exactly(node, (("variant", enum, tag, position),), made)
            self.stack.append(made)
        graph.release(node)

    def _call(self, handle_index: int) -> None:
        handle = self.module.function_handles[handle_index]
        parameters: Sequence[Type] = self.module.signatures[handle.parameters]
        arguments: list[_Abstract] = []
        if parameters:
            arguments = self.stack[-len(parameters) :]
            del self.stack[-len(parameters) :]
        graph = self.state.graph
        nodes = [node for node in arguments if node is not None]
        mutable = [node for node in nodes if graph.is_mutable(node)]
        for node in mutable:
            if not self._writable(node):
                raise self._fail("CALL_BORROWED_MUTABLE_REFERENCE_ERROR")
        for type_ in self.module.signatures[handle.results]:
            if not isinstance(type_, Reference):
                self.stack.append(None)
                continue
            made = self.state.new(type_.mutable)
            for node in mutable if type_.mutable else nodes:
                graph.borrow_weakly(node, made)
            self.stack.append(made)
        for node in nodes:
            graph.release(node)

    def _return(self) -> None:
        count = len(self.function.results)
        returned = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        state = self.state
        for index, node in enumerate(state.locals):
            if node is not None:
                state.graph.release(node)
                state.locals[index] = None
        if state.graph.is_borrowed(state.frame, None, mutable_only=False):
            raise self._fail("UNSAFE_RET_LOCAL_OR_RESOURCE_STILL_BORROWED")
        for node in returned:
            if node is not None and state.graph.is_mutable(node) and not self._writable(node):
                raise self._fail("RET_BORROWED_MUTABLE_REFERENCE_ERROR")


_TAKEN_GIVEN = {
    **dict.fromkeys((op.BR_TRUE, op.BR_FALSE, op.ABORT), (1, 0)),
    **dict.fromkeys((op.BRANCH, op.NOP), (0, 0)),
    **dict.fromkeys((op.LD_TRUE, op.LD_FALSE, op.LD_CONST, *op.LITERAL_BYTES), (0, 1)),
    **dict.fromkeys(
        (op.NOT, op.CAST_U8, op.CAST_U16, op.CAST_U32, op.CAST_U64, op.CAST_U128, op.CAST_U256), (1, 1)
    ),
    **dict.fromkeys((*range(op.ADD, op.AND + 1), *range(op.LT, op.GE + 1), op.SHL, op.SHR), (2, 1)),
}


def value_effect(module: Module, opcode: int, operand: int, second: int) -> tuple[int, int]:
    """(values taken, values given) of an instruction that handles no references."""
    plain = _TAKEN_GIVEN.get(opcode)
    if plain is not None:
        return plain
    match opcode:
        case op.PACK | op.UNPACK:
            count = len(module.struct_defs[operand].fields or ())
        case op.PACK_GENERIC | op.UNPACK_GENERIC:
            target = module.struct_instantiations[operand].target
            count = len(module.struct_defs[target].fields or ())
        case op.PACK_VARIANT | op.UNPACK_VARIANT:
            enum, tag = module.variant_handles[operand]
            count = len(module.enum_defs[enum].variants[tag].fields)
        case op.PACK_VARIANT_GENERIC | op.UNPACK_VARIANT_GENERIC:
            instance, tag = module.variant_instantiations[operand]
            enum = module.enum_instantiations[instance].target
            count = len(module.enum_defs[enum].variants[tag].fields)
        case op.VEC_PACK | op.VEC_UNPACK:
            count = second
        case _:
            raise AssertionError(op.NAMES[opcode])
    packs = opcode in (op.PACK, op.PACK_GENERIC, op.PACK_VARIANT, op.PACK_VARIANT_GENERIC, op.VEC_PACK)
    return (count, 1) if packs else (1, count)
