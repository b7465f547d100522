"""HTTP/1.1 by uvicorn's protocol, on sockets that others listen on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_MAX_HEAD_BYTES = 16 * 1024


class HttpProtocols:
    """Makes the protocol of each connection, and ends them all.

    :param application: an ASGI application.
    """

    def __init__(self, application: Any) -> None:
        self._config = Config(
            application,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        self._state = ServerState()

    def new(self) -> asyncio.Protocol:
        return H11Protocol(config=self._config, server_state=self._state, app_state={})

    async def stop(self) -> None:
        """Cancels what is served and closes the connections."""
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._state.connections):
            transport: Any = connection.transport
            transport.abort()
