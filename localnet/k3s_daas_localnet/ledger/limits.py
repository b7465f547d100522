"""Sui's protocol limits (mainnet protocol config) and the checks that need nothing but the transaction.

A contract that fits here fits a public network, and one that does not is told so before it is deployed.
"""

from __future__ import annotations

from .errors import Refused
from .transaction import (
    MakeVector,
    MergeCoins,
    MoveCall,
    Publish,
    PureInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    Upgrade,
)

MAX_TRANSACTION_BYTES = 128 * 1024
MAX_INPUT_OBJECTS = 2048
MAX_COMMANDS = 1024
MAX_ARGUMENTS = 512
MAX_TYPE_ARGUMENTS = 16
MAX_TYPE_ARGUMENT_DEPTH = 16
MAX_PURE_BYTES = 16 * 1024
MAX_GAS_OBJECTS = 256
MAX_PUBLISHES = 5
MAX_MODULES_IN_PUBLISH = 64
MAX_PACKAGE_BYTES = 100 * 1024
MAX_PACKAGE_DEPENDENCIES = 32
MAX_OBJECT_BYTES = 250 * 1024
MAX_EVENTS = 1024
MAX_EVENT_BYTES = 250 * 1024
MAX_TOTAL_EVENT_BYTES = 65 * 1024 * 1024
MAX_NEW_IDS = 2048
MAX_DELETED_IDS = 2048
MAX_TRANSFERRED_IDS = 2048
MAX_CACHED_OBJECTS = 1000
MAX_STORED_OBJECTS = 1000
MAX_GAS_PRICE = 100_000
MAX_GAS_BUDGET = 50_000_000_000
MAX_COMPUTATION_UNITS = 5_000_000
PROTOCOL_VERSION = 107

# What GetEpoch answers; pysui reads its transaction constraints out of these.
PROTOCOL_ATTRIBUTES = {
    "max_arguments": MAX_ARGUMENTS,
    "max_event_emit_size": MAX_EVENT_BYTES,
    "max_gas_computation_bucket": MAX_COMPUTATION_UNITS,
    "max_gas_payment_objects": MAX_GAS_OBJECTS,
    "max_gas_price": MAX_GAS_PRICE,
    "max_input_objects": MAX_INPUT_OBJECTS,
    "max_modules_in_publish": MAX_MODULES_IN_PUBLISH,
    "max_move_object_size": MAX_OBJECT_BYTES,
    "max_move_package_size": MAX_PACKAGE_BYTES,
    "max_num_deleted_move_object_ids": MAX_DELETED_IDS,
    "max_num_event_emit": MAX_EVENTS,
    "max_num_new_move_object_ids": MAX_NEW_IDS,
    "max_num_transferred_move_object_ids": MAX_TRANSFERRED_IDS,
    "max_package_dependencies": MAX_PACKAGE_DEPENDENCIES,
    "max_programmable_tx_commands": MAX_COMMANDS,
    "max_publish_or_upgrade_per_ptb": MAX_PUBLISHES,
    "max_pure_argument_size": MAX_PURE_BYTES,
    "max_tx_gas": MAX_GAS_BUDGET,
    "max_tx_size_bytes": MAX_TRANSACTION_BYTES,
    "max_type_argument_depth": MAX_TYPE_ARGUMENT_DEPTH,
    "max_type_arguments": MAX_TYPE_ARGUMENTS,
    "object_runtime_max_num_cached_objects": MAX_CACHED_OBJECTS,
    "object_runtime_max_num_store_entries": MAX_STORED_OBJECTS,
}


def _at_most(what: str, limit: int, found: int) -> None:
    if found > limit:
        raise Refused(f"Size limit exceeded: {what} is {limit}, found {found}")


def check_shape(transaction: TransactionData) -> None:
    """Refuses what exceeds a limit by its shape alone.

    :raises Refused: naming the limit and what was found.
    """
    _at_most("serialized transaction size in bytes", MAX_TRANSACTION_BYTES, transaction.size)
    objects = [item for item in transaction.inputs if not isinstance(item, PureInput)]
    _at_most(
        "maximum input objects in a transaction", MAX_INPUT_OBJECTS, len(objects) + len(transaction.payment)
    )
    _at_most("maximum number of gas payment objects", MAX_GAS_OBJECTS, len(transaction.payment))
    _at_most("maximum commands in a programmable transaction", MAX_COMMANDS, len(transaction.commands))
    for item in transaction.inputs:
        if isinstance(item, PureInput):
            _at_most("maximum pure argument size in bytes", MAX_PURE_BYTES, len(item.data))
    if not transaction.commands:
        raise Refused("Empty programmable transaction: at least one command wanted")
    publishes = 0
    for command in transaction.commands:
        what = "maximum arguments in a command"
        match command:
            case MoveCall():
                _at_most("maximum arguments in a move call", MAX_ARGUMENTS, len(command.arguments))
                _at_most("maximum type arguments in a call", MAX_TYPE_ARGUMENTS, len(command.type_arguments))
            case TransferObjects():
                _required("TransferObjects", command.objects)
                _at_most(what, MAX_ARGUMENTS, len(command.objects))
            case SplitCoins():
                _required("SplitCoins", command.amounts)
                _at_most(what, MAX_ARGUMENTS, len(command.amounts))
            case MergeCoins():
                _required("MergeCoins", command.sources)
                _at_most(what, MAX_ARGUMENTS, len(command.sources))
            case MakeVector():
                if command.element is None:
                    _required("MakeMoveVec without a type", command.elements)
                _at_most(what, MAX_ARGUMENTS, len(command.elements))
            case Publish() | Upgrade():
                publishes += 1
                _required("Publish", command.modules)
                _at_most("maximum modules in a package", MAX_MODULES_IN_PUBLISH, len(command.modules))
                _at_most("maximum package dependencies", MAX_PACKAGE_DEPENDENCIES, len(command.dependencies))
                _at_most(
                    "maximum package size in bytes",
                    MAX_PACKAGE_BYTES,
                    sum(len(module) for module in command.modules),
                )
    _at_most("maximum publishes or upgrades in a transaction", MAX_PUBLISHES, publishes)


def _required(command: str, arguments: tuple[object, ...]) -> None:
    if not arguments:
        raise Refused(f"Empty command input: {command} takes at least one argument")
