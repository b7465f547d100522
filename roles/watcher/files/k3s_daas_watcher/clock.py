"""Time as the watcher sees it, so that tests need not wait for it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for the protocol, monotonic time for durations."""

    def now_ms(self) -> int: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def jitter(self, spread: float) -> float: ...


class SystemClock:
    """The host's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self, spread: float) -> float:
        """Somewhere in ±`spread` seconds, so that a fleet started at once doesn't knock at once."""
        return random.uniform(-spread, spread)  # noqa: S311 - no secret depends on it
