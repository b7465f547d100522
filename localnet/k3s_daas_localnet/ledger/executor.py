"""Runs the commands of a programmable transaction."""

from __future__ import annotations

from ..vm import (
    Ability,
    Interpreter,
    ModuleId,
    MoveAbort,
    OutOfGas,
    Ref,
    Reference,
    StructType,
    Type,
    Value,
    VectorType,
    Visibility,
    VmError,
    struct,
    substitute,
    type_to_string,
)
from ..vm.types import ADDRESS, U8, U64
from ..vm.values import U8Value, object_id
from ..vm.verifier import INTERNAL_FUNCTIONS
from . import packages
from .arguments import Arguments, is_coin
from .errors import AbortLocation, ExecutionFailure, argument_error
from .inputs import Find
from .objects import Owner
from .runtime import ObjectRuntime
from .transaction import (
    Argument,
    Command,
    MakeVector,
    MergeCoins,
    MoveCall,
    Publish,
    SplitCoins,
    TransferObjects,
    Upgrade,
)

_TX_CONTEXT = struct("0x2", "tx_context", "TxContext")
_UPGRADE_CAP = struct("0x2", "package", "UpgradeCap")
_UPGRADE_TICKET = struct("0x2", "package", "UpgradeTicket")
_UPGRADE_RECEIPT = struct("0x2", "package", "UpgradeReceipt")
_U64_MAX = (1 << 64) - 1
# Errors the VM finds in what it was given, not in what the program did.
_TYPE_ERRORS = {
    "TYPE_RESOLUTION_FAILURE": "TYPE_NOT_FOUND",
    "CONSTRAINT_NOT_SATISFIED": "CONSTRAINT_NOT_SATISFIED",
}


class Executor:
    """One transaction's run. After ``run`` the runtime and the arguments hold its outcome.

    :param find: the live object of an id.
    """

    def __init__(self, vm: Interpreter, runtime: ObjectRuntime, arguments: Arguments, find: Find) -> None:
        self.vm = vm
        self.runtime = runtime
        self.arguments = arguments
        self.published: list[packages.Published] = []
        self.gas_recipient: bytes | None = None
        self._code = runtime.code
        self._find = find
        context = runtime.context
        self._context: list[Value] = [
            context.sender,
            bytearray(context.digest),
            context.epoch,
            context.epoch_timestamp_ms,
            0,
        ]

    def run(self, commands: tuple[Command, ...]) -> None:
        """Runs all commands.

        :raises ExecutionFailure: with the index of the command that failed.
        """
        for index, command in enumerate(commands):
            self.arguments.begin_command()
            try:
                self._one(command)
            except ExecutionFailure as failure:
                failure.command = index
                raise
            except MoveAbort as abort:
                raise _aborted(abort, index) from abort
            except VmError as error:
                raise _vm_failure(error, index) from error
        self._check_leftovers(len(commands))

    def _one(self, command: Command) -> None:
        match command:
            case MoveCall():
                self._call(command)
            case SplitCoins():
                self._split(command)
            case MergeCoins():
                self._merge(command)
            case TransferObjects():
                self._transfer(command)
            case MakeVector():
                self._vector(command)
            case Publish():
                self._publish(command)
            case Upgrade():
                self._upgrade(command)

    # --- MoveCall

    def _call(self, command: MoveCall) -> None:
        module = ModuleId(command.package, command.module)
        function = self._code.function(module, command.function)
        if function is None:
            raise ExecutionFailure("FUNCTION_NOT_FOUND", f"Function Not Found: {module}::{command.function}")
        if function.visibility != Visibility.PUBLIC and not function.is_entry:
            raise ExecutionFailure(
                "NON_ENTRY_FUNCTION_INVOKED",
                f"Non Entry Function Invoked: {module}::{command.function} is neither public nor entry",
            )
        if (command.package, command.module, command.function) in INTERNAL_FUNCTIONS:
            raise ExecutionFailure(
                "NON_ENTRY_FUNCTION_INVOKED",
                f"Non Entry Function Invoked: {module}::{command.function} can only be called by the module "
                "of its type argument; for objects with store use its public variant",
            )
        types = tuple(map(self._code.canonical, command.type_arguments))
        self._check_type_arguments(list(function.type_parameters), types)
        parameters = [substitute(parameter, types) for parameter in function.parameters]
        results = [substitute(result, types) for result in function.results]
        for position, result in enumerate(results):
            if isinstance(result, Reference):
                raise ExecutionFailure(
                    "INVALID_PUBLIC_FUNCTION_RETURN_TYPE",
                    f"Invalid public Move function signature: return value {position} is a reference",
                )
        wants_context = bool(parameters) and _is_context(parameters[-1])
        given = parameters[:-1] if wants_context else parameters
        if len(given) != len(command.arguments):
            raise ExecutionFailure(
                "ARITY_MISMATCH",
                f"Arity mismatch for Move function {module}::{command.function}: "
                f"found {len(command.arguments)} arguments, wanted {len(given)}",
            )
        values = [
            self._argument(index, argument, parameter)
            for index, (argument, parameter) in enumerate(zip(command.arguments, given, strict=True))
        ]
        if wants_context:
            values.append(Ref.to(self._context))
        self.runtime.current_module = module
        self.arguments.push(results, self.vm.call(module, command.function, types, values))

    def _argument(self, index: int, argument: Argument, parameter: Type) -> Value:
        if isinstance(parameter, Reference):
            return self.arguments.borrow(index, argument, parameter.target, mutable=parameter.mutable)
        return self.arguments.take(index, argument, parameter)

    def _check_type_arguments(self, constraints: list[int], types: tuple[Type, ...]) -> None:
        if len(constraints) != len(types):
            raise ExecutionFailure(
                "TYPE_ARITY_MISMATCH",
                f"Type arity mismatch for Move function: found {len(types)}, wanted {len(constraints)}",
            )
        for index, (constraint, type_) in enumerate(zip(constraints, types, strict=True)):
            try:
                self._code.check_type(type_)
                self._code.check_constraints([constraint], (type_,))
            except VmError as error:
                kind = _TYPE_ERRORS.get(error.status, "TYPE_NOT_FOUND")
                raise ExecutionFailure(
                    "TYPE_ARGUMENT_ERROR",
                    f"Error for type argument at index {index}: {error.detail}",
                    type_argument=(index, kind),
                ) from error

    # --- coins and objects

    def _split(self, command: SplitCoins) -> None:
        coin_type = self._coin_type(0, command.coin)
        amounts = [
            self.arguments.take(index + 1, amount, U64) for index, amount in enumerate(command.amounts)
        ]
        coin = self.arguments.borrow(0, command.coin, coin_type, mutable=True).get()
        made: list[Value] = []
        for amount in amounts:
            if coin[1][0] < amount:
                raise ExecutionFailure(
                    "INSUFFICIENT_COIN_BALANCE",
                    f"Insufficient coin balance for operation: found {coin[1][0]}, wanted {amount}",
                )
            coin[1][0] -= amount
            made.append([[[self.runtime.fresh_id()]], [amount]])
        self.arguments.push([coin_type] * len(made), made)

    def _merge(self, command: MergeCoins) -> None:
        coin_type = self._coin_type(0, command.target)
        target = self.arguments.borrow(0, command.target, coin_type, mutable=True).get()
        for index, source in enumerate(command.sources):
            coin = self.arguments.take(index + 1, source, coin_type)
            target[1][0] += coin[1][0]
            if target[1][0] > _U64_MAX:
                raise ExecutionFailure("COIN_BALANCE_OVERFLOW", "The coin balance exceeds 64 bits")
            self.runtime.delete_uid(object_id(coin))
        self.arguments.push([], [])

    def _coin_type(self, index: int, argument: Argument) -> Type:
        type_ = self.arguments.type_of(index, argument)
        if not is_coin(type_):
            raise argument_error(index, "TYPE_MISMATCH", f"found {type_to_string(type_)}, wanted a coin")
        return type_

    def _transfer(self, command: TransferObjects) -> None:
        recipient = self.arguments.take(len(command.objects), command.recipient, ADDRESS)
        for index, argument in enumerate(command.objects):
            type_ = self.arguments.type_of(index, argument)
            abilities = self._code.abilities(type_)
            # Without `store` only the type's own module may move an object: that binds it to its owner.
            if (
                not isinstance(type_, StructType)
                or not abilities & Ability.KEY
                or not abilities & Ability.STORE
            ):
                raise argument_error(
                    index,
                    "INVALID_TRANSFER_OBJECT",
                    f"{type_to_string(type_)} lacks the abilities key and store",
                )
            slot = self.arguments.slot(index, argument)
            value = self.arguments.take(index, argument, None, gas_allowed=True)
            if slot.is_gas:
                # What is left of the coin after paying for this transaction goes there at its end.
                self.gas_recipient = recipient
                continue
            self.runtime.place(type_, value, Owner("address", recipient))
        self.arguments.push([], [])

    def _vector(self, command: MakeVector) -> None:
        element = command.element
        if element is None:
            element = self.arguments.type_of(0, command.elements[0])
        element = self._code.canonical(element)
        self._code.check_type(element)
        values = [
            self.arguments.take(index, argument, element) for index, argument in enumerate(command.elements)
        ]
        made: Value = bytearray(values) if element == U8 else values
        self.arguments.push([VectorType(element)], [made])

    # --- Publish, Upgrade

    def _publish(self, command: Publish) -> None:
        package_id = self.runtime.fresh_id()
        published = packages.publish(command, package_id, self._code, self._find)
        self.published.append(published)
        for module in published.modules:
            function = module.functions.get("init")
            if function is None:
                continue
            values: list[Value] = [Ref.to(self._context)]
            if len(function.parameters) == 2:
                values.insert(0, [False])  # the one-time witness: a struct with one bool field
            self.runtime.current_module = module.id
            self.vm.call(module.id, "init", (), values)
        capability = [[[self.runtime.fresh_id()]], [package_id], 1, U8Value(0)]
        self.arguments.push([_UPGRADE_CAP], [capability])

    def _upgrade(self, command: Upgrade) -> None:
        """An upgraded package's modules don't run their ``init``, new ones neither."""
        cap, package, policy, digest = self.arguments.take(0, command.ticket, _UPGRADE_TICKET)
        ticket = packages.Ticket(cap[0], package[0], int(policy), bytes(digest))
        package_id = self.runtime.fresh_id()
        self.published.append(packages.upgrade(command, ticket, package_id, self._code, self._find))
        self.arguments.push([_UPGRADE_RECEIPT], [[[ticket.cap], [package_id]]])

    # --- the end

    def _check_leftovers(self, commands: int) -> None:
        """Every value that can't be dropped has to end up somewhere."""
        for position, results in enumerate(self.arguments.results):
            for nested, slot in enumerate(results):
                assert slot.type is not None
                if slot.box[0] is not None and not self._code.abilities(slot.type) & Ability.DROP:
                    raise ExecutionFailure(
                        "UNUSED_VALUE_WITHOUT_DROP",
                        f"Unused result without the drop ability. Command result {position}, return value "
                        f"{nested}: {type_to_string(slot.type)}",
                        command=commands - 1,
                    )


def _is_context(parameter: Type) -> bool:
    return isinstance(parameter, Reference) and parameter.target == _TX_CONTEXT


def _aborted(abort: MoveAbort, command: int) -> ExecutionFailure:
    module = abort.module
    return ExecutionFailure(
        "MOVE_ABORT",
        f"Move Runtime Abort. Location: {module}::{abort.function_name} "
        f"(function index {abort.function_index}) at offset {abort.instruction}, Abort Code: {abort.code}",
        command=command,
        abort=AbortLocation(
            module.address,
            module.name,
            abort.function_index,
            abort.function_name,
            abort.instruction,
            abort.code,
        ),
    )


def _vm_failure(error: VmError, command: int) -> ExecutionFailure:
    if isinstance(error, OutOfGas):
        return ExecutionFailure("INSUFFICIENT_GAS", f"Insufficient Gas: {error}", command=command)
    return ExecutionFailure(
        "MOVE_PRIMITIVE_RUNTIME_ERROR", f"Move Primitive Runtime Error: {error}", command=command
    )
