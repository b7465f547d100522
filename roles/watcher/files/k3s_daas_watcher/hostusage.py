"""How busy this host is, by psutil. For people and dashboards; nothing is decided by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

# A share of the processors' time over less than this is noise, and two callers must not spoil each other's.
_LEAST_S = 1.0


@dataclass(frozen=True)
class HostUsage:
    """Percent of the whole host; bytes; network bytes since the host started, without loopback.

    `cpu_percent` is None until a second has been watched.
    """

    cpu_percent: float | None
    memory_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_percent: float
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int

    def summary(self) -> dict[str, float | int | None]:
        """What a heartbeat says of it."""
        return {
            "cpu_percent": self.cpu_percent,
            "memory_percent": self.memory_percent,
            "disk_percent": self.disk_percent,
            "network_received_bytes": self.network_received_bytes,
            "network_sent_bytes": self.network_sent_bytes,
        }


class HostMeter:
    """Measures when asked; the processors' share is that since the last time, at least a second ago."""

    def __init__(self, monotonic: Callable[[], float], disk: str = "/") -> None:
        self._monotonic = monotonic
        self._disk = disk
        self._at = monotonic()
        self._busy_idle = _busy_idle()
        self._cpu_percent: float | None = None

    def look(self) -> HostUsage:
        """The figures of now. Doesn't block."""
        self._look_at_cpu()
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(self._disk)
        cards = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return HostUsage(
            cpu_percent=self._cpu_percent,
            memory_percent=memory.percent,
            memory_used_bytes=memory.total - memory.available,
            memory_total_bytes=memory.total,
            disk_percent=disk.percent,
            disk_used_bytes=disk.used,
            disk_total_bytes=disk.total,
            network_received_bytes=sum(card.bytes_recv for card in cards),
            network_sent_bytes=sum(card.bytes_sent for card in cards),
        )

    def _look_at_cpu(self) -> None:
        now = self._monotonic()
        if now - self._at < _LEAST_S:
            return
        (old_busy, old_idle), (busy, idle) = self._busy_idle, _busy_idle()
        passed = busy - old_busy + idle - old_idle
        if passed > 0:
            self._cpu_percent = round(min(100.0, max(0.0, 100 * (busy - old_busy) / passed)), 1)
        self._at, self._busy_idle = now, (busy, idle)


def _busy_idle() -> tuple[float, float]:
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    # guest time is in user time already.
    return sum(times) - idle - times.guest - times.guest_nice, idle
