"""uvicorn for a small API on loopback: no signal handlers, no ticking, no patience with silent clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

# Requests beyond this are answered 503, connections beyond twice this are closed: files are for other things.
MAX_CONNECTIONS = 32
MAX_HEAD_BYTES = 16 * 1024
# A connection that brings no whole request in this time is closed.
SILENCE_S = 10.0


class _Impatient(H11Protocol):
    """Closes a connection without a new request for SILENCE_S; uvicorn waits for the first one for ever.

    Requests under way are left alone: they have time-outs of their own.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > 2 * MAX_CONNECTIONS:
            transport.abort()
        self._seen: Any = None
        self._timer = self.loop.call_later(SILENCE_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self._seen:
            self.transport.abort()
            return
        self._seen = self.cycle
        self._timer = self.loop.call_later(SILENCE_S, self._check)


class Server(uvicorn.Server):
    """Serves until `stop`. SIGTERM has one owner in this process, and it isn't uvicorn."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Impatient,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                # The date's header is what uvicorn ticks for, ten times a second.
                date_header=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Finish requests under way (at most 1 s) and end."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        await self._stopped.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
