"""Who holds which token: the chain's registry as one in-memory index that every request is checked against.

Built from a snapshot and kept up to date by the chain follower; a request never asks the chain. A
snapshot takes a while to read, so events that it already contains come a second time. In between the index
may show an earlier state (never for the slashed: that is final); once they are all through it is right again,
and `settled` says so.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import Literal

from k3s_daas import seal
from k3s_daas.registry import (
    Master,
    MasterAnnounced,
    MasterAppointed,
    MasterAttested,
    MasterVoided,
    RegistryEvent,
    ReputationChanged,
    SealTokenCreated,
    SealTokenRecord,
    SealTokenRevoked,
    SlashProposed,
    Snapshot,
    StakeDeposited,
    StakeWithdrawn,
    TermsChanged,
    UnstakeRequested,
    WorkerRegistered,
    WorkerSlashed,
    WorkerStatus,
    WorkerStatusChanged,
)

# Leaving and slashed workers give their owner no say in the cluster.
_NOT_LIVE = frozenset({WorkerStatus.SLASHED, WorkerStatus.UNBONDING})


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the service knows of a worker. Stake in MIST; reputation is 0 to 100.

    With less stake than `required_stake_mist` it gets no requests and earns nothing.
    """

    node_id: str
    owner: str
    stake_mist: int
    status: WorkerStatus
    registered_at_ms: int
    # By the chain's clock; what limits how often a status is written.
    status_changed_at_ms: int = 0
    reputation: int = 100
    required_stake_mist: int = 0

    @property
    def live(self) -> bool:
        return self.status not in _NOT_LIVE


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token's public side. `node_id` is "" for an owner's token; times in ms."""

    scope: Literal["worker", "owner"]
    node_id: str
    owner: str
    commitment: bytes
    generation: int
    expires_at_ms: int
    revoked: bool


class TokenIndex:
    """Workers, tokens and the announced master as of the last checkpoint handed in."""

    def __init__(self) -> None:
        self.loaded = False
        # False while events that a snapshot may already contain come a second time.
        self.settled = False
        self.workers: dict[str, WorkerView] = {}
        self.master: Master | None = None
        # What a worker has to stake that is registered next.
        self._min_stake_mist = 0
        self._by_commitment: dict[bytes, TokenView] = {}
        self._worker_tokens: dict[str, TokenView] = {}
        self._owner_tokens: dict[str, TokenView] = {}
        self._live_per_owner: dict[str, int] = {}

    # -- reading ------------------------------------------------------------------------------------------

    def find(self, token: str) -> TokenView | None:
        """The token's record, whatever its state, or None. Raises seal.InvalidSealToken."""
        digest = seal.commitment(token)
        # The lookup's time may tell whether some stored digest begins like this one. That helps nobody:
        # digests are public (they are the commitments on-chain), and to try another digest is to try another
        # 256-bit token. No comparison ever touches a token itself, so there is nothing to guess byte by byte.
        # That the digests are equal is decided in constant time all the same.
        view = self._by_commitment.get(digest)
        if view is None or not hmac.compare_digest(view.commitment, digest):
            return None
        return view

    def worker_token(self, node_id: str) -> TokenView | None:
        return self._worker_tokens.get(node_id)

    def owner_is_live(self, owner: str) -> bool:
        """Whether the owner has at least one worker that is neither slashed nor leaving."""
        return self._live_per_owner.get(owner, 0) > 0

    def slashed(self) -> list[str]:
        return [w.node_id for w in self.workers.values() if w.status is WorkerStatus.SLASHED]

    def token_count(self) -> int:
        return len(self._by_commitment)

    def owner_token_count(self) -> int:
        return len(self._owner_tokens)

    # -- writing ------------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot) -> None:
        """Replace everything by `snapshot`."""
        self.workers, self._live_per_owner = {}, {}
        for w in snapshot.workers.values():
            self._put_worker(
                WorkerView(
                    w.node_id,
                    w.owner,
                    w.stake_mist,
                    w.status,
                    w.registered_at_ms,
                    w.status_changed_at_ms,
                    w.reputation,
                    w.required_stake_mist,
                )
            )
        self._min_stake_mist = snapshot.config.min_stake_mist
        self._by_commitment, self._worker_tokens, self._owner_tokens = {}, {}, {}
        for record in [*snapshot.worker_tokens.values(), *snapshot.owner_tokens.values()]:
            self._put_token(_view_of(record))
        self.master = snapshot.master
        self.loaded = True

    def apply(self, event: RegistryEvent) -> None:
        """Take in one event of the registry."""
        match event:
            case WorkerRegistered():
                self._register(event)
            case StakeDeposited():
                worker = self.workers.get(event.node_id)
                if worker is not None:
                    self._put_worker(replace(worker, stake_mist=event.stake_mist))
            case ReputationChanged():
                worker = self.workers.get(event.node_id)
                if worker is not None:
                    required = event.required_stake_mist
                    self._put_worker(
                        replace(worker, reputation=event.reputation, required_stake_mist=required)
                    )
            case TermsChanged():
                self._min_stake_mist = event.min_stake_mist
            case WorkerStatusChanged():
                self._set_status(event.node_id, event.new_status, event.timestamp_ms)
            case SlashProposed():
                self._set_status(event.node_id, WorkerStatus.JAILED)
            case UnstakeRequested():
                self._set_status(event.node_id, WorkerStatus.UNBONDING, event.timestamp_ms)
            case WorkerSlashed():
                worker = self.workers.get(event.node_id)
                if worker is not None:
                    self._put_worker(
                        replace(
                            worker,
                            status=WorkerStatus.SLASHED,
                            stake_mist=event.remaining_mist,
                            status_changed_at_ms=event.timestamp_ms,
                        )
                    )
            case StakeWithdrawn():
                self._withdraw(event)
            case SealTokenCreated():
                self._create_token(event)
            case SealTokenRevoked():
                self._revoke_token(event)
            case MasterAppointed():
                if self.master is None or event.epoch > self.master.epoch:
                    self.master = Master(event.epoch, event.account, "", "", b"", 0)
            case MasterAnnounced():
                if self.master is not None and event.epoch == self.master.epoch:
                    self.master = replace(
                        self.master,
                        endpoint=event.endpoint,
                        api_server=event.api_server,
                        ca_hash=event.ca_hash,
                    )
            case MasterAttested():
                if self.master is not None and event.epoch == self.master.epoch:
                    self.master = replace(
                        self.master,
                        public_key=event.public_key,
                        pcr0=event.pcr0,
                        pcr3=event.pcr3,
                        attested_at_ms=event.attested_at_ms,
                        attestation_expires_at_ms=event.expires_at_ms,
                        binding=event.binding,
                    )
            case MasterVoided():
                if self.master is not None and event.epoch == self.master.epoch:
                    self.master = None
            case _:
                pass

    def _put_worker(self, worker: WorkerView) -> None:
        self._count(self.workers.get(worker.node_id), -1)
        self.workers[worker.node_id] = worker
        self._count(worker, 1)

    def _drop_worker(self, node_id: str) -> None:
        self._count(self.workers.pop(node_id, None), -1)

    def _count(self, worker: WorkerView | None, change: int) -> None:
        # Kept with each change: counting thousands anew for every event would hold up token checks.
        if worker is not None and worker.live:
            live = self._live_per_owner.pop(worker.owner, 0) + change
            if live:
                self._live_per_owner[worker.owner] = live

    def _register(self, event: WorkerRegistered) -> None:
        known = self.workers.get(event.node_id)
        if known is not None and known.registered_at_ms > event.timestamp_ms:
            return
        # The name of a worker that left may be staked again: whatever its last holder had is void. Also when
        # the stake is known already, because events from before it may just have come a second time; those
        # from after it follow.
        self._drop_worker_token(event.node_id)
        if known is None or known.status is not WorkerStatus.SLASHED:
            self._put_worker(
                WorkerView(
                    event.node_id,
                    event.owner,
                    event.stake_mist,
                    WorkerStatus.PENDING,
                    event.timestamp_ms,
                    event.timestamp_ms,
                    # Everybody's reputation begins at 100, which asks for no more than the minimum.
                    required_stake_mist=self._min_stake_mist,
                )
            )

    def _set_status(self, node_id: str, status: WorkerStatus, changed_at_ms: int = 0) -> None:
        worker = self.workers.get(node_id)
        if worker is not None and worker.status is not WorkerStatus.SLASHED:
            at_ms = changed_at_ms or worker.status_changed_at_ms
            self._put_worker(replace(worker, status=status, status_changed_at_ms=at_ms))

    def _withdraw(self, event: StakeWithdrawn) -> None:
        worker = self.workers.get(event.node_id)
        if worker is None:
            self._drop_worker_token(event.node_id)
            return
        if worker.registered_at_ms > event.timestamp_ms:
            return
        if worker.status is WorkerStatus.SLASHED:
            # The contract keeps the records of the slashed for ever.
            self._put_worker(replace(worker, stake_mist=0))
            return
        self._drop_worker(event.node_id)
        self._drop_worker_token(event.node_id)

    def _create_token(self, event: SealTokenCreated) -> None:
        known = self._current(event.scope, event.node_id, event.owner)
        if known is not None and known.generation >= event.generation:
            return
        scope: Literal["worker", "owner"] = "owner" if event.scope == "owner" else "worker"
        self._put_token(
            TokenView(
                scope,
                event.node_id,
                event.owner,
                event.commitment,
                event.generation,
                event.expires_at_ms,
                revoked=False,
            )
        )

    def _revoke_token(self, event: SealTokenRevoked) -> None:
        known = self._current(event.scope, event.node_id, event.owner)
        if known is not None and known.generation == event.generation:
            self._put_token(replace(known, revoked=True))

    def _current(self, scope: str, node_id: str, owner: str) -> TokenView | None:
        return self._owner_tokens.get(owner) if scope == "owner" else self._worker_tokens.get(node_id)

    def _put_token(self, view: TokenView) -> None:
        table, key = (
            (self._owner_tokens, view.owner) if view.scope == "owner" else (self._worker_tokens, view.node_id)
        )
        old = table.get(key)
        if old is not None:
            self._by_commitment.pop(old.commitment, None)
        table[key] = view
        self._by_commitment[view.commitment] = view

    def _drop_worker_token(self, node_id: str) -> None:
        old = self._worker_tokens.pop(node_id, None)
        if old is not None:
            self._by_commitment.pop(old.commitment, None)


def _view_of(record: SealTokenRecord) -> TokenView:
    return TokenView(
        "owner" if record.scope == "owner" else "worker",
        record.node_id,
        record.owner,
        record.commitment,
        record.generation,
        record.expires_at_ms,
        record.revoked,
    )
