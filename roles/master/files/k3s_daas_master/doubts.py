"""What speaks against trusting this master's own eyes: while any of it holds, no slash is proposed."""

from __future__ import annotations

from k3s_daas_master.disruption import Disruption
from k3s_daas_master.follower import Follower
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.index import TokenIndex


class Doubts:
    def __init__(
        self, index: TokenIndex, view: ChainView, follower: Follower, disruption: Disruption
    ) -> None:
        self._index = index
        self._view = view
        self._follower = follower
        self._disruption = disruption

    def __call__(self) -> str | None:
        """The first reason found, None without any. Raises sqlite3.Error."""
        if not self._index.loaded or not self._index.settled:
            return "the registry hasn't been read to its end"
        if self._view.clock_off():
            return "this host's clock and the chain's differ by more than a minute"
        if not self._view.fresh():
            return f"the view of the chain is older than {STALE_MS // 1000} s"
        if self._follower.forked:
            return "endpoints tell different histories"
        if self._follower.gap() is not None:
            return "events were lost and nobody has acknowledged it"
        if self._disruption.active:
            return "much of the fleet fell silent at once"
        return None
