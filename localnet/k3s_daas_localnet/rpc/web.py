"""Calls over gRPC-Web: over HTTP/1.1 as an ASGI application, over HTTP/2 on grpclib's streams.

Binary (``application/grpc-web``, ``+proto``) both ways, base64 (``application/grpc-web-text``) over HTTP/1.1.
The status comes as a last frame in the body, as browsers can't read trailers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_timeout, encode_grpc_message
from starlette.middleware.cors import CORSMiddleware

from .calls import MAX_MESSAGE_BYTES, Call, frame, read_frame
from .protocol import Message

_BINARY = "application/grpc-web"
_TEXT = "application/grpc-web-text"
_TRAILER = 0x80
# A client that does not read may not hold up the end of a call.
_TRAILER_TIMEOUT_S = 5.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Write = Callable[[bytes], Awaitable[None]]


def application(calls: dict[str, Call]) -> CORSMiddleware:
    """The ASGI application, open to pages of every origin as public full nodes are."""
    return CORSMiddleware(
        _Application(calls),
        allow_origins=["*"],
        allow_methods=["POST"],
        allow_headers=["*"],
        expose_headers=["grpc-status", "grpc-message", "grpc-status-details-bin"],
        max_age=86_400,
    )


def is_web(content_type: str) -> bool:
    """Whether a request of this type is gRPC-Web."""
    return content_type.startswith(_BINARY)


class _Out:
    def __init__(self, begin: Callable[[], Awaitable[None]], write: Write) -> None:
        self._begin = begin
        self._write = write
        self.begun = False

    async def begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self._begin()

    async def send(self, message: Message) -> None:
        await self.begin()
        await self._write(frame(bytes(message)))

    async def end(self, status: Status, message: str) -> None:
        trailer = f"grpc-status:{status.value}\r\n"
        if message:
            trailer += f"grpc-message:{encode_grpc_message(message)}\r\n"
        await self.begin()
        await self._write(frame(trailer.encode(), _TRAILER))


async def _answer(
    calls: dict[str, Call],
    path: str,
    timeout: str | None,
    read: Callable[[int], Awaitable[bytes]],
    out: _Out,
) -> None:
    """Serves one request up to and with its trailer; a client that went away ends it with an OSError."""
    status, text = Status.OK, ""
    try:
        call = calls.get(path)
        if call is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"Method not found: {path}")
        try:
            seconds = None if timeout is None else decode_timeout(timeout)
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"invalid grpc-timeout: {timeout}") from error
        async with asyncio.timeout(seconds):
            await call.answer(await read_frame(read), out)
    except GRPCError as error:
        status, text = error.status, error.message or ""
    except TimeoutError:
        status, text = Status.DEADLINE_EXCEEDED, "Timeout expired"
    async with asyncio.timeout(_TRAILER_TIMEOUT_S):
        await out.end(status, text)


# --- HTTP/1.1


class _Application:
    def __init__(self, calls: dict[str, Call]) -> None:
        self._calls = calls

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        content_type = headers.get("content-type", "")
        if scope["method"] != "POST":
            return await _plain(send, 405, "this is sui.rpc.v2 over gRPC and gRPC-Web: POST a call")
        if not is_web(content_type):
            wanted = f"{_BINARY}+proto or {_TEXT}; native gRPC needs HTTP/2"
            return await _plain(send, 415, f"found content-type {content_type!r}, wanted {wanted}")
        text = content_type.startswith(_TEXT)
        body = await _body(receive, text)
        if body is None:
            return None

        async def write(data: bytes) -> None:
            data = base64.b64encode(data) if text else data
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def begin() -> None:
            kind = (_TEXT if text else _BINARY) + "+proto"
            answered = [(b"content-type", kind.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": answered})

        async def serve() -> None:
            timeout = headers.get("grpc-timeout")
            await _answer(self._calls, scope["path"], timeout, _reader(body), _Out(begin, write))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        # A stream without news would never notice that its client is gone.
        serving, leaving = asyncio.create_task(serve()), asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        except (TimeoutError, OSError):
            pass  # nobody is there to be answered
        finally:
            for task in (serving, leaving):
                task.cancel()
            await asyncio.gather(serving, leaving, return_exceptions=True)
        return None


async def _plain(send: Send, status: int, message: str) -> None:
    body = message.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive, text: bool) -> bytes | None:
    """The request's body, no more of it than a message may have; None when the client went away."""
    most = MAX_MESSAGE_BYTES * (2 if text else 1) + 64
    chunks, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        # What goes beyond is read and dropped: the head of the frame says that it is too long.
        if size < most:
            chunks.append(event.get("body", b""))
            size += len(chunks[-1])
        if not event.get("more_body"):
            break
    body = b"".join(chunks)
    if not text:
        return body
    try:
        return base64.b64decode(body)
    except binascii.Error:
        return b"\0"  # answered as a torn message


def _reader(body: bytes) -> Callable[[int], Awaitable[bytes]]:
    position = 0

    async def read(size: int) -> bytes:
        nonlocal position
        position += size
        return body[position - size : position]

    return read


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- HTTP/2


async def answer_h2(calls: dict[str, Call], stream: Any, headers: Mapping[str, str]) -> None:
    """Serves a gRPC-Web request that came over HTTP/2, on a stream of grpclib's protocol."""

    async def begin() -> None:
        kind = f"{_BINARY}+proto"
        await stream.send_headers(
            [(":status", "200"), ("content-type", kind), ("access-control-allow-origin", "*")]
        )

    if headers.get(":method") != "POST" or headers.get("content-type", "").startswith(_TEXT):
        await stream.send_headers([(":status", "415")], end_stream=True)
        return
    out = _Out(begin, stream.send_data)
    await _answer(calls, headers.get(":path", ""), headers.get("grpc-timeout"), stream.recv_data, out)
    await stream.send_data(b"", end_stream=True)
