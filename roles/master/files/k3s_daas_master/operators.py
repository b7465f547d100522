"""Who the operator is: whoever holds the registry's OperatorCap, read from the chain now and then."""

from __future__ import annotations

import asyncio
from typing import Protocol

from k3s_daas.chain import ChainError
from k3s_daas.logs import get_logger
from k3s_daas_master.index import TokenIndex

_log = get_logger("k3s_daas_master.operators")


class ReadsCaps(Protocol):
    """The one thing that this asks the chain."""

    async def cap_holder(self, kind: str, cap_id: str) -> str | None: ...


class Operators:
    """Keeps `index.operator`. The cap is one object, so this is one read, however many owners there are."""

    def __init__(self, registry: ReadsCaps, index: TokenIndex, cap_id: str | None) -> None:
        self._registry = registry
        self._index = index
        self._cap_id = cap_id

    async def run(self, every_s: float) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(every_s)

    async def read(self) -> None:
        """Read once. When the chain can't be asked the last holder stays: the view's staleness limits it."""
        if self._cap_id is None:
            return
        try:
            holder = await self._registry.cap_holder("OperatorCap", self._cap_id)
        except ChainError as error:
            _log.warning("operator not read", error=str(error))
            return
        if holder != self._index.operator:
            _log.info("operator", address=holder or "nobody")
            self._index.operator = holder
