"""Connections that cost more than they bring are closed: too many of one address, or no request in time.

uvicorn limits all connections together and closes idle ones after an answer. It waits for ever for a first
request, for one whose head comes drop by drop, and for a body that nobody reads; a few hundred such
connections of one host would lock everybody else out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from k3s_daas_master.ratelimit import source_of

#: A new connection's first request has to be there within this time.
FIRST_REQUEST_S = 10.0


class Connections:
    """Open connections by address. At most `per_source` of one: workers behind one NAT share an address."""

    def __init__(self, per_source: int) -> None:
        self.per_source = per_source
        self.open: Counter[str] = Counter()
        self.refused = 0
        self.timed_out = 0

    def enter(self, source: str) -> bool:
        if self.open[source] >= self.per_source:
            self.refused += 1
            return False
        self.open[source] += 1
        return True

    def leave(self, source: str) -> None:
        self.open[source] -= 1
        if self.open[source] <= 0:
            del self.open[source]


def guarded(connections: Connections, first_request_s: float = FIRST_REQUEST_S) -> type[H11Protocol]:
    """uvicorn's protocol for HTTP/1.1 that keeps to `connections`."""

    class Guarded(H11Protocol):
        _source: str | None = None
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            source = source_of(self.client)
            if not connections.enter(source):
                transport.abort()
                return
            self._source = source
            self._wait(first_request_s)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._source is not None:
                connections.leave(self._source)
                self._source = None
            self._wait(None)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._busy()

        def on_response_complete(self) -> None:
            # However many bytes come that make no request, the connection doesn't outlive its idle time.
            self._wait(self.timeout_keep_alive)
            super().on_response_complete()
            self._busy()

        def _busy(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._wait(None)

        def _wait(self, seconds: float | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            if seconds is not None and self._source is not None:
                self._deadline = self.loop.call_later(seconds, self._too_late)

        def _too_late(self) -> None:
            connections.timed_out += 1
            self.transport.abort()

    return Guarded
