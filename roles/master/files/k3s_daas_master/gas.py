"""The master's wallet: how much is left, and what of it is kept for what can't wait.

The operator's playbook fills it up to a bound; this side only tells that it is time. The bound is also all
that can be lost with the key.
"""

from __future__ import annotations

from typing import Protocol

from k3s_daas.logs import get_logger
from k3s_daas.units import format_sui
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import ChainView

_LOOK_EVERY_S = 60.0
_log = get_logger("k3s_daas_master.gas")


class ReadsBalance(Protocol):
    async def balance(self, address: str) -> int:
        """SUI of an address, in MIST."""


class GasWatch:
    """Amounts in MIST. Below `low` somebody is told; below `reserve` only slashes and the like are paid."""

    def __init__(
        self, chain: ReadsBalance, view: ChainView, address: str, low: int, reserve: int, clock: Clock
    ) -> None:
        self._chain = chain
        self._view = view
        self._address = address
        self._low_mist = low
        self._reserve_mist = reserve
        self._clock = clock
        self._looked: float | None = None
        #: None before the first look.
        self.balance_mist: int | None = None

    async def look(self) -> None:
        """Ask the chain, once a minute and only while it answers. Raises ChainError."""
        now = self._clock.monotonic()
        if not self._view.fresh() or (self._looked is not None and now - self._looked < _LOOK_EVERY_S):
            return
        was_low = self.low()
        self.balance_mist = await self._chain.balance(self._address)
        self._looked = now
        if self.low() and not was_low:
            _log.warning("gas is low", address=self._address, balance_mist=self.balance_mist, fix=_FIX)
        elif was_low and not self.low():
            _log.info("gas was topped up", balance_mist=self.balance_mist)

    def low(self) -> bool:
        return self.balance_mist is not None and self.balance_mist < self._low_mist

    def reserved(self) -> bool:
        """Whether what is left is kept for what can't wait."""
        return self.balance_mist is not None and self.balance_mist < self._reserve_mist

    def ample(self) -> bool:
        """Whether there is enough, as far as was looked, for what can wait."""
        return self.balance_mist is not None and not self.reserved()

    def alert(self) -> str | None:
        if not self.low():
            return None
        kept = ""
        if self.reserved():
            kept = " Statuses aren't written any more, nor Ready time reported; slashes still are."
        return (
            f"gas: wallet {self._address} holds {format_sui(self.balance_mist or 0)}, wanted at least "
            f"{format_sui(self._low_mist)}.{kept} {_FIX}"
        )


_FIX = "Run playbooks/master.yml: it fills the wallet up to master_gas."
