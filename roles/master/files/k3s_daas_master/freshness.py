"""How old our view of the chain is; every rule about staleness asks here."""

from __future__ import annotations

from k3s_daas_master.clock import Clock

#: Older than this, nobody new is let in and nothing is written on-chain.
STALE_MS = 60_000
#: Older than this, only heartbeats of known tokens are answered.
DARK_MS = 900_000


class ChainView:
    """The newest checkpoint seen. Fails closed: nothing seen is infinitely old.

    `chain_may_lead`: a localnet's clock can be turned forward, which says nothing about staleness there.
    Elsewhere a chain that is ahead means that our own clock is wrong.
    """

    def __init__(self, clock: Clock, *, chain_may_lead: bool = False) -> None:
        self._clock = clock
        self._chain_may_lead = chain_may_lead
        self._received: float | None = None
        self.sequence: int | None = None
        self.timestamp_ms = 0

    def seen(self, sequence: int, timestamp_ms: int) -> None:
        """Note a checkpoint; an older one than the newest (a backfill) changes nothing."""
        if self.sequence is not None and sequence < self.sequence:
            return
        self.sequence = sequence
        self.timestamp_ms = timestamp_ms
        self._received = self._clock.monotonic()

    def age_ms(self) -> int | None:
        """Ms since the newest checkpoint, by its own timestamp and by when it came; None before the first."""
        if self._received is None:
            return None
        by_arrival = int((self._clock.monotonic() - self._received) * 1000)
        by_timestamp = self._clock.now_ms() - self.timestamp_ms
        if self._chain_may_lead:
            by_timestamp = max(0, by_timestamp)
        return max(by_arrival, abs(by_timestamp))

    def fresh(self) -> bool:
        age = self.age_ms()
        return age is not None and age <= STALE_MS

    def clock_off(self) -> bool:
        """Whether checkpoints come in, yet their time is far from ours: our clock is wrong, or theirs."""
        if self._received is None or (self._clock.monotonic() - self._received) * 1000 > STALE_MS:
            return False
        return not self.fresh()

    def dark(self) -> bool:
        age = self.age_ms()
        return age is None or age > DARK_MS

    def now_ms(self) -> int:
        """The time that expiries are held against: a clock set back on this host revives no token."""
        return max(self._clock.now_ms(), self.timestamp_ms)
