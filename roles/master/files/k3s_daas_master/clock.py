"""The time, behind one small seam, so that tests turn the hands instead of sleeping."""

from __future__ import annotations

import time


class Clock:
    """Wall-clock time in ms since 1970 and a monotonic clock in seconds."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()
