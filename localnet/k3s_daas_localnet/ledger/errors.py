"""The two ways a transaction can go wrong.

``Refused``: the node does not accept it; nothing is executed or charged. ``ExecutionFailure``: it was
executed, failed, and pays for that. The texts are those of real full nodes, because clients match on them.
"""

from __future__ import annotations

from dataclasses import dataclass


class LedgerError(Exception):
    """Base of what this package raises for bad requests."""


class NotFound(LedgerError):
    """The object, transaction, checkpoint, package or function asked for does not exist."""


class Refused(LedgerError):
    """The transaction is invalid as signed. The message says what was found and what was wanted."""


@dataclass(frozen=True)
class AbortLocation:
    """Where Move code aborted, and with what code."""

    package: bytes
    module: str
    function: int
    function_name: str
    instruction: int
    code: int


@dataclass(frozen=True)
class UpgradeError:
    """Details of a ``PACKAGE_UPGRADE_ERROR``; ``kind`` is a ``PackageUpgradeErrorKind`` name."""

    kind: str
    package_id: bytes | None = None
    digest: bytes | None = None
    policy: int | None = None
    ticket_id: bytes | None = None


class ExecutionFailure(LedgerError):
    """Execution stopped at ``command``.

    :ivar kind: name of the ``ExecutionErrorKind`` of sui.rpc.v2, for example ``MOVE_ABORT``.
    :ivar command: index of the failing command, None when no single command is at fault.
    :ivar argument: index and kind of the argument at fault, for ``COMMAND_ARGUMENT_ERROR``.
    """

    def __init__(
        self,
        kind: str,
        description: str,
        *,
        command: int | None = None,
        argument: tuple[int, str] | None = None,
        abort: AbortLocation | None = None,
        type_argument: tuple[int, str] | None = None,
        size: tuple[int, int] | None = None,
        object_id: bytes | None = None,
        upgrade: UpgradeError | None = None,
    ) -> None:
        super().__init__(description)
        self.kind = kind
        self.description = description
        self.command = command
        self.argument = argument
        self.abort = abort
        self.type_argument = type_argument
        self.size = size
        self.object_id = object_id
        self.upgrade = upgrade


def argument_error(index: int, kind: str, detail: str = "") -> ExecutionFailure:
    """A ``COMMAND_ARGUMENT_ERROR`` of ``kind`` (a ``CommandArgumentErrorKind`` name)."""
    readable = kind.replace("_", " ").capitalize()
    return ExecutionFailure(
        "COMMAND_ARGUMENT_ERROR",
        f"Invalid command argument at {index}. {readable}" + (f": {detail}" if detail else ""),
        argument=(index, kind),
    )


def upgrade_error(
    kind: str,
    detail: str,
    *,
    package_id: bytes | None = None,
    digest: bytes | None = None,
    policy: int | None = None,
    ticket_id: bytes | None = None,
) -> ExecutionFailure:
    """A ``PACKAGE_UPGRADE_ERROR`` of ``kind`` (a ``PackageUpgradeErrorKind`` name)."""
    return ExecutionFailure(
        "PACKAGE_UPGRADE_ERROR", detail, upgrade=UpgradeError(kind, package_id, digest, policy, ticket_id)
    )
