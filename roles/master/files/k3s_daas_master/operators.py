"""Who operates the registry: the holder of its one OperatorCap.

The chain says nothing when a capability changes hands (it is an object like any other, and no event of ours
is emitted), so its present holder is read every few seconds: one object, whatever the size of the fleet.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from k3s_daas.chain import ChainError
from k3s_daas.logs import get_logger
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import DARK_MS, STALE_MS

#: How long a former holder may still pass for an operator, in seconds.
READ_EVERY_S = 5.0
_log = get_logger("k3s_daas_master.operators")


class ReadsCap(Protocol):
    async def cap_holder(self, kind: str, cap_id: str) -> str | None: ...


class Operators:
    """The address that holds the OperatorCap. `cap_id` None: not configured, so nobody is an operator."""

    def __init__(self, registry: ReadsCap, cap_id: str | None, clock: Clock) -> None:
        self._registry = registry
        self._cap_id = cap_id
        self._clock = clock
        self._holder: str | None = None
        self._read_at = 0.0

    def includes(self, address: str) -> bool:
        """Whether `address` holds the cap. Fails closed: a read that is too old counts for nothing.

        Too old is what is too old for every token; from a minute on only reading is left (`groups_of`).
        """
        if self._holder is None or address != self._holder:
            return False
        return self._age_ms() <= DARK_MS

    def stale(self) -> bool:
        """Whether the holder was last read so long ago that it may only read."""
        return self._age_ms() > STALE_MS

    def _age_ms(self) -> float:
        return (self._clock.monotonic() - self._read_at) * 1000

    async def refresh(self) -> None:
        """Read the holder anew. Raises ChainError."""
        if self._cap_id is None:
            return
        holder = await self._registry.cap_holder("OperatorCap", self._cap_id)
        if holder != self._holder:
            _log.info("operator", address=holder)
        self._holder, self._read_at = holder, self._clock.monotonic()

    async def run(self, every_s: float = READ_EVERY_S) -> None:
        """Keep the holder up to date until cancelled."""
        while True:
            try:
                await self.refresh()
            except ChainError as error:
                _log.warning("operator not read", error=str(error))
            await asyncio.sleep(every_s)
