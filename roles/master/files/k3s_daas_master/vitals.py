"""What page and metrics show of the outside: each Sui endpoint's health, the gas price, and rates.

Looked at every few seconds by loops of its own. Nothing is decided on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from k3s_daas.chain import ChainError
from k3s_daas.logs import get_logger
from k3s_daas_master.clock import Clock

SAMPLE_S = 5.0
# Endpoints are somebody else's, and most limit how often they answer.
LOOK_S = 15.0
_RATE_WINDOW_S = 60.0
_log = get_logger("k3s_daas_master.vitals")


class Endpoint(Protocol):
    """One Sui endpoint, without failover."""

    @property
    def endpoint(self) -> str: ...

    async def latest_checkpoint(self) -> tuple[int, int]: ...


class WatchesChain(Protocol):
    def all_endpoints(self) -> Sequence[Endpoint]: ...

    async def reference_gas_price(self) -> int: ...


@dataclass(frozen=True)
class EndpointHealth:
    """What one endpoint last said. `name` is host:port; `age_ms` is how old its newest checkpoint was then;
    `error` is None when it answered."""

    name: str
    checkpoint: int | None
    age_ms: int | None
    latency_ms: float | None
    error: str | None


class Rate:
    """How much a counter grows a second, over the last minute."""

    def __init__(self, read: Callable[[], float], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque()

    def sample(self) -> None:
        now = self._clock.monotonic()
        self._samples.append((now, self._read()))
        # One sample that is older than the window stays: the rate is over the whole of it.
        while len(self._samples) > 2 and now - self._samples[1][0] >= _RATE_WINDOW_S:
            self._samples.popleft()

    def per_s(self) -> float:
        """0.0 until there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        (since, before), (until, after) = self._samples[0], self._samples[-1]
        return (after - before) / (until - since) if until > since else 0.0


class Vitals:
    """The last look at the endpoints and the gas price (MIST a unit, None until read)."""

    def __init__(
        self,
        chain: WatchesChain,
        clock: Clock,
        checks: Callable[[], float],
        refused: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._clock = clock
        self._endpoints = list(chain.all_endpoints())
        self.endpoints: list[EndpointHealth] = []
        self.gas_price_mist: int | None = None
        self.checks = Rate(checks, clock)
        self.checks_refused = Rate(refused, clock)
        self.started_ms = clock.now_ms()

    async def run(self) -> None:
        """Look until cancelled. An endpoint that hangs holds up no rate."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_again(SAMPLE_S, self.sample))
            loops.create_task(_again(LOOK_S, self.look))

    async def sample(self) -> None:
        """Take the counters' values for the rates."""
        self.checks.sample()
        self.checks_refused.sample()

    async def look(self) -> None:
        """Ask every endpoint, and the chain for the price. What fails leaves the last value."""
        self.endpoints = list(await asyncio.gather(*map(self._ask, self._endpoints)))
        try:
            self.gas_price_mist = await self._chain.reference_gas_price()
        except ChainError as error:
            _log.debug("gas price not read", error=str(error))

    async def _ask(self, endpoint: Endpoint) -> EndpointHealth:
        name = urlsplit(endpoint.endpoint).netloc
        began = self._clock.monotonic()
        try:
            checkpoint, timestamp_ms = await endpoint.latest_checkpoint()
        except ChainError as error:
            return EndpointHealth(name, None, None, None, str(error))
        latency_ms = (self._clock.monotonic() - began) * 1000
        return EndpointHealth(name, checkpoint, self._clock.now_ms() - timestamp_ms, latency_ms, None)


async def _again(every_s: float, look: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await look()
        except Exception:
            # Only for show: a mistake of ours here must not end the service.
            _log.exception("vitals not read")
        await asyncio.sleep(every_s)
