"""Rules Sui adds to Move's. Source: sui-verifier."""

from __future__ import annotations

from .. import opcodes as op
from ..bytecode import Ability, DatatypeHandle, FunctionDef, Module, StructDef, Visibility
from ..errors import VerificationError
from ..types import (
    ADDRESS,
    BOOL,
    INTEGERS,
    Primitive,
    Reference,
    StructType,
    Type,
    TypeParameter,
    VectorType,
    parse_address,
    struct,
    type_to_string,
)
from .abilities import AbilityTable
from .control_flow import ControlFlow
from .references import value_effect

_STD = parse_address("0x1")
_SUI = parse_address("0x2")
_SYSTEM = parse_address("0x3")
_UID = struct("0x2", "object", "UID")
_TX_CONTEXT = struct("0x2", "tx_context", "TxContext")
_CLOCK = struct("0x2", "clock", "Clock")
_RANDOM = struct("0x2", "random", "Random")
_INIT = "init"

_Function = tuple[bytes, str, str]

# Functions whose type argument must be a type of the calling module (a command of a transaction is none).
INTERNAL_FUNCTIONS: frozenset[_Function] = frozenset(
    (
        (_STD, "internal", "permit"),
        (_SUI, "event", "emit"),
        (_SUI, "event", "emit_authenticated"),
        (_SUI, "transfer", "transfer"),
        (_SUI, "transfer", "freeze_object"),
        (_SUI, "transfer", "share_object"),
        (_SUI, "transfer", "receive"),
        (_SUI, "transfer", "party_transfer"),
        (_SUI, "coin_registry", "new_currency"),
    )
)
# The only makers of UIDs for new objects.
_FRESH_ID: frozenset[_Function] = frozenset(
    (
        (_SUI, "object", "new"),
        (_SUI, "object", "new_uid_from_hash"),
        (_SUI, "derived_object", "claim"),
    )
)
# Makers of system objects with fixed ids.
_ID_LEAK_EXEMPT: frozenset[_Function] = frozenset(
    (
        (_SYSTEM, "sui_system", "create"),
        (_SUI, "clock", "create"),
        (_SUI, "authenticator_state", "create"),
        (_SUI, "random", "create"),
        (_SUI, "deny_list", "create"),
        (_SUI, "accumulator", "create"),
        (_SUI, "coin_registry", "create"),
    )
)


def verify(module: Module, flows: dict[int, ControlFlow]) -> None:
    _verify_key_structs(module)
    for function in module.function_defs:
        try:
            _verify_calls(module, function)
            if function.index in flows and _identity(module, function.handle) not in _ID_LEAK_EXEMPT:
                _IdLeak(module, function).verify(flows[function.index])
            if function.name == _INIT:
                _verify_init(module, function)
            elif function.is_entry:
                _verify_entry(module, function)
        except VerificationError as error:
            raise VerificationError(error.code, f"{module.id}::{function.name}: {error.detail}") from None
    _verify_one_time_witness(module)


def _failure(detail: str) -> VerificationError:
    return VerificationError("SUI_MOVE_VERIFICATION_ERROR", detail)


def _identity(module: Module, handle_index: int) -> _Function:
    handle = module.function_handles[handle_index]
    return handle.module.address, handle.module.name, handle.name


def _verify_key_structs(module: Module) -> None:
    for definition in module.struct_defs:
        handle = module.datatype_handles[definition.handle]
        if not handle.abilities & Ability.KEY:
            continue
        if not definition.fields or definition.fields[0].name != "id" or definition.fields[0].type != _UID:
            raise _failure(f"{handle.name} has key, so its first field must be `id: sui::object::UID`")
    for enum in module.enum_defs:
        handle = module.datatype_handles[enum.handle]
        if handle.abilities & Ability.KEY:
            raise _failure(f"enum {handle.name} cannot have key")


def _verify_calls(module: Module, function: FunctionDef) -> None:
    """No call of an `init`; functions with internal type parameters get types of this module only."""
    for offset, (code, operand, _) in enumerate(function.code):
        arguments: tuple[Type, ...] = ()
        if code == op.CALL_GENERIC:
            instance = module.function_instantiations[operand]
            arguments = module.signatures[instance.signature]
            operand = instance.target
        elif code != op.CALL:
            continue
        callee = _identity(module, operand)
        if callee[2] == _INIT:
            raise _failure(f"@{offset}: a module's init cannot be called")
        if callee not in INTERNAL_FUNCTIONS:
            continue
        type_ = arguments[0]
        if not isinstance(type_, StructType) or type_.module_id != module.id:
            hint = ""
            if callee[:2] == (_SUI, "transfer"):
                hint = f"; for types with store there is public_{callee[2]}"
            raise _failure(
                f"@{offset}: {callee[1]}::{callee[2]} takes only types of this module, "
                f"found {type_to_string(type_)}{hint}"
            )


class _IdLeak:
    """Objects are packed only with a UID that comes straight from a maker of fresh ids."""

    def __init__(self, module: Module, function: FunctionDef) -> None:
        self.module = module
        self.function = function

    def verify(self, flow: ControlFlow) -> None:
        if not any(code in (op.PACK, op.PACK_GENERIC) for code, _, _ in self.function.code):
            return
        count = len(self.function.parameters) + len(self.function.locals)
        flow.analyze((False,) * count, self._run, self._join)

    @staticmethod
    def _join(old: tuple[bool, ...], new: tuple[bool, ...]) -> tuple[bool, ...] | None:
        joined = tuple([a and b for a, b in zip(old, new, strict=True)])
        return None if joined == old else joined

    def _run(self, state: tuple[bool, ...], first: int, last: int) -> tuple[bool, ...]:
        fresh = list(state)
        stack: list[bool] = []
        for offset in range(first, last + 1):
            opcode, operand, second = self.function.code[offset]
            if opcode == op.MOVE_LOC:
                stack.append(fresh[operand])
            elif opcode == op.ST_LOC:
                fresh[operand] = stack.pop()
            elif opcode in (op.CALL, op.CALL_GENERIC):
                self._call(stack, opcode, operand)
            elif opcode == op.RET:
                stack.clear()
            else:
                taken, given = self._effect(opcode, operand, second)
                if opcode in (op.PACK, op.PACK_GENERIC):
                    self._pack(stack[-taken], opcode, operand, offset)
                if taken:
                    del stack[-taken:]
                stack += [False] * given
        return tuple(fresh)

    def _call(self, stack: list[bool], opcode: int, operand: int) -> None:
        if opcode == op.CALL_GENERIC:
            operand = self.module.function_instantiations[operand].target
        handle = self.module.function_handles[operand]
        taken = len(self.module.signatures[handle.parameters])
        if taken:
            del stack[-taken:]
        is_fresh = _identity(self.module, operand) in _FRESH_ID
        stack += [is_fresh] * len(self.module.signatures[handle.results])

    def _pack(self, first_field_is_fresh: bool, opcode: int, operand: int, offset: int) -> None:
        if opcode == op.PACK_GENERIC:
            operand = self.module.struct_instantiations[operand].target
        handle = self.module.datatype_handles[self.module.struct_defs[operand].handle]
        if handle.abilities & Ability.KEY and not first_field_is_fresh:
            raise _failure(f"@{offset}: {handle.name} is made without a UID fresh from object::new")

    def _effect(self, opcode: int, operand: int, second: int) -> tuple[int, int]:
        if opcode in _REFERENCE_EFFECTS:
            return _REFERENCE_EFFECTS[opcode]
        if op.UNPACK_VARIANT_IMM_REF <= opcode <= op.UNPACK_VARIANT_GENERIC_MUT_REF:
            if opcode in (op.UNPACK_VARIANT_IMM_REF, op.UNPACK_VARIANT_MUT_REF):
                return value_effect(self.module, op.UNPACK_VARIANT, operand, second)
            return value_effect(self.module, op.UNPACK_VARIANT_GENERIC, operand, second)
        return value_effect(self.module, opcode, operand, second)


_REFERENCE_EFFECTS = {
    op.COPY_LOC: (0, 1),
    op.MUT_BORROW_LOC: (0, 1),
    op.IMM_BORROW_LOC: (0, 1),
    op.MUT_BORROW_FIELD: (1, 1),
    op.IMM_BORROW_FIELD: (1, 1),
    op.MUT_BORROW_FIELD_GENERIC: (1, 1),
    op.IMM_BORROW_FIELD_GENERIC: (1, 1),
    op.FREEZE_REF: (1, 1),
    op.READ_REF: (1, 1),
    op.WRITE_REF: (2, 0),
    op.POP: (1, 0),
    op.EQ: (2, 1),
    op.NEQ: (2, 1),
    op.VEC_LEN: (1, 1),
    op.VEC_IMM_BORROW: (2, 1),
    op.VEC_MUT_BORROW: (2, 1),
    op.VEC_PUSH_BACK: (2, 0),
    op.VEC_POP_BACK: (1, 1),
    op.VEC_SWAP: (3, 0),
    op.VARIANT_SWITCH: (1, 0),
}


def _is_context(type_: Type) -> bool:
    return isinstance(type_, Reference) and type_.target == _TX_CONTEXT


def _verify_init(module: Module, function: FunctionDef) -> None:
    """Private, not entry, no generics, no results, `(&mut TxContext)` with a one-time witness before it at
    most.
    """
    if function.visibility != Visibility.PRIVATE or function.is_entry:
        raise _failure("init must be private and not entry")
    if function.type_parameters or function.results:
        raise _failure("init has neither type parameters nor results")
    if not 1 <= len(function.parameters) <= 2 or not _is_context(function.parameters[-1]):
        raise _failure("init takes one or two parameters, the last of them &mut TxContext or &TxContext")


def _witness(module: Module) -> tuple[StructDef, DatatypeHandle] | None:
    for definition in module.struct_defs:
        handle = module.datatype_handles[definition.handle]
        if (
            handle.name == module.name.upper()
            and definition.fields is not None
            and [field.type for field in definition.fields] == [BOOL]
        ):
            return definition, handle
    return None


def _verify_one_time_witness(module: Module) -> None:
    if (module.address, module.name) == (_SUI, "sui"):
        return  # SUI itself is made at genesis, by hand
    candidate = _witness(module)
    init = module.functions.get(_INIT)
    if candidate is None:
        if init is not None and len(init.parameters) != 1:
            raise _failure(f"{module.id}: init has two parameters, but there is no one-time witness")
        return
    definition, handle = candidate
    if handle.abilities != Ability.DROP or handle.parameters:
        raise _failure(f"one-time witness {handle.name} has drop only, and no type parameters")
    if init is not None and (len(init.parameters) != 2 or init.parameters[0] != handle.type()):
        raise _failure(f"init must take the one-time witness {handle.name} as its first parameter")
    index = module.struct_defs.index(definition)
    for function in module.function_defs:
        if any(code == op.PACK and operand == index for code, operand, _ in function.code):
            raise _failure(f"{function.name} makes an instance of one-time witness {handle.name}")


def _verify_entry(module: Module, function: FunctionDef) -> None:
    table = AbilityTable(module)
    scope = function.type_parameters
    parameters = function.parameters
    if parameters and _is_context(parameters[-1]):
        parameters = parameters[:-1]
    for type_ in parameters:
        if type_ in (Reference(True, _CLOCK), _CLOCK, Reference(True, _RANDOM), _RANDOM):
            raise _failure("Clock and Random are passed by immutable reference")
        if not _is_entry_argument(table, type_, scope):
            raise _failure(f"an entry function cannot take {type_to_string(type_)}")
    for type_ in function.results:
        if isinstance(type_, Reference) or not table.of(type_, scope) & Ability.DROP:
            raise _failure(f"an entry function cannot return {type_to_string(type_)}")


_STRINGS = (struct("0x1", "string", "String"), struct("0x1", "ascii", "String"))
_ID = struct("0x2", "object", "ID")


def _is_pure(table: AbilityTable, type_: Type, scope: tuple[int, ...]) -> bool:
    match type_:
        case Primitive():
            return type_ in INTEGERS or type_ in (BOOL, ADDRESS)
        case VectorType(element):
            return _is_pure(table, element, scope)
        case StructType(address, module, name, args):
            if type_ in _STRINGS or type_ == _ID:
                return True
            return (address, module, name) == (_STD, "option", "Option") and _is_pure(table, args[0], scope)
        case TypeParameter(number):
            return not scope[number] & Ability.KEY
        case _:
            return False


def _is_receiving(type_: Type) -> bool:
    return isinstance(type_, StructType) and (type_.address, type_.module, type_.name) == (
        _SUI,
        "transfer",
        "Receiving",
    )


def _is_entry_argument(table: AbilityTable, type_: Type, scope: tuple[int, ...]) -> bool:
    """A pure value, an object (by value or reference), a vector of objects, or a Receiving."""
    inner = type_.target if isinstance(type_, Reference) else type_
    if _is_pure(table, type_, scope) or _is_receiving(inner):
        return True
    if isinstance(inner, VectorType):
        inner = inner.element
    return bool(table.of(inner, scope) & Ability.KEY)
