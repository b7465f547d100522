"""One port for native gRPC and gRPC-Web, without TLS.

What a connection begins with decides who serves it: the preface of HTTP/2 means grpclib, anything else is
left to uvicorn's HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from typing import Any

from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Handler, Server
from h2.exceptions import H2Error

from ..http import HttpProtocols
from ..ledger.ledger import Ledger
from . import native, web
from .calls import Call, all_calls
from .records import Records
from .services import Services

_LOG = logging.getLogger(__name__)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A connection that says nothing is closed after so long.
_SILENCE_S = 30.0


class RpcServer:
    """Serves a ledger on one address.

    >>> server = RpcServer(ledger, records)
    >>> port = await server.start("127.0.0.1", 0)
    """

    def __init__(self, ledger: Ledger, records: Records) -> None:
        self._calls = all_calls(Services(ledger, records))
        self._http = HttpProtocols(web.application(self._calls))
        self._server: _Grpc | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and gives the port (chosen by the system when ``port`` is 0).

        :raises OSError: the address is taken or not this machine's.
        """
        server = _Grpc(self._calls, self._http)
        await server.start(host, port)
        self._server = server
        # grpclib tells no port; its asyncio server does.
        listening: Any = server._server
        return int(listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Ends all streams and closes the socket."""
        if self._server is not None:
            self._server.close()
            await self._http.stop()
            await self._server.wait_closed()
            self._server.drop_connections()
            self._server = None


class _Grpc(Server):
    def __init__(self, calls: dict[str, Call], http: HttpProtocols) -> None:
        super().__init__([_Served(calls)])
        self._calls = calls
        self._http = http
        self._open: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    def _protocol_factory(self) -> Any:
        return _FirstBytes(self._http2, self._http.new, self._open.add)

    def drop_connections(self) -> None:
        """grpclib ends its streams without a word; this tells the clients."""
        for transport in list(self._open):
            transport.abort()

    def _http2(self) -> asyncio.Protocol:
        protocol = super()._protocol_factory()
        ours = _Handler(self._mapping, self._codec, self._status_details_codec, self.__dispatch__)
        ours.calls = self._calls
        assert isinstance(protocol.handler, Handler)
        self._handlers.discard(protocol.handler)
        self._handlers.add(ours)
        protocol.handler = ours
        return protocol


class _Served:
    def __init__(self, calls: dict[str, Call]) -> None:
        self._calls = calls

    def __mapping__(self) -> Any:
        return native.handlers(self._calls)


class _Handler(Handler):
    """grpclib's handler of a connection's streams, which leaves gRPC-Web to us."""

    calls: dict[str, Call]

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], Any]) -> None:
        named = dict(headers)
        if not web.is_web(named.get("content-type", "")):
            super().accept(stream, headers, release_stream)
            return
        self.__gc_step__()
        self._tasks[stream] = self.loop.create_task(self._web(stream, named, release_stream))

    async def _web(self, stream: Any, headers: dict[str, str], release_stream: Callable[[], Any]) -> None:
        try:
            await web.answer_h2(self.calls, stream, headers)
        except (H2Error, StreamTerminatedError, TimeoutError, OSError):
            pass  # the client went away
        except Exception:
            _LOG.exception("a gRPC-Web call failed")
        finally:
            release_stream()


class _FirstBytes(asyncio.Protocol):
    """Waits until it is clear what a connection speaks, and hands it over."""

    def __init__(
        self,
        http2: Callable[[], asyncio.Protocol],
        http1: Callable[[], asyncio.Protocol],
        opened: Callable[[asyncio.Transport], None],
    ) -> None:
        self._http2 = http2
        self._http1 = http1
        self._opened = opened
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._opened(transport)
        self._patience = asyncio.get_running_loop().call_later(_SILENCE_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        begun = self._seen[: len(_PREFACE)]
        if _PREFACE.startswith(begun) and len(begun) < len(_PREFACE):
            return
        assert self._transport is not None
        self._forget()
        protocol = self._http2() if begun == _PREFACE else self._http1()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._seen)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
