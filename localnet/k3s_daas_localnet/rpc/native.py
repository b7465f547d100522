"""Calls over native gRPC (HTTP/2), carried by grpclib."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from grpclib.const import Cardinality, Handler

from .calls import Call, read_frame
from .protocol import Message


def handlers(calls: dict[str, Call]) -> dict[str, Handler]:
    """The calls as grpclib wants them."""
    return {
        path: Handler(
            _serve(call),
            Cardinality.UNARY_STREAM if call.streaming else Cardinality.UNARY_UNARY,
            call.request,
            call.response,
        )
        for path, call in calls.items()
    }


class _Out:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def begin(self) -> None:
        await self._stream.send_initial_metadata()

    async def send(self, message: Message) -> None:
        await self._stream.send_message(message)


def _serve(call: Call) -> Callable[[Any], Awaitable[None]]:
    async def serve(stream: Any) -> None:
        # Read below grpclib's `recv_message`, which knows no limits and answers a bad message with UNKNOWN.
        message = await read_frame(stream._stream.recv_data)
        await call.answer(message, _Out(stream))

    return serve
