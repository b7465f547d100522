"""The service's half: when a snapshot is due, and its anchor on-chain.

    chain's anchor = what our state goes on from  ->  root makes the next one  ->  it is anchored

Until the first one after its start is anchored nobody joins: of two masters that were restored from the same
snapshot, one anchors the next, and the other learns here that it isn't the master any more. It stays so: what
it did since is not in the chain of snapshots, and never will be.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

from k3s_daas.chain import ChainError, Receipt
from k3s_daas.chain.errors import MoveAbort, OutcomeUnknown
from k3s_daas.logs import get_logger
from k3s_daas.registry.snapshots import Anchor
from k3s_daas_master.attester import Attester
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError, StateError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.sealed import exchange
from k3s_daas_master.sealed.exchange import Answer, Base, Place, Request

_log = get_logger("k3s_daas_master.sealed")

_LOOK_S = 1.0
#: How often root's answer is looked for, and how long it may take. The datastore may be hundreds of MB.
_POLL_S, _PATIENCE_S = 0.1, 120.0
#: So many of which nobody knows what became of them are remembered.
_MAX_SENT = 16
#: Every so many looks it is asked again.
_REMIND = 50
#: After a failure the next try waits so long; after more of them longer, at most the second.
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0
#: What the last one took, so many times, is what the next one is begun early by.
_EARLY = 2.0
_START = Base(counter=0, hash="")


class MovesAnchor(Protocol):
    async def newest(self) -> Anchor | None:
        """Raises ChainError."""

    async def anchor(self, counter: int, previous: bytes, hash_: bytes) -> Receipt:
        """Raises ChainError."""


class Sealer:
    """`interval_s`: how much of the state's time may be lost. Without `anchors` nothing is sealed.

    Raises StateError when what this state goes on from can't be read.
    """

    def __init__(
        self,
        *,
        anchors: MovesAnchor | None,
        index: TokenIndex,
        view: ChainView,
        attester: Attester,
        address: str,
        state_dir: Path,
        interval_s: float,
        clock: Clock,
        answer_file: Path = exchange.ANSWER,
    ) -> None:
        self._anchors = anchors
        self._index = index
        self._view = view
        self._attester = attester
        self._address = address
        self._request_file = state_dir / exchange.REQUEST_NAME
        self._place_file = state_dir / exchange.PLACE_NAME
        self._answer_file = answer_file
        self._interval_s = interval_s
        self._clock = clock
        found = None if anchors is None else exchange.read(self._place_file, Place)
        self._place = found or Place(base=_START)
        #: What root said of the one that was sent; None of one that an earlier start of the service sent.
        self._sent: Answer | None = None
        self._discard = ""
        self._took_s = 0.0
        self._due = 0.0
        self._failures = 0
        self._looking = asyncio.Lock()
        #: The newest snapshot that this service anchored; None before the first.
        self.newest: Answer | None = None
        #: Why the last try failed; None when it didn't.
        self.problem: str | None = None
        #: Why this master is none any more; never taken back.
        self.fenced: str | None = None

    # -- what others ask ----------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        return self._anchors is not None

    def not_ready(self) -> str | None:
        """Why nobody may join; None when they may."""
        if not self.on:
            return None
        if self.fenced is not None:
            return self.fenced
        if self.newest is None:
            return self.problem or "this start's first snapshot isn't anchored yet"
        return None

    def alert(self) -> str | None:
        """What somebody should look at."""
        age_s = self.age_s()
        if self.fenced is not None or age_s is None or age_s <= self._interval_s:
            return None
        why = f": {self.problem}" if self.problem else ""
        return (
            f"sealed state: the newest anchored snapshot is {age_s:.0f} s old, wanted at most "
            f"{self._interval_s:.0f} s{why}"
        )

    def age_s(self) -> float | None:
        """How much would be lost now, in seconds; None before the first."""
        return None if self.newest is None else max(0, self._clock.now_ms() - self.newest.copied_ms) / 1000

    def check_joining(self) -> None:
        """Raises ApiError while nobody may join."""
        if (reason := self.not_ready()) is not None:
            raise ApiError(
                "not_ready",
                "The master's state isn't anchored on-chain.",
                reason,
                "the newest snapshot of this master on-chain",
                "Try again in a few seconds; if it lasts, look at the master's journal.",
            )

    # -- the loop -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take snapshots when they are due. Never ends."""
        while True:
            if self.on and self._clock.monotonic() >= self._due:
                await self.look()
            await asyncio.sleep(_LOOK_S)

    async def now(self) -> Answer:
        """A snapshot that was begun after this was asked, anchored. Raises ApiError."""
        asked_ms = self._clock.now_ms()
        if self._anchors is None:
            raise _unsealed("no sealed state", "master_snapshot_dir", "Turn sealed state on first.")
        async with self._looking:
            # One that was begun for somebody else who waited longer will do, too.
            if self.newest is None or self.newest.copied_ms < asked_ms:
                if self.fenced is None and not self._may_anchor():
                    raise _unsealed(
                        "a master that isn't the live one, or doesn't know it yet",
                        "the live master, with a fresh view of the chain",
                    )
                await self._look()
            if self.newest is None or self.newest.copied_ms < asked_ms:
                found = self.fenced or self.problem or "no snapshot"
                raise _unsealed(found, "a snapshot that is anchored")
            return self.newest

    async def last(self) -> None:
        """One more, because the service ends. Never raises."""
        if self.newest is not None:
            await self.look()

    async def look(self) -> None:
        """One snapshot, if this is the live master. Never raises."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        if self._anchors is None or self.fenced is not None or not self._may_anchor():
            return
        started = self._clock.monotonic()
        try:
            await self._step(self._anchors)
        except (ChainError, StateError, _Failed) as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            _log.exception("sealing the state broke")
        else:
            now = self._clock.monotonic()
            self._failures, self.problem = 0, None
            self._took_s = now - started
            # The next is to be anchored before this one is too old.
            self._due = started + max(
                self._interval_s / 2, self._interval_s - _EARLY * self._took_s - _LOOK_S
            )

    def _may_anchor(self) -> bool:
        master = self._index.master
        return (
            self._index.loaded
            and self._view.fresh()
            and master is not None
            and master.account == self._address
            and (not self._attester.required or self._attester.live())
        )

    async def _step(self, anchors: MovesAnchor) -> None:
        await self._compare(await anchors.newest())
        if self.fenced is not None:
            return
        made = await self._have_made()
        assert made.made is not None
        base, counter, hash_ = self._place.base, made.made.counter, bytes.fromhex(made.made.hash)
        # Killed from here on, the service that starts next knows its own snapshot on-chain.
        sent = self._place.sent
        self._stand(base, (*sent, made.made)[-_MAX_SENT:])
        self._sent = made
        try:
            receipt = await anchors.anchor(counter, bytes.fromhex(base.hash), hash_)
        except OutcomeUnknown:
            raise  # the next look finds out
        except ChainError as error:
            self._stand(base, sent)
            self._discard = made.made.hash
            if isinstance(error, MoveAbort):
                await self._compare(await anchors.newest())
            raise
        self._stand(made.made)
        self.newest = made
        _log.info("state sealed", counter=counter, bytes=made.bytes, digest=receipt.digest)

    def _stand(self, base: Base, sent: tuple[Base, ...] = ()) -> None:
        """Keep where this state stands. Raises StateError."""
        place = Place(base=base, sent=sent)
        exchange.write(self._place_file, place)
        self._place, self._sent, self._discard = place, None, ""

    async def _compare(self, anchor: Anchor | None) -> None:
        """Whether our state is what the chain goes on from. Raises _Failed while that can't be said."""
        found = _START if anchor is None else Base(counter=anchor.counter, hash=anchor.hash.hex())
        base, sent = self._place.base, self._place.sent
        if found in sent:
            if self._sent is not None and self._sent.made == found:
                self.newest = self._sent
            self._stand(found)
            return
        if found == base:
            return
        if found.counter < base.counter:
            raise _Failed(
                f"Found snapshot {found.counter} as the newest on-chain, and {base.counter} as the one "
                "that this state goes on from; wanted the same. The endpoint lags: it is asked again."
            )
        # An operator gave the snapshots up: whatever state is here begins a new line of them.
        if not found.hash:
            self._stand(found)
            return
        assert anchor is not None
        self.fenced = (
            f"another master goes on from here: found snapshot {found.counter} ({found.hash[:16]}…, epoch "
            f"{anchor.epoch}) anchored on-chain, wanted {base.counter} ({base.hash[:16]}…), which this "
            "state goes on from. Nobody joins here any more, and nothing of this state is kept. Stop "
            "this host; if it is to be the master again, let it start without its state"
        )
        _log.error("not the master any more", reason=self.fenced)

    async def _have_made(self) -> Answer:
        request = Request(id=secrets.token_hex(8), base=self._place.base, discard=self._discard)
        for look in range(int(_PATIENCE_S / _POLL_S)):
            if look % _REMIND == 0:
                # A path unit doesn't see what changes while its service still runs.
                exchange.write(self._request_file, request)
            answer = exchange.read(self._answer_file, Answer)
            if answer is not None and answer.id == request.id:
                if answer.made is None:
                    raise _Failed(answer.error)
                if answer.made.counter != request.base.counter + 1:
                    raise _Failed(
                        f"Found snapshot {answer.made.counter} made, wanted {request.base.counter + 1}."
                    )
                return answer
            await asyncio.sleep(_POLL_S)
        raise _Failed(
            f"Found no answer within {_PATIENCE_S:.0f} s, wanted a snapshot. Look at the journal of "
            "k3s-daas-master-snapshot.service; it is tried again."
        )

    def _failed(self, why: str) -> None:
        self.problem = why
        self._failures += 1
        pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(self._failures - 1, 10), self._interval_s)
        self._due = self._clock.monotonic() + pause
        _log.error("state not sealed", retry_s=pause, error=why)


def _unsealed(
    found: str, wanted: str, fix: str = "Look at the master's journal, and ask again in a few seconds."
) -> ApiError:
    return ApiError("not_ready", "No snapshot was made.", found, wanted, fix)


class _Failed(Exception):
    """No snapshot this time; says why."""
