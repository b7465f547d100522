"""The gRPC server: sui.rpc.v2 over HTTP/2 without TLS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from ..ledger.errors import NotFound, Refused
from ..ledger.ledger import Ledger
from . import subscription
from .protocol import Message, v2
from .services import Services

_LOG = logging.getLogger(__name__)

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
    "TransactionExecutionService": ("SimulateTransaction", "ExecuteTransaction"),
}


class RpcServer:
    """Serves a ledger on one address.

    >>> server = RpcServer(ledger)
    >>> port = await server.start("127.0.0.1", 0)
    """

    def __init__(self, ledger: Ledger) -> None:
        self._services = Services(ledger)
        self._server: Server | None = None
        self._sockets: list[Any] = []

    async def start(self, host: str, port: int) -> int:
        """Listens, and gives the port (chosen by the system when ``port`` is 0).

        :raises OSError: the address is taken or not this machine's.
        """
        server = Server([self])
        await server.start(host, port)
        self._server = server
        # grpclib tells no port; its asyncio server does.
        listening: Any = server._server
        return int(listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Ends all streams and closes the socket."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def __mapping__(self) -> dict[str, Handler]:
        """Called by grpclib: path of every method and how to serve it."""
        mapping: dict[str, Handler] = {}
        for service, methods in _UNARY.items():
            for method in methods:
                call = getattr(self._services, _snake(method))
                mapping[f"/sui.rpc.v2.{service}/{method}"] = Handler(
                    _unary(method, call),
                    Cardinality.UNARY_UNARY,
                    getattr(v2, f"{method}Request"),
                    getattr(v2, f"{method}Response"),
                )
        mapping["/sui.rpc.v2.SubscriptionService/SubscribeCheckpoints"] = Handler(
            self._subscribe,
            Cardinality.UNARY_STREAM,
            v2.SubscribeCheckpointsRequest,
            v2.SubscribeCheckpointsResponse,
        )
        return mapping

    async def _subscribe(self, stream: Any) -> None:
        await subscription.checkpoints(self._services, stream)


def _unary(name: str, call: Callable[[Message], Message]) -> Callable[[Any], Awaitable[None]]:
    async def serve(stream: Any) -> None:
        request = await stream.recv_message()
        if request is None:
            return
        try:
            response = call(request)
        except NotFound as error:
            raise GRPCError(Status.NOT_FOUND, str(error)) from error
        except Refused as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except (GRPCError, asyncio.CancelledError):
            raise
        except Exception as error:
            _LOG.exception("%s failed", name)
            raise GRPCError(Status.INTERNAL, f"{type(error).__name__}: {error}") from error
        await stream.send_message(response)

    return serve


def _snake(name: str) -> str:
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
