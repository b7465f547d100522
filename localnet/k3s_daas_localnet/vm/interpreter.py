"""Runs Move bytecode.

One loop with explicit frames: Move recursion does not use Python's stack. The code it runs has passed the
verifier, so the loop checks only what the verifier cannot know: arithmetic, vector bounds, variant tags,
depth and step bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import opcodes as op
from .errors import ModuleId, MoveAbort, NativeAbort, OutOfGas, VmError
from .host import Host
from .natives import NATIVES
from .prepare import CAST, LITERAL, Prepared, PreparedInstruction
from .store import CodeStore
from .types import Type
from .values import INTEGER_BITS, INTEGER_MAX, EnumValue, Ref, U8Value, Value

MAX_CALL_DEPTH = 1024
DEFAULT_STEP_LIMIT = 5_000_000
MAX_NATIVE_US = 1_500_000
# Sui's protocol config: max_move_vector_len.
MAX_VECTOR_LENGTH = 256 * 1024
# Copying, comparing and hashing cost by size: one step for so many bytes of a vector<u8>.
_BYTES_PER_STEP = 32

_Frame = tuple[Prepared, list[PreparedInstruction], list[Value], list[Value], int]


class Interpreter:
    """Calls functions on behalf of one transaction.

    `steps` counts executed instructions plus work that natives and copies charge; it is what gas is
    computed from. Use one instance for all commands of a transaction: the limit is for their sum.
    """

    def __init__(self, code: CodeStore, host: Host, step_limit: int = DEFAULT_STEP_LIMIT) -> None:
        self.code: CodeStore = code
        self.host: Host = host
        self.step_limit = step_limit
        self.steps = 0
        self._native_us = 0

    def call(
        self, module: ModuleId, function: str, type_args: Sequence[Type], args: Sequence[Value]
    ) -> list[Value]:
        """Run a function, whatever its visibility, and give its results.

        The arguments must be of the right types: Move values, and Ref for reference parameters. Type
        arguments are checked. Raises MoveAbort, VmError (OutOfGas among them).
        """
        found = self.code.function(module, function)
        if found is None:
            raise VmError("FUNCTION_RESOLUTION_FAILURE", f"there is no function {module}::{function}")
        if len(args) != len(found.parameters):
            raise VmError(
                "NUMBER_OF_ARGUMENTS_MISMATCH", f"{len(args)} arguments, wanted {len(found.parameters)}"
            )
        closed = tuple(type_args)
        for type_ in closed:
            self.code.check_type(type_)
        self.code.check_constraints(list(found.type_parameters), closed)
        prepared = self.code.prepared(found, closed, self.code.linkage(module.address))
        if found.is_native:
            return self._native(prepared, list(args))
        return self._run(prepared, list(args))

    def charge(self, steps: int, microseconds: int = 0) -> None:
        """Count work done outside the loop. Raises OutOfGas.

        :param microseconds: about how long a native takes that is much slower than its steps; it is not
            billed, but bounded, so that nothing holds a node up.
        """
        self.steps += steps
        if self.steps > self.step_limit:
            raise OutOfGas(self.step_limit)
        self._native_us += microseconds
        if self._native_us > MAX_NATIVE_US:
            raise OutOfGas(MAX_NATIVE_US, "µs in slow natives, a bound of this network's own")

    def copy(self, value: Value) -> Value:
        """A deep copy, charged by size."""
        kind = type(value)
        if kind is list:
            self.charge(len(value))
            return [self.copy(item) for item in value]
        if kind is bytearray:
            self.charge(len(value) // _BYTES_PER_STEP)
            return bytearray(value)
        if kind is EnumValue:
            self.charge(1)
            return EnumValue(value.tag, [self.copy(item) for item in value.fields])
        return value

    def _native(self, prepared: Prepared, args: list[Value]) -> list[Value]:
        function = prepared.function
        native = NATIVES.get((function.module.address, function.module.name, function.name))
        try:
            if native is None:
                raise VmError(
                    "MISSING_DEPENDENCY", f"native {function.module}::{function.name} is not implemented"
                )
            return native(self, prepared.type_args, args)
        except NativeAbort as abort:
            raise MoveAbort(function.module, function.name, function.index, 0, abort.code) from None
        except VmError as error:
            error.locate(function.module, function.name, function.index, 0)
            raise

    def _run(self, prepared: Prepared, args: list[Value]) -> list[Value]:
        frames: list[_Frame] = []
        code = prepared.code
        local: list[Value] = args + [None] * prepared.locals_count
        stack: list[Value] = []
        push = stack.append
        pop = stack.pop
        pc = 0
        steps = 0
        allowed = self.step_limit - self.steps
        try:
            # Ordered by how often instructions occur; every branch is one instruction.
            while True:
                opcode, operand = code[pc]
                pc += 1
                steps += 1
                if opcode == op.MOVE_LOC:
                    push(local[operand])
                elif opcode == op.ST_LOC:
                    local[operand] = pop()
                elif opcode == op.COPY_LOC:
                    value = local[operand]
                    kind = type(value)
                    if kind is list or kind is bytearray or kind is EnumValue:
                        value = self.copy(value)
                    push(value)
                elif opcode == op.CALL:
                    count = operand.parameter_count
                    if count:
                        arguments = stack[-count:]
                        del stack[-count:]
                    else:
                        arguments = []
                    if operand.function.is_native:
                        stack += self._native(operand, arguments)
                    else:
                        if len(frames) >= MAX_CALL_DEPTH:
                            raise VmError("CALL_STACK_OVERFLOW", f"calls nested deeper than {MAX_CALL_DEPTH}")
                        if steps > allowed:
                            raise OutOfGas(self.step_limit)
                        frames.append((prepared, code, local, stack, pc))
                        prepared = operand
                        code = prepared.code
                        local = arguments + [None] * prepared.locals_count
                        stack = []
                        push = stack.append
                        pop = stack.pop
                        pc = 0
                elif opcode == op.IMM_BORROW_FIELD:
                    push(Ref(pop().get(), operand))
                elif opcode == op.RET:
                    if not frames:
                        return stack
                    results = stack
                    prepared, code, local, stack, pc = frames.pop()
                    push = stack.append
                    pop = stack.pop
                    stack += results
                elif opcode == LITERAL:
                    push(operand)
                elif opcode == op.IMM_BORROW_LOC:
                    push(Ref(local, operand))
                elif opcode == op.POP:
                    pop()
                elif opcode == op.BR_FALSE:
                    if not pop():
                        pc = operand
                        if steps > allowed:
                            raise OutOfGas(self.step_limit)
                elif opcode == op.BRANCH:
                    pc = operand
                    if steps > allowed:
                        raise OutOfGas(self.step_limit)
                elif opcode == op.READ_REF:
                    value = pop().get()
                    kind = type(value)
                    if kind is list or kind is bytearray or kind is EnumValue:
                        value = self.copy(value)
                    push(value)
                elif opcode == op.ADD:
                    right = pop()
                    left = pop()
                    cls = type(left)
                    result = left + right
                    if result > INTEGER_MAX[cls]:
                        raise VmError("ARITHMETIC_ERROR", f"{left} + {right} overflows {_width(cls)}")
                    push(result if cls is int else cls(result))
                elif opcode == op.LT:
                    right = pop()
                    push(pop() < right)
                elif opcode == op.LD_CONST:
                    push(self.copy(operand))
                elif opcode == op.NOT:
                    push(not pop())
                elif opcode == op.WRITE_REF:
                    reference = pop()
                    reference.set(pop())
                elif opcode == op.VEC_IMM_BORROW:
                    index = pop()
                    vector = pop().get()
                    if index >= len(vector):
                        raise VmError(
                            "VECTOR_OPERATION_ERROR", f"index {index} in a vector of {len(vector)} elements"
                        )
                    push(Ref(vector, index))
                elif opcode == op.EQ or opcode == op.NEQ:
                    right = pop()
                    left = pop()
                    if type(left) is Ref:
                        left = left.get()
                        right = right.get()
                    if type(left) is list:
                        self.charge(_size(left))
                    push((left == right) if opcode == op.EQ else (left != right))
                elif opcode == op.PACK:
                    if operand:
                        fields = stack[-operand:]
                        del stack[-operand:]
                    else:
                        fields = []
                    push(fields)
                elif opcode == op.UNPACK:
                    stack += pop()
                elif opcode == op.SUB:
                    right = pop()
                    left = pop()
                    if right > left:
                        raise VmError("ARITHMETIC_ERROR", f"{left} - {right} underflows")
                    push(type(left)(left - right))
                elif opcode == op.GT:
                    right = pop()
                    push(pop() > right)
                elif opcode == op.LE:
                    right = pop()
                    push(pop() <= right)
                elif opcode == op.GE:
                    right = pop()
                    push(pop() >= right)
                elif opcode == op.BR_TRUE:
                    if pop():
                        pc = operand
                        if steps > allowed:
                            raise OutOfGas(self.step_limit)
                elif opcode == op.VEC_LEN:
                    push(len(pop().get()))
                elif opcode == op.VEC_PUSH_BACK:
                    value = pop()
                    vector = pop().get()
                    if len(vector) >= MAX_VECTOR_LENGTH:
                        raise VmError(
                            "VECTOR_OPERATION_ERROR", f"a vector of more than {MAX_VECTOR_LENGTH} elements"
                        )
                    vector.append(value)
                elif opcode == op.VEC_POP_BACK:
                    vector = pop().get()
                    if not vector:
                        raise VmError("VECTOR_OPERATION_ERROR", "pop from an empty vector")
                    value = vector.pop()
                    push(U8Value(value) if type(vector) is bytearray else value)
                elif opcode == op.LD_TRUE:
                    push(True)
                elif opcode == op.LD_FALSE:
                    push(False)
                elif opcode == CAST:
                    value = pop()
                    cls, maximum = operand
                    if value > maximum:
                        raise VmError("ARITHMETIC_ERROR", f"{value} does not fit {_width(cls)}")
                    push(cls(value))
                elif opcode == op.MUL:
                    right = pop()
                    left = pop()
                    cls = type(left)
                    result = left * right
                    if result > INTEGER_MAX[cls]:
                        raise VmError("ARITHMETIC_ERROR", f"{left} * {right} overflows {_width(cls)}")
                    push(cls(result))
                elif opcode == op.DIV or opcode == op.MOD:
                    right = pop()
                    left = pop()
                    if not right:
                        raise VmError("ARITHMETIC_ERROR", f"{left} divided by zero")
                    push(type(left)(left // right if opcode == op.DIV else left % right))
                elif opcode == op.BIT_AND:
                    right = pop()
                    left = pop()
                    push(type(left)(int(left) & int(right)))
                elif opcode == op.BIT_OR:
                    right = pop()
                    left = pop()
                    push(type(left)(int(left) | int(right)))
                elif opcode == op.XOR:
                    right = pop()
                    left = pop()
                    push(type(left)(int(left) ^ int(right)))
                elif opcode == op.SHL or opcode == op.SHR:
                    right = pop()
                    left = pop()
                    cls = type(left)
                    if right >= INTEGER_BITS[cls]:
                        raise VmError("ARITHMETIC_ERROR", f"shift of {_width(cls)} by {right}")
                    if opcode == op.SHL:
                        push(cls((int(left) << right) & INTEGER_MAX[cls]))
                    else:
                        push(cls(int(left) >> right))
                elif opcode == op.AND:
                    right = pop()
                    push(pop() and right)
                elif opcode == op.OR:
                    right = pop()
                    push(pop() or right)
                elif opcode == op.ABORT:
                    function = prepared.function
                    raise MoveAbort(function.module, function.name, function.index, pc - 1, int(pop()))
                elif opcode == op.VEC_PACK:
                    count, is_bytes = operand
                    if count:
                        items = stack[-count:]
                        del stack[-count:]
                    else:
                        items = []
                    push(bytearray(items) if is_bytes else items)
                elif opcode == op.VEC_UNPACK:
                    vector = pop()
                    if len(vector) != operand:
                        raise VmError(
                            "VECTOR_OPERATION_ERROR", f"{len(vector)} elements unpacked as {operand}"
                        )
                    stack += map(U8Value, vector) if type(vector) is bytearray else vector
                elif opcode == op.VEC_SWAP:
                    second = pop()
                    first = pop()
                    vector = pop().get()
                    if first >= len(vector) or second >= len(vector):
                        raise VmError(
                            "VECTOR_OPERATION_ERROR",
                            f"swap of {first} and {second} in a vector of {len(vector)} elements",
                        )
                    vector[first], vector[second] = vector[second], vector[first]
                elif opcode == op.PACK_VARIANT:
                    tag, count = operand
                    if count:
                        fields = stack[-count:]
                        del stack[-count:]
                    else:
                        fields = []
                    push(EnumValue(tag, fields))
                elif opcode == op.UNPACK_VARIANT:
                    value = pop()
                    if value.tag != operand[0]:
                        raise VmError("VARIANT_TAG_MISMATCH", f"variant {value.tag}, wanted {operand[0]}")
                    stack += value.fields
                elif opcode == op.UNPACK_VARIANT_IMM_REF:
                    value = pop().get()
                    if value.tag != operand[0]:
                        raise VmError("VARIANT_TAG_MISMATCH", f"variant {value.tag}, wanted {operand[0]}")
                    stack += [Ref(value.fields, at) for at in range(operand[1])]
                elif opcode == op.VARIANT_SWITCH:
                    pc = operand[pop().get().tag]
                    if steps > allowed:
                        raise OutOfGas(self.step_limit)
                elif opcode == op.FREEZE_REF or opcode == op.NOP:
                    pass
                else:
                    raise VmError("UNKNOWN_OPCODE", op.NAMES.get(opcode, hex(opcode)))
        except VmError as error:
            function = prepared.function
            error.locate(function.module, function.name, function.index, pc - 1)
            raise
        finally:
            self.steps += steps


def _width(cls: type[int]) -> str:
    return f"u{INTEGER_BITS[cls]}"


def _size(value: Value) -> int:
    kind = type(value)
    if kind is list:
        return len(value) + sum(map(_size, value)) if value and type(value[0]) in (list, bytearray) else 1
    return len(value) // _BYTES_PER_STEP if kind is bytearray else 1
