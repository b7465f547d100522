"""The calls that are served, whatever carries them: name, message classes and what answers them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ..ledger.errors import NotFound, Refused
from . import wellformed
from .listing import Listing
from .protocol import Message, v2
from .services import Services
from .subscription import Subscriptions

_LOG = logging.getLogger(__name__)

# What Sui's full nodes accept (tonic's default). Answers are not limited.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_HEAD_BYTES = 5

_UNARY = {
    "LedgerService": (
        "GetServiceInfo",
        "GetEpoch",
        "GetObject",
        "BatchGetObjects",
        "GetTransaction",
        "BatchGetTransactions",
        "GetCheckpoint",
    ),
    "StateService": (
        "ListOwnedObjects",
        "ListDynamicFields",
        "GetBalance",
        "ListBalances",
        "GetCoinInfo",
    ),
    "MovePackageService": ("GetPackage", "GetFunction", "GetDatatype", "ListPackageVersions"),
    "SignatureVerificationService": ("VerifySignature",),
    "TransactionExecutionService": ("SimulateTransaction", "ExecuteTransaction"),
}
_STREAMING = {
    "LedgerService": ("ListCheckpoints", "ListTransactions", "ListEvents"),
    "SubscriptionService": ("SubscribeCheckpoints", "SubscribeTransactions", "SubscribeEvents"),
}


class Out(Protocol):
    """Where a call's answer goes."""

    async def begin(self) -> None:
        """Sends the headers."""

    async def send(self, message: Message) -> None:
        """Sends a message, after the headers where they are not sent yet."""


@dataclass(frozen=True)
class Call:
    """One method.

    :ivar path: as HTTP knows it, for example ``/sui.rpc.v2.LedgerService/GetObject``.
    :ivar streaming: whether it answers with any number of messages instead of one.
    """

    path: str
    request: type
    response: type
    streaming: bool
    _serve: Callable[[Message, Out], Awaitable[None]]

    async def answer(self, message: bytes, out: Out) -> None:
        """Serves a request, given as the bytes of its message.

        :raises GRPCError: every way it can fail.
        """
        try:
            await self._serve(_decode(self.request, message), out)
        except NotFound as error:
            raise GRPCError(Status.NOT_FOUND, str(error)) from error
        except Refused as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except (GRPCError, asyncio.CancelledError, TimeoutError, ConnectionError):
            raise
        except Exception as error:
            _LOG.exception("%s failed", self.path)
            raise GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}") from error


def all_calls(services: Services) -> dict[str, Call]:
    """Every served call by its path."""
    listing, subscriptions = Listing(services), Subscriptions(services)
    found: dict[str, Call] = {}

    def add(
        service: str, method: str, streaming: bool, serve: Callable[[Message, Out], Awaitable[None]]
    ) -> None:
        path = f"/sui.rpc.v2.{service}/{method}"
        request, response = getattr(v2, f"{method}Request"), getattr(v2, f"{method}Response")
        found[path] = Call(path, request, response, streaming, serve)

    for service, methods in _UNARY.items():
        for method in methods:
            add(service, method, False, _unary(getattr(services, _snake(method))))
    for service, methods in _STREAMING.items():
        for method in methods:
            owner = listing if service == "LedgerService" else subscriptions
            add(service, method, True, getattr(owner, _snake(method)))
    return found


def _unary(call: Callable[[Message], Message]) -> Callable[[Message, Out], Awaitable[None]]:
    async def serve(request: Message, out: Out) -> None:
        await out.send(call(request))

    return serve


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")


def _decode(kind: type, message: bytes) -> Message:
    try:
        wellformed.check(message, kind)
        return kind.parse(message)  # type: ignore[attr-defined]
    except Exception as error:
        # The status gRPC prescribes for it, and the text of Sui's full nodes.
        detail = str(error) or type(error).__name__
        raise GRPCError(Status.INTERNAL, f"failed to decode Protobuf message: {detail}") from error


# --- messages on the wire: one byte of flags, four of length, the message


def frame(message: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(message).to_bytes(4, "big") + message


async def read_frame(read: Callable[[int], Awaitable[bytes]]) -> bytes:
    """Reads the one message of a request.

    :param read: gives exactly so many bytes; fewer, or AssertionError, at the end of the request.
    :raises GRPCError: it is missing, torn, compressed or too long.
    """
    try:
        head = await read(_HEAD_BYTES)
        if not head:
            raise GRPCError(Status.INTERNAL, "Missing request message.")
        if head[0] != 0:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        length = int.from_bytes(head[1:], "big")
        if len(head) == _HEAD_BYTES and length > MAX_MESSAGE_BYTES:
            raise GRPCError(
                Status.OUT_OF_RANGE,
                f"Error, decoded message length too large: found {length} bytes, "
                f"the limit is: {MAX_MESSAGE_BYTES} bytes",
            )
        body = await read(length) if length else b""
    except AssertionError:
        head = body = b""
        length = -1
    if len(head) < _HEAD_BYTES or len(body) < length:
        raise GRPCError(Status.INTERNAL, "Unexpected EOF decoding stream.")
    return body
