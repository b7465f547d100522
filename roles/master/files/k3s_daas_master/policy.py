"""The slashing policy: what this master would propose, why and with which evidence; armed, it does.

Observing is the default: a finding is logged, counted and shown at `/api/v1/findings`, and nothing is sent.
Armed (`slashing: armed`, with a SlasherCap in the master's wallet) what is found from then on is proposed
on-chain with the SHA-256 of its evidence; what was found while observing stays a finding. The evidence is a
file in `<state_dir>/evidence`, published at `/api/v1/findings/<sha256>/evidence`.

Nothing is proposed while this master may be the one who is wrong: its view of the chain is stale or not all
read, its clock is off, events were lost, endpoints tell different histories, or much of the fleet fell silent
at once. And never on one endpoint's word: the worker's record is read from all of them first.

Found here: conflicting heartbeats (1) and refused drains (2). A wrong result (3) would need requests to be
run a second time, which nothing does yet; whoever does, calls `find` with a `WrongResult`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from k3s_daas import evidence as proofs
from k3s_daas.chain import ChainError, MoveAbort, OutcomeUnknown, Receipt
from k3s_daas.evidence import Evidence
from k3s_daas.logs import get_logger
from k3s_daas.registry import Worker, WorkerStatus
from k3s_daas.registry.operation import REASONS
from k3s_daas_master.clock import Clock
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.store import Store

Mode = Literal["observe", "armed"]

_RETRY_S = 30.0
#: The contract's refusals that time doesn't mend.
_FINAL = frozenset({"EProposalPending", "EWorkerSlashed", "EUnbondingOver"})
_OPEN = ("observed", "waiting", "sent")
#: A transaction whose answer was lost is on-chain by then, or never will be.
_LOST_MS = 60_000
_log = get_logger("k3s_daas_master.policy")


class Proposes(Protocol):
    async def worker(self, node_id: str) -> Worker | None: ...

    async def propose_slash(self, node_id: str, reason: int, evidence_hash: bytes) -> Receipt: ...

    async def find_cap(self, kind: str, holder: str) -> str | None: ...


@dataclass(frozen=True)
class Finding:
    """`state`: observed, waiting, sent, proposed or dropped; `digest` is that of the proposal."""

    sha256: str
    node_id: str
    registered_at_ms: int
    reason: int
    because: str
    found_ms: int
    state: str
    sent_ms: int
    detail: str
    digest: str


class Policy:
    """`doubts` says what speaks against trusting our own eyes now; None when nothing does."""

    def __init__(
        self,
        *,
        mode: Mode,
        index: TokenIndex,
        registry: Proposes,
        store: Store,
        doubts: Callable[[], str | None],
        address: str,
        separate: bool,
        evidence_dir: Path,
        clock: Clock,
    ) -> None:
        self.mode = mode
        self._index = index
        self._registry = registry
        self._db = store.db
        self._doubts = doubts
        self._address = address
        self._separate = separate
        self._dir = evidence_dir
        self._clock = clock
        self._wake = asyncio.Event()
        self.problem: str | None = None

    # -- finding ------------------------------------------------------------------------------------------

    def find(self, node_id: str, found: Evidence) -> None:
        """Note an offence. Nothing changes for one told twice, or while one of that kind is open."""
        worker = self._index.workers.get(node_id)
        if worker is None or worker.status in (WorkerStatus.JAILED, WorkerStatus.SLASHED):
            return
        raw, reason = proofs.encode(found), proofs.reason_of(found)
        sha256 = proofs.digest(raw).hex()
        for known in self.findings():
            same_stake = (known.node_id, known.registered_at_ms) == (node_id, worker.registered_at_ms)
            if known.sha256 == sha256 or (same_stake and known.reason == reason and known.state in _OPEN):
                return
        because = proofs.judge(found).because
        state = "waiting" if self.mode == "armed" else "observed"
        try:
            self._publish(sha256, raw)
            row = (sha256, node_id, worker.registered_at_ms, reason, because, self._clock.now_ms(), state)
            self._db.execute("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', '')", row)
        except (OSError, sqlite3.Error) as error:
            _log.error("finding not kept", node_id=node_id, reason=reason, error=str(error))
            return
        _log.warning(
            "would propose a slash" if self.mode == "observe" else "will propose a slash",
            node_id=node_id,
            reason=REASONS[reason - 1],
            because=because,
            evidence_sha256=sha256,
            held_back=self.held_back(),
        )
        self._wake.set()

    def _publish(self, sha256: str, raw: bytes) -> None:
        self._dir.mkdir(mode=0o700, exist_ok=True)
        target = self.evidence_path(sha256)
        draft = target.with_suffix(".draft")
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(target)

    def evidence_path(self, sha256: str) -> Path:
        return self._dir / f"{sha256}.bcs"

    def findings(self) -> list[Finding]:
        """All of them, the latest first."""
        rows = self._db.execute("SELECT * FROM findings ORDER BY found_ms DESC, sha256")
        return [Finding(*row) for row in rows]

    def shown(self) -> dict[str, Any]:
        """For the API: no secret is in a finding, nor in its evidence."""
        return {
            "slashing": self.mode,
            "held_back": self.held_back(),
            "problem": self.problem,
            "findings": [
                {
                    "node_id": one.node_id,
                    "reason": one.reason,
                    "offence": REASONS[one.reason - 1],
                    "would_propose_because": one.because,
                    "evidence_sha256": one.sha256,
                    "evidence": f"/api/v1/findings/{one.sha256}/evidence",
                    "found_ms": one.found_ms,
                    "state": one.state,
                    "detail": one.detail,
                    "digest": one.digest or None,
                }
                for one in self.findings()
            ],
        }

    # -- proposing ----------------------------------------------------------------------------------------

    def held_back(self) -> str | None:
        """Why nothing would be proposed now, whatever was found."""
        return self._doubts()

    async def run(self) -> None:
        """Propose what waits, when armed, until cancelled."""
        while True:
            self._wake.clear()
            if self.mode == "armed":
                await self.act()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _RETRY_S)

    async def act(self) -> None:
        """One try at everything that waits. `problem` says what is wrong with being armed."""
        try:
            self.problem = await self._unfit()
            for finding in self.findings():
                if self.problem is None and self.held_back() is None:
                    if finding.state == "waiting":
                        await self._propose(finding)
                    elif finding.state == "sent":
                        await self._look_up(finding)
        except (ChainError, sqlite3.Error) as error:
            self.problem = str(error)
            _log.error("slash not proposed, will be tried again", error=str(error))
        except Exception as error:
            # A mistake of ours must not end the service for everybody.
            self.problem = f"{type(error).__name__}: {error}"
            _log.exception("slashing broke")

    async def _unfit(self) -> str | None:
        if await self._registry.find_cap("SlasherCap", self._address) is None:
            return f"armed, but wallet {self._address} holds no SlasherCap. Send it one, or only observe"
        if self._separate and await self._registry.find_cap("ArbiterCap", self._address) is not None:
            return (
                f"wallet {self._address} holds the ArbiterCap too: who proposes must not judge. Move one away"
            )
        return None

    async def _propose(self, finding: Finding) -> None:
        worker = await self._registry.worker(finding.node_id)
        evidence_hash = bytes.fromhex(finding.sha256)
        if worker is None or worker.registered_at_ms != finding.registered_at_ms:
            return self._settle(finding, "dropped", "the worker has left")
        if worker.proposal is not None and worker.proposal.evidence_hash == evidence_hash:
            return self._settle(finding, "proposed", "found on-chain")
        if worker.status in (WorkerStatus.JAILED, WorkerStatus.SLASHED):
            return self._settle(finding, "dropped", f"the worker is {worker.status.value} already")
        # Asked again after the last wait: doubts may have come up meanwhile.
        if self.held_back() is not None:
            return None
        # Before it is sent: killed from here on, it is looked up and not sent a second time.
        self._settle(finding, "sent", "")
        try:
            receipt = await self._registry.propose_slash(finding.node_id, finding.reason, evidence_hash)
        except OutcomeUnknown:
            raise
        except MoveAbort as error:
            final = error.name in _FINAL
            self._settle(finding, "dropped" if final else "waiting", str(error))
            if not final:
                raise
            return None
        except ChainError as error:
            self._settle(finding, "waiting", str(error))
            raise
        _log.warning(
            "slash proposed", node_id=finding.node_id, evidence_sha256=finding.sha256, digest=receipt.digest
        )
        return self._settle(finding, "proposed", "", receipt.digest)

    async def _look_up(self, finding: Finding) -> None:
        """What became of a proposal whose answer was lost."""
        worker = await self._registry.worker(finding.node_id)
        proposal = worker.proposal if worker is not None else None
        if proposal is not None and proposal.evidence_hash.hex() == finding.sha256:
            self._settle(finding, "proposed", "found on-chain")
        elif self._clock.now_ms() - finding.sent_ms > _LOST_MS:
            # Perhaps it was, and the arbiter has cancelled it since: never twice for one finding.
            self._settle(finding, "dropped", "sent, yet not on-chain: it failed, or was cancelled since")

    def _settle(self, finding: Finding, state: str, detail: str, digest: str = "") -> None:
        sent_ms = self._clock.now_ms() if state == "sent" else finding.sent_ms
        self._db.execute(
            "UPDATE findings SET state = ?, sent_ms = ?, detail = ?, digest = ? WHERE sha256 = ?",
            (state, sent_ms, detail, digest, finding.sha256),
        )
