"""A bucket of tries per source address, in bounded memory."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from k3s_daas_master.clock import Clock

_MAX_SOURCES = 10_000


def source_of(client: tuple[str, int] | None) -> str:
    """Whom a request's tries are counted for: the peer's IPv4 address, or its IPv6 network of 64 bits.

    Whoever has one IPv6 address usually has all 2^64 of its network.
    """
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


class RateLimiter:
    """`burst` tries at once, refilled with `per_s` tries a second, for each source."""

    def __init__(self, burst: int, per_s: float, clock: Clock) -> None:
        self.burst = float(burst)
        self.per_s = per_s
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str) -> float:
        """Take one try; 0.0 when it was there, else the seconds until the next one."""
        now = self._clock.monotonic()
        left, since = self._buckets.pop(source, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.per_s)
        allowed = left >= 1
        self._buckets[source] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MAX_SOURCES:
            # The source not heard of for longest; its bucket is the fullest or nearly so.
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.per_s
