"""HTTP/1.1 by uvicorn's protocol, on sockets that others listen on."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_MAX_HEAD_BYTES = 16 * 1024
_PATIENCE_S = 1.0


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
        """Closes the connections, and waits for what is served to notice."""
        for connection in list(self._state.connections):
            transport: Any = connection.transport
            transport.abort()
        tasks = set(self._state.tasks)
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=_PATIENCE_S)
            for task in hanging:
                task.cancel()
