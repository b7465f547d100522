"""What can go wrong on the way to the chain, one class per thing the caller does differently.

Every message says what was found, what was wanted and what to do. None of them ever holds a key.
"""

from __future__ import annotations

from k3s_daas.units import format_sui


class ChainError(Exception):
    """Base of everything this package raises on purpose."""


class ChainUnreachable(ChainError):
    """No configured endpoint answered in time."""

    def __init__(self, tried: dict[str, str]) -> None:
        self.tried = tried
        detail = "; ".join(f"{url}: {why}" for url, why in tried.items()) or "no endpoint is configured"
        super().__init__(
            f"No Sui endpoint answered ({detail}). Wanted: at least one answering endpoint. "
            "Check that the URL is right, the node runs and this host can reach it."
        )


class OutcomeUnknown(ChainUnreachable):
    """A transaction was sent, the answer was lost and no endpoint could say whether it executed.

    Money may have moved: look `digest` up before sending anything again.
    """

    def __init__(self, digest: str, tried: dict[str, str]) -> None:
        super().__init__(tried)
        self.digest = digest
        self.args = (
            f"The answer to transaction {digest} was lost and no endpoint could say whether it executed "
            f"({'; '.join(f'{u}: {w}' for u, w in tried.items())}). Run again when the chain is reachable: "
            "what has happened is found on-chain and not paid twice.",
        )


class RpcFailed(ChainError):
    """An endpoint answered, and the answer is a refusal that another endpoint would repeat."""

    def __init__(self, call: str, status: str, detail: str) -> None:
        self.call = call
        self.status = status
        self.detail = detail
        super().__init__(f"{call} was refused with {status}: {detail}")


class WrongNetwork(ChainError):
    """The endpoint serves another chain than the one configured."""

    def __init__(self, found: str, wanted: str, endpoint: str = "") -> None:
        self.found = found
        self.wanted = wanted
        self.endpoint = endpoint
        super().__init__(
            f"Endpoint {endpoint or '?'} serves {found}, wanted {wanted}. "
            "Set the network, the chain id or the endpoint so that they name the same chain."
        )


class ObjectNotFound(ChainError):
    """No live object has this id: never created, deleted, or on another network."""

    def __init__(self, object_id: str, what: str = "object") -> None:
        self.object_id = object_id
        super().__init__(
            f"No {what} {object_id} on this network. Check the id and that the network is the one it was "
            "created on."
        )


class InsufficientGas(ChainError):
    """The address can't pay for the transaction. Amounts in MIST."""

    def __init__(self, balance_mist: int, needed_mist: int, address: str) -> None:
        self.balance_mist = balance_mist
        self.needed_mist = needed_mist
        self.address = address
        super().__init__(
            f"Address {address} holds {format_sui(balance_mist)} in coins, the transaction needs "
            f"{format_sui(needed_mist)} (amounts moved plus gas budget). "
            f"Send at least {format_sui(max(0, needed_mist - balance_mist))} more to it."
        )


class MoveAbort(ChainError):
    """A contract refused. `name` and `message` are those of its `#[error]` constant, when it has one."""

    def __init__(
        self,
        module: str,
        function: str,
        code: int,
        name: str | None = None,
        message: str | None = None,
        digest: str | None = None,
    ) -> None:
        self.module = module
        self.function = function
        self.code = code
        self.name = name
        self.message = message
        self.digest = digest
        why = ": ".join(part for part in (name, message) if part) or f"abort code {code}"
        # Simulated first, so the usual abort has no digest: nothing was sent and nothing was paid.
        sent = f" Transaction {digest} failed and its gas is spent." if digest else " Nothing was sent."
        super().__init__(f"The contract refused in {module}::{function}: {why}.{sent}")


class TransactionFailed(ChainError):
    """The network refused or failed a transaction for another reason than a Move abort."""

    def __init__(self, digest: str | None, reason: str) -> None:
        self.digest = digest
        self.reason = reason
        sent = (
            f"Transaction {digest} failed and its gas is spent" if digest else "The transaction was not sent"
        )
        super().__init__(f"{sent}: {reason}")


class InvalidKey(ChainError):
    """A wallet key file can't be used. The message never holds any of its content."""


class InvalidEndpoint(ChainError):
    """An endpoint URL can't be used."""


class InvalidAddress(ChainError):
    """Not a Sui address or object id."""


class ReplayGap(ChainError):
    """The node no longer holds the checkpoints that follow the cursor. Never slash on such a gap."""

    def __init__(self, after: int | None, lowest_available: int | None) -> None:
        self.after = after
        self.lowest_available = lowest_available
        super().__init__(
            f"Checkpoints after {after} are gone: the node's oldest is {lowest_available}. "
            "Read the state anew from the objects and follow from there."
        )


class ForkedChain(ChainError):
    """What endpoints say can't all be one history: one of them forked, was set back or lies. Nothing that
    they say is taken in until they agree again."""


class MalformedRecord(ChainError):
    """An object or event isn't shaped as our contracts write it: another package, or a lying endpoint."""
