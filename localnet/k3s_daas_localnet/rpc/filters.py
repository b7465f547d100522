"""Filters of lists and subscriptions: any of some terms, each of which is several literals, all to be met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import betterproto2
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..ledger import encoding
from ..ledger.encoding import hex_address
from ..vm.types import parse_type, type_to_string
from .protocol import Message, v2

T = TypeVar("T")

#: Whether a transaction (an ``ExecutedTransaction`` with all its fields) matches.
TransactionTest = Callable[[Message], bool]
#: Whether an event of a transaction matches.
EventTest = Callable[[Message, Message], bool]


def transaction_test(found: Message | None) -> TransactionTest | None:
    """The test that a ``TransactionFilter`` stands for; None when there is none.

    :raises GRPCError: INVALID_ARGUMENT.
    """

    def over_events(matches: Callable[[Message], bool]) -> TransactionTest:
        return lambda transaction: any(matches(event) for event in events_of(transaction))

    def one(name: str, value: Message) -> TransactionTest:
        match name:
            case "sender":
                wanted = _address(value.address)
                return lambda transaction: bool(transaction.transaction.sender == wanted)
            case "affected_address":
                return _affected_address(_address(value.address))
            case "affected_object":
                wanted = _address(value.object_id)
                return lambda transaction: any(change.object_id == wanted for change in _changes(transaction))
            case "move_call":
                return _move_call(_path(value.function, 3))
            case "package_write":
                written = v2.ChangedObjectOutputObjectState.PACKAGE_WRITE
                return lambda transaction: any(
                    change.output_state == written for change in _changes(transaction)
                )
            case _:
                return over_events(_event_predicate(name, value))

    return _compile(found, one)


def event_test(found: Message | None) -> EventTest | None:
    """The test that an ``EventFilter`` stands for; None when there is none.

    :raises GRPCError: INVALID_ARGUMENT.
    """

    def one(name: str, value: Message) -> Callable[[tuple[Message, Message]], bool]:
        if name == "sender":
            wanted = _address(value.address)
            return lambda pair: bool(pair[0].transaction.sender == wanted)
        matches = _event_predicate(name, value)
        return lambda pair: matches(pair[1])

    test = _compile(found, one)
    return None if test is None else lambda transaction, event: test((transaction, event))


def events_of(transaction: Message) -> list[Any]:
    return list(transaction.events.events) if transaction.events is not None else []


def _compile(
    found: Message | None, one: Callable[[str, Message], Callable[[T], bool]]
) -> Callable[[T], bool] | None:
    if found is None:
        return None
    if not found.terms:
        raise _invalid("a filter has at least one term")
    terms: list[list[tuple[Callable[[T], bool], bool]]] = []
    for term in found.terms:
        if not term.literals:
            raise _invalid("a term of a filter has at least one literal")
        terms.append([(one(*_predicate(literal)), bool(literal.negated)) for literal in term.literals])
    return lambda item: any(all(test(item) != negated for test, negated in term) for term in terms)


def _predicate(literal: Message) -> tuple[str, Message]:
    name, value = betterproto2.which_one_of(literal, "predicate")
    if not name:
        raise _invalid("a literal of a filter has a predicate")
    return name, value


def _event_predicate(name: str, value: Message) -> Callable[[Message], bool]:
    match name:
        case "emit_module":
            package, *module = _path(value.module, 2)
            return lambda event: event.package_id == package and module in ([], [event.module])
        case "event_type":
            return _event_type(value.event_type or "")
        case "event_stream_head":
            _address(value.stream_id)
            # There are no authenticated streams on this network.
            return lambda event: False
        case _:
            raise _invalid(f"unknown predicate {name}")


def _event_type(text: str) -> Callable[[Message], bool]:
    if text.count("::") < 2:
        start = "::".join(_path(text, 2)) + "::"
        return lambda event: bool(event.event_type.startswith(start))
    try:
        wanted = type_to_string(parse_type(text))
    except ValueError as error:
        raise _invalid(f"invalid event type: {error}") from error
    if "<" in text:
        return lambda event: bool(event.event_type == wanted)
    return lambda event: bool(event.event_type.partition("<")[0] == wanted)


def _move_call(path: list[str]) -> TransactionTest:
    def test(transaction: Message) -> bool:
        kind = transaction.transaction.kind.programmable_transaction
        calls = (command.move_call for command in kind.commands if command.move_call is not None)
        return any([call.package, call.module, call.function][: len(path)] == path for call in calls)

    return test


def _affected_address(wanted: str) -> TransactionTest:
    held = v2.OwnerOwnerKind.ADDRESS

    def test(transaction: Message) -> bool:
        owners = (
            owner
            for change in _changes(transaction)
            for owner in (change.input_owner, change.output_owner)
            if owner is not None and owner.kind == held
        )
        return any(owner.address == wanted for owner in owners)

    return test


def _changes(transaction: Message) -> list[Any]:
    return list(transaction.effects.changed_objects)


def _address(text: str | None) -> str:
    try:
        return hex_address(encoding.address(text or ""))
    except ValueError as error:
        raise _invalid(str(error)) from error


def _path(text: str | None, most: int) -> list[str]:
    """``package[::module[::name]]`` with the package's address written out."""
    package, *names = (text or "").split("::")
    if len(names) >= most or not all(name.isidentifier() for name in names):
        raise _invalid(f"found {text!r}, wanted 0xPACKAGE with at most {most - 1} names behind it")
    return [_address(package), *names]


def _invalid(message: str) -> GRPCError:
    return GRPCError(Status.INVALID_ARGUMENT, f"invalid filter: {message}")
