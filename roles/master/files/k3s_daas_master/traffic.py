"""How the API's requests went: how many, with which outcome, and how long they took."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The last so many answers make the quantiles.
_KEPT = 2048
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True)
class Took:
    """Response times in ms: the median and the 99th percentile of the last 2,048 answers; None before."""

    median_ms: float | None
    p99_ms: float | None


class Traffic:
    """Counts every answer of the API. `ok` below 400, `refused` below 500, `failed` from 500 on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ok = 0
        self.refused = 0
        self.failed = 0
        self._last: deque[float] = deque(maxlen=_KEPT)
        self._seconds = Histogram(
            "k3s_daas_http_request_seconds",
            "Time to answer a request of the API, by route and class of the status",
            ["path", "status"],
            registry=registry,
            buckets=_BUCKETS_S,
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Note one answer; `path` is the route's, so that what a caller asks for makes no new series."""
        if status < 400:
            self.ok += 1
        elif status < 500:
            self.refused += 1
        else:
            self.failed += 1
        self._last.append(seconds * 1000)
        self._seconds.labels(path, f"{status // 100}xx").observe(seconds)

    def took(self) -> Took:
        if not self._last:
            return Took(None, None)
        times = sorted(self._last)
        return Took(times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)])


class TrafficMiddleware:
    """ASGI middleware that tells `traffic` of every answer. `paths` maps an endpoint to its route's path."""

    def __init__(self, app: ASGIApp, traffic: Traffic, paths: dict[object, str]) -> None:
        self._app = app
        self._traffic = traffic
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A handler that breaks is answered 500 outside of this middleware.
        status = 500
        began = perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = self._paths.get(scope.get("endpoint"), "other")
            self._traffic.answered(path, status, perf_counter() - began)
