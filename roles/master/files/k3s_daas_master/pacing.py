"""When to write on-chain: only as the live master, on a fresh view, and not again right after a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from k3s_daas.chain import ChainError
from k3s_daas_master.clock import Clock
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex

#: A write that failed is tried again after this many seconds; one whose event is on the way isn't repeated.
BACKOFF_S = 10.0


class Pacing:
    """`address` is this master's wallet."""

    def __init__(self, index: TokenIndex, view: ChainView, address: str, clock: Clock) -> None:
        self._index = index
        self._view = view
        self._address = address
        self._clock = clock
        self._pauses: dict[str, tuple[float, ChainError | None]] = {}

    def may_write(self, what: str) -> bool:
        """Whether to write now; raises what the last try raised while it isn't time for the next."""
        master = self._index.master
        if master is None or master.account != self._address or not self._view.fresh():
            return False
        until, error = self._pauses.get(what, (0.0, None))
        if self._clock.monotonic() >= until:
            return True
        if error is not None:
            raise error
        return False

    @contextmanager
    def backing_off(
        self, what: str, unless: type[ChainError] | tuple[type[ChainError], ...] = ()
    ) -> Iterator[None]:
        """After a refusal the next try of `what` waits: a lasting cause isn't tried every 2 s."""
        try:
            yield
        except unless:
            raise
        except ChainError as error:
            self._pauses[what] = (self._clock.monotonic() + BACKOFF_S, error)
            raise

    def pause(self, what: str) -> None:
        """Its event is on the way; nothing is to be sent meanwhile."""
        self._pauses[what] = (self._clock.monotonic() + BACKOFF_S, None)
