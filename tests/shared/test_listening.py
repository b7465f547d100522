"""Listening sockets of the services."""

from __future__ import annotations

import asyncio
import socket

import pytest

from k3s_daas import listening


async def test_small_answers_leave_at_once() -> None:
    options: asyncio.Queue[int] = asyncio.Queue()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        options.put_nowait(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    bound = listening.bind("127.0.0.1:0")
    async with await asyncio.start_server(answer, sock=bound):
        _, writer = await asyncio.open_connection(*bound.getsockname())
        # Off, or every answer to a kept connection waits 40 ms for the client's acknowledgement.
        assert await asyncio.wait_for(options.get(), 10) == 1
        writer.close()


@pytest.mark.parametrize(
    ("text", "pair"),
    [("192.0.2.1:8443", ("192.0.2.1", 8443)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1))],
)
def test_addresses_are_split(text: str, pair: tuple[str, int]) -> None:
    assert listening.split_listen(text) == pair


@pytest.mark.parametrize("text", ["8443", ":8443", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:¹", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="<address>:<port>"):
        listening.split_listen(text)


def test_an_address_that_is_taken_is_an_error() -> None:
    with listening.bind("127.0.0.1:0") as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            listening.bind(f"127.0.0.1:{first.getsockname()[1]}")
