"""When much of the fleet falls silent at once, the cause is more likely the network than each worker.

The rule: in a fleet of at least 3 workers, the silence of more than 55 % of the owners with active workers,
begun within one minute, holds slash proposals back until all of those owners were heard again, or for 15
minutes. It changes nothing about `offline`, which is a status, nor about what is slashed on-chain, which is
enforced.

In a fleet of one or two it never triggers. What protects there, as everywhere: silence is no offence, an
offence needs evidence, the contract limits proposals, and the arbiter can cancel each.
"""

from __future__ import annotations

from collections.abc import Mapping

from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.index import TokenIndex

MIN_WORKERS = 3
SHARE_PERCENT = 55
TOGETHER_MS = 60_000
LASTS_MS = 900_000
#: Two heartbeats missed.
SILENT_MS = 65_000

_log = get_logger("k3s_daas_master.disruption")


class Disruption:
    """`look` at the fleet regularly; `active` says whether to hold back."""

    def __init__(self, index: TokenIndex, heard_ms: Mapping[str, int], clock: Clock) -> None:
        self._index = index
        self._heard_ms = heard_ms
        self._clock = clock
        self._started_ms = clock.now_ms()
        # Owners whose silence it is, with when each was last heard; and when it began to count.
        self._silent: dict[str, int] = {}
        self._since: float | None = None
        # A silence that has counted doesn't count again after its 15 minutes.
        self._counted: dict[str, int] = {}
        self.count = 0

    @property
    def active(self) -> bool:
        return self._since is not None

    def look(self) -> None:
        """Compare who was heard with who should have been."""
        last = self._last_heard()
        now = self._clock.monotonic()
        if self._since is not None:
            back = all(last.get(owner, at + 1) > at for owner, at in self._silent.items())
            if back or now - self._since > LASTS_MS / 1000:
                _log.info("disruption over", reason="everybody is back" if back else "15 minutes passed")
                self._counted |= self._silent
                self._since, self._silent = None, {}
            return
        silent = self._fell_silent_together(last)
        workers = sum(w.status in _ACTIVE for w in self._index.workers.values())
        if workers >= MIN_WORKERS and len(silent) * 100 > SHARE_PERCENT * len(last):
            self._since, self._silent = now, silent
            self.count += 1
            _log.error(
                "disruption",
                silent_owners=len(silent),
                owners=len(last),
                action="slash proposals are held back until they return, for at most 15 minutes",
            )

    def alert(self) -> str | None:
        if self._since is None:
            return None
        return (
            f"disruption: {len(self._silent)} owners with active workers fell silent within a minute; slash "
            "proposals are held back until they return, for at most 15 minutes. Look at the network and at "
            "this master first."
        )

    def _last_heard(self) -> dict[str, int]:
        """When each owner with active workers was last heard: the latest of its workers. Before our own start
        nobody could be heard."""
        last: dict[str, int] = {}
        for worker in self._index.workers.values():
            if worker.status in _ACTIVE:
                heard = max(self._heard_ms.get(worker.node_id, 0), self._started_ms)
                last[worker.owner] = max(last.get(worker.owner, 0), heard)
        return last

    def _fell_silent_together(self, last: dict[str, int]) -> dict[str, int]:
        """The largest group of silent owners that were last heard within one minute."""
        horizon = self._clock.now_ms() - SILENT_MS
        silent = sorted(
            (at, owner) for owner, at in last.items() if at < horizon and self._counted.get(owner, -1) < at
        )
        best: dict[str, int] = {}
        first = 0
        for end in range(len(silent)):
            while silent[end][0] - silent[first][0] > TOGETHER_MS:
                first += 1
            if end - first + 1 > len(best):
                best = {owner: at for at, owner in silent[first : end + 1]}
        return best


_ACTIVE = (WorkerStatus.ACTIVE, WorkerStatus.BUSY)
