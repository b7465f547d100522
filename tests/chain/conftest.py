"""Endpoints that misbehave, in front of the real localnet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio


class Proxy:
    """Forwards HTTP/2 to the localnet, and loses what it is told to lose.

    `swallow_answers`: requests get through, answers don't: from then on the client hears nothing until the
    connection is cut by `cut()`.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.swallow_answers = False
        self._dead_until = 0
        self.answers_seen = 0
        self.connections = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        host, port = self._upstream.hostname, self._upstream.port
        up_reader, up_writer = await asyncio.open_connection(host, port)
        self._writers |= {writer, up_writer}
        for source, sink, answers in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, number if answers else 0))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: int) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if answers and (self.swallow_answers or answers <= self._dead_until):
                    self.answers_seen += 1
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()

    def forward_to(self, upstream: str) -> None:
        """Another node answers at this address from now on."""
        self._upstream = urlsplit(upstream)
        self.cut()

    def forget(self) -> None:
        """Today's connections stay open and are dead, as behind a router that forgot them."""
        self._dead_until = self.connections

    def cut(self) -> None:
        """Every connection is gone; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        """Nothing listens any more."""
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(live_net: Any) -> AsyncIterator[Callable[[], Awaitable[Proxy]]]:
    made: list[Proxy] = []

    async def make() -> Proxy:
        made.append(Proxy(live_net.url))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def closed_url() -> str:
    """An address where nothing listens."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest_asyncio.fixture(loop_scope="session")
async def silent_url() -> AsyncIterator[str]:
    """Takes connections and never says a word."""
    writers = []

    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in writers:
        writer.transport.abort()


@pytest_asyncio.fixture(loop_scope="session")
async def refusing(live_net: Any) -> AsyncIterator[Callable[[Any], Awaitable[str]]]:
    """`await refusing(Status.X)`: URL of an endpoint of the right chain that answers everything else so."""
    import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as rpc
    from grpclib.const import Cardinality, Handler, Status
    from grpclib.exceptions import GRPCError
    from grpclib.server import Server

    servers = []

    class Service:
        def __init__(self, status: Status) -> None:
            self.status = status

        def __mapping__(self) -> dict[str, Handler]:
            async def info(stream: Any) -> None:
                await stream.recv_message()
                await stream.send_message(
                    rpc.GetServiceInfoResponse(chain_id=live_net.chain_id, checkpoint_height=1)
                )

            async def refuse(stream: Any) -> None:
                await stream.recv_message()
                raise GRPCError(self.status, "because of the test")

            unary = Cardinality.UNARY_UNARY
            paths = {
                "/sui.rpc.v2.LedgerService/BatchGetObjects": (
                    rpc.BatchGetObjectsRequest,
                    rpc.BatchGetObjectsResponse,
                ),
            }
            mapping = {path: Handler(refuse, unary, *types) for path, types in paths.items()}
            mapping["/sui.rpc.v2.LedgerService/GetServiceInfo"] = Handler(
                info, unary, rpc.GetServiceInfoRequest, rpc.GetServiceInfoResponse
            )
            return mapping

    async def make(status: Status) -> str:
        server = Server([Service(status)])
        await server.start("127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"

    yield make
    for server in servers:
        server.close()
        await server.wait_closed()
