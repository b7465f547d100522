"""The network's clock: real time plus an offset that tests can raise."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Milliseconds since the Unix epoch; never runs backwards.

    :param real_ms: source of real time, in ms.
    """

    def __init__(self, real_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._real_ms = real_ms
        self._offset_ms = 0
        self._floor_ms = 0

    def now_ms(self) -> int:
        self._floor_ms = max(self._floor_ms, self._real_ms() + self._offset_ms)
        return self._floor_ms

    def advance(self, ms: int) -> int:
        """Moves the clock ``ms`` forward and returns the new time.

        :raises ValueError: ``ms`` is negative; contracts rely on time not going back.
        """
        if ms < 0:
            raise ValueError(f"the clock only moves forward, found {ms} ms")
        now = self.now_ms()
        self._offset_ms += ms
        return max(self.now_ms(), now)

    @property
    def ahead_ms(self) -> int:
        """How far it is ahead of real time."""
        return self._offset_ms

    def reset(self, ahead_ms: int) -> None:
        """Takes the clock back to so far ahead of real time: a restored chain lives at its own time."""
        self._offset_ms = ahead_ms
        self._floor_ms = 0

    def not_before(self, ms: int) -> None:
        """Raises the clock to at least ``ms``: a restarted chain goes on where it was advanced to."""
        self._offset_ms += max(0, ms - self.now_ms())
