"""Values a programmable transaction moves between its commands, and the rules for using them as arguments."""

from __future__ import annotations

from dataclasses import dataclass

from ..vm import (
    Ability,
    CodeStore,
    Primitive,
    Ref,
    StructType,
    Type,
    Value,
    VectorType,
    clone,
    from_bcs,
    struct,
    to_bcs,
    type_to_string,
)
from .effects import CommandReturn, ReturnValue
from .errors import argument_error
from .inputs import Inputs
from .objects import SUI_COIN, LedgerObject
from .transaction import Argument, OwnedInput, PureInput, ReceivingInput, SharedInput, TransactionData

_STRINGS = {struct("0x1", "string", "String"): "utf-8", struct("0x1", "ascii", "String"): "ascii"}
_ID = struct("0x2", "object", "ID")
_OPTION = struct("0x1", "option", "Option")[:3]
_RECEIVING = struct("0x2", "transfer", "Receiving")[:3]


@dataclass(eq=False)
class Slot:
    """A place a value sits in: an input, the gas coin or a result.

    :ivar type: None for plain bytes, whose type is that of the parameter they are used for.
    :ivar box: one item, the value; None once it was moved out.
    :ivar origin: the input object it holds.
    :ivar read_only: an immutable object, or a shared one taken immutably.
    """

    type: Type | None
    box: list[Value]
    origin: LedgerObject | None = None
    read_only: bool = False
    is_gas: bool = False
    pure: bytes | None = None
    receiving: tuple[bytes, int] | None = None


class Arguments:
    """All slots of a transaction.

    :ivar returned: what every finished command returned, where ``keep_returns`` asks for it.
    """

    def __init__(
        self,
        code: CodeStore,
        transaction: TransactionData,
        inputs: Inputs,
        gas: Slot,
        *,
        keep_returns: bool = False,
    ) -> None:
        self.returned: list[CommandReturn] = []
        self._keep_returns = keep_returns
        self.code = code
        self.gas = gas
        self.inputs = [self._input(item, inputs) for item in transaction.inputs]
        self.results: list[list[Slot]] = []
        self._borrowed: dict[Slot, bool] = {}

    def _input(self, item: object, inputs: Inputs) -> Slot:
        match item:
            case PureInput():
                return Slot(None, [None], pure=item.data)
            case ReceivingInput():
                found = inputs.receiving[item.ref.object_id]
                return Slot(None, [None], receiving=(found.object_id, found.version))
            case OwnedInput():
                found = inputs.objects[item.ref.object_id]
            case SharedInput():
                found = inputs.objects[item.object_id]
            case _:
                raise TypeError(type(item).__name__)
        assert found.type is not None
        value = from_bcs(self.code.layout(found.type), found.contents)
        return Slot(found.type, [value], found, read_only=found.object_id not in inputs.mutable)

    def begin_command(self) -> None:
        """References last for one command."""
        self._borrowed = {}

    def push(self, types: list[Type], values: list[Value]) -> None:
        """The results of a command."""
        if self._keep_returns:
            found = [self._describe(type_, value) for type_, value in zip(types, values, strict=True)]
            self.returned.append(CommandReturn(tuple(found)))
        self.results.append([Slot(type_, [value]) for type_, value in zip(types, values, strict=True)])

    def _describe(self, type_: Type, value: Value) -> ReturnValue:
        layout = self.code.layout(type_)
        return ReturnValue(type_, to_bcs(layout, value), layout.json(value))

    def slot(self, index: int, argument: Argument) -> Slot:
        """:param index: position of the argument in its command, for the error."""
        match argument.kind:
            case "gas":
                return self.gas
            case "input":
                if argument.position >= len(self.inputs):
                    raise argument_error(index, "INDEX_OUT_OF_BOUNDS", f"input {argument.position}")
                return self.inputs[argument.position]
        if argument.position >= len(self.results):
            raise argument_error(index, "INDEX_OUT_OF_BOUNDS", f"result {argument.position}")
        results = self.results[argument.position]
        if argument.kind == "result":
            if len(results) != 1:
                raise argument_error(
                    index,
                    "INVALID_RESULT_ARITY",
                    f"result {argument.position} has {len(results)} values, 1 wanted",
                )
            return results[0]
        if argument.nested >= len(results):
            raise argument_error(
                index, "SECONDARY_INDEX_OUT_OF_BOUNDS", f"result {argument.position} value {argument.nested}"
            )
        return results[argument.nested]

    def take(
        self, index: int, argument: Argument, wanted: Type | None, *, gas_allowed: bool = False
    ) -> Value:
        """The value itself: copied when its type may be, else moved out for good.

        :param wanted: the parameter's type; None takes whatever type it has (never plain bytes).
        """
        slot = self.slot(index, argument)
        if self._is_plain(slot):
            return self._plain(index, slot, wanted)
        value = self._typed(index, slot, wanted)
        assert slot.type is not None
        if slot in self._borrowed:
            raise argument_error(index, "INVALID_VALUE_USAGE", "it is borrowed by the same command")
        if self.code.abilities(slot.type) & Ability.COPY:
            return clone(value)
        if slot.read_only:
            raise argument_error(index, "INVALID_OBJECT_BY_VALUE", "the object was taken immutably")
        if slot.is_gas and not gas_allowed:
            raise argument_error(
                index, "INVALID_GAS_COIN_USAGE", "the gas coin can only be moved by TransferObjects"
            )
        slot.box[0] = None
        return value

    def borrow(self, index: int, argument: Argument, wanted: Type | None, *, mutable: bool) -> Ref:
        """A reference that lasts for the command."""
        slot = self.slot(index, argument)
        if self._is_plain(slot):
            return Ref.to(self._plain(index, slot, wanted))
        self._typed(index, slot, wanted)
        if mutable and slot.read_only:
            raise argument_error(
                index, "INVALID_OBJECT_BY_MUT_REF", "a mutable reference to an object taken immutably"
            )
        if slot in self._borrowed and (mutable or self._borrowed[slot]):
            raise argument_error(index, "INVALID_VALUE_USAGE", "it is borrowed by the same command already")
        self._borrowed[slot] = mutable or self._borrowed.get(slot, False)
        return Ref(slot.box, 0)

    def type_of(self, index: int, argument: Argument) -> Type:
        """Type of a value that has one by itself."""
        slot = self.slot(index, argument)
        if slot.type is None:
            raise argument_error(
                index, "TYPE_MISMATCH", "a plain value has no type here; an object is wanted"
            )
        return slot.type

    @staticmethod
    def _is_plain(slot: Slot) -> bool:
        return slot.pure is not None or slot.receiving is not None

    def _typed(self, index: int, slot: Slot, wanted: Type | None) -> Value:
        assert slot.type is not None
        if wanted is not None and slot.type != wanted:
            raise argument_error(
                index, "TYPE_MISMATCH", f"found {type_to_string(slot.type)}, wanted {type_to_string(wanted)}"
            )
        value = slot.box[0]
        if value is None:
            raise argument_error(index, "INVALID_VALUE_USAGE", "it was moved by an earlier use")
        return value

    def _plain(self, index: int, slot: Slot, wanted: Type | None) -> Value:
        if wanted is None:
            raise argument_error(index, "TYPE_MISMATCH", "a plain value was found, an object is wanted")
        if slot.receiving is not None:
            if not isinstance(wanted, StructType) or wanted[:3] != _RECEIVING:
                raise argument_error(
                    index, "TYPE_MISMATCH", f"wanted {type_to_string(wanted)}, found Receiving"
                )
            object_id, version = slot.receiving
            return [[object_id], version]
        assert slot.pure is not None
        if not _is_pure(wanted):
            raise argument_error(
                index, "INVALID_USAGE_OF_PURE_ARGUMENT", f"{type_to_string(wanted)} can't be made from bytes"
            )
        try:
            value = from_bcs(self.code.layout(wanted), slot.pure)
            _check_text(wanted, value)
        except ValueError as error:
            raise argument_error(
                index, "INVALID_BCS_BYTES", f"no {type_to_string(wanted)}: {error}"
            ) from error
        return value


def is_coin(type_: Type) -> bool:
    """Whether this is ``0x2::coin::Coin`` of something."""
    return isinstance(type_, StructType) and type_[:3] == SUI_COIN[:3]


def _is_pure(type_: Type) -> bool:
    """Whether values may be given as bytes: numbers, addresses, strings, ids, options, vectors of those."""
    match type_:
        case Primitive(name):
            return name != "signer"
        case VectorType(element):
            return _is_pure(element)
        case StructType():
            if type_[:3] == _OPTION:
                return _is_pure(type_.args[0])
            return type_ in _STRINGS or type_ == _ID
        case _:
            return False


def _check_text(type_: Type, value: Value) -> None:
    """Refuses strings whose bytes are not text, wherever they are inside ``value``."""
    match type_:
        case VectorType(element) if isinstance(value, list):
            for item in value:
                _check_text(element, item)
        case StructType() if type_ in _STRINGS:
            bytes(value[0]).decode(_STRINGS[type_])
        case StructType() if type_[:3] == _OPTION:
            if len(value[0]) > 1:
                raise ValueError("an Option holds at most one value")
            for item in value[0] if isinstance(value[0], list) else ():
                _check_text(type_.args[0], item)
        case _:
            pass
