"""One pass of comparing the cluster with the chain, over and over.

It keeps node passwords and the announced master right, cordons the jailed, writes on-chain who is active or
offline, clears bootstrap tokens that are no longer needed, and notices slashed nodes that came back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from k3s_daas.chain import ChainError, MoveAbort, Receipt
from k3s_daas.join import JoinError, ca_hash
from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError, NodeView
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.nodepasswords import NodePasswordKeeper
from k3s_daas_master.registration import ClusterCa
from k3s_daas_master.removal import Remover
from k3s_daas_master.store import Store

_log = get_logger("k3s_daas_master.fleet")

#: A heartbeat (every 30 s) or lease (renewed every 10 s) older than this says nothing about now.
FRESH_MS = 65_000
_CA_CHECK_S = 60.0
# A status that was sent is not sent again while its event is on the way.
_RESEND_S = 15.0
# Most workers in one status transaction: the names are one argument of at most 16 KB.
_BATCH = 200
_CHAIN_BACKOFF_S = 10.0
_REST_S = 0.2


class WritesRegistry(Protocol):
    async def set_statuses(self, statuses: Mapping[str, WorkerStatus]) -> Receipt: ...

    async def announce_master(self, endpoint: str, api_server: str, ca_hash: bytes) -> Receipt: ...


def wanted_status(
    worker: WorkerView,
    node: NodeView | None,
    last_heartbeat_ms: int | None,
    *,
    now_ms: int,
    started_ms: int,
    offline_after_ms: int,
) -> WorkerStatus | None:
    """The status the worker should have on-chain, or None when its present one is right.

    Silence is counted from the later of its last heartbeat and our own start: a master that was down
    punishes nobody for what it didn't hear.
    """
    if worker.status in (WorkerStatus.ACTIVE, WorkerStatus.BUSY):
        silent_ms = now_ms - max(last_heartbeat_ms or 0, started_ms)
        return WorkerStatus.OFFLINE if silent_ms > offline_after_ms else None
    if worker.status not in (WorkerStatus.PENDING, WorkerStatus.OFFLINE):
        return None
    heard = last_heartbeat_ms is not None and now_ms - last_heartbeat_ms <= FRESH_MS
    return WorkerStatus.ACTIVE if heard and node_is_up(node, now_ms) else None


def node_is_up(node: NodeView | None, now_ms: int) -> bool:
    """Ready, and its kubelet said so lately: a dead node stays Ready until the control plane notices."""
    return (
        node is not None
        and node.ready
        and node.lease_renewed_ms is not None
        and now_ms - node.lease_renewed_ms <= FRESH_MS
    )


class Fleet:
    """Holds the last look at the cluster (`nodes`) and what is wrong at the moment (`problems`)."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        store: Store,
        cluster: Cluster,
        registry: WritesRegistry,
        passwords: NodePasswordKeeper,
        heartbeats: Heartbeats,
        remover: Remover,
        ca: ClusterCa,
        address: str,
        endpoint: str,
        api_server: str,
        offline_after_ms: int,
        clock: Clock,
    ) -> None:
        self._index = index
        self._view = view
        self._store = store
        self._cluster = cluster
        self._registry = registry
        self._passwords = passwords
        self._heartbeats = heartbeats
        self._remover = remover
        self._ca = ca
        self._address = address
        self._endpoint = endpoint
        self._api_server = api_server
        self._offline_after_ms = offline_after_ms
        self._clock = clock
        self._started_ms = clock.now_ms()
        self._wake = asyncio.Event()
        self._sent: dict[str, tuple[WorkerStatus, float]] = {}
        self._ca_checked: float | None = None
        self._pauses: dict[str, tuple[float, ChainError | None]] = {}
        self.nodes: dict[str, NodeView] = {}
        self.problems: dict[str, str] = {}
        self.status_changes = 0
        self.passes = 0

    def wake(self) -> None:
        """Compare now instead of at the next turn."""
        self._wake.set()

    async def run(self, every_s: float) -> None:
        """Compare every `every_s` seconds, or when woken, until cancelled."""
        while True:
            self._wake.clear()
            await self.reconcile()
            # However often it is woken (a heartbeat of a pending worker does), the cluster gets its rest.
            rest = min(_REST_S, every_s)
            await asyncio.sleep(rest)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), every_s - rest)

    async def reconcile(self) -> None:
        """One pass. A step that fails is noted in `problems` and doesn't hold up the others."""
        await self._step("ca", self._learn_ca)
        if self._index.loaded:
            await self._step("announcement", self._announce)
            if await self._step("nodes", self._look_at_nodes):
                await self._step("jailed", self._cordon_jailed)
                await self._step("bootstrap_tokens", self._clear_bootstrap_tokens)
                await self._step("statuses", self._write_statuses)
            # Last: in a large fleet that is new to us it takes a while.
            await self._step("node_passwords", self._passwords.reconcile)
        self.passes += 1

    async def _step(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except (ChainError, ClusterError, JoinError) as error:
            if self.problems.get(name) != str(error):
                _log.error("fleet step failed", step=name, error=str(error))
            self.problems[name] = str(error)
            return False
        except Exception as error:
            # A mistake of ours over one worker or node must not end the service for all the others.
            _log.exception("fleet step broke", step=name)
            self.problems[name] = f"{type(error).__name__}: {error}"
            return False
        if self.problems.pop(name, None) is not None:
            _log.info("fleet step works again", step=name)
        return True

    # -- steps --------------------------------------------------------------------------------------------

    async def _learn_ca(self) -> None:
        now = self._clock.monotonic()
        if self._ca_checked is not None and now - self._ca_checked < _CA_CHECK_S:
            return
        pem = await self._cluster.cacerts()
        self._ca.hash, self._ca.pem = ca_hash(pem), pem
        self._ca_checked = now

    async def _look_at_nodes(self) -> None:
        self.nodes = await self._cluster.nodes()
        back = [node_id for node_id in self._index.slashed() if node_id in self.nodes]
        done = self._store.removals()
        for node_id in back:
            if node_id not in done:
                self._store.request_removal(node_id, self._clock.now_ms())
            elif done[node_id] is not None:
                _log.warning("slashed node is back", node_id=node_id)
                self._store.reopen_removal(node_id)
        if back:
            self._remover.wake()

    async def _cordon_jailed(self) -> None:
        for node in self.nodes.values():
            worker = self._index.workers.get(node.name)
            if worker is None:
                continue
            if worker.status is WorkerStatus.JAILED and not node.unschedulable:
                await self._cluster.cordon(node.name)
                _log.info("jailed node cordoned", node_id=node.name)
            elif node.cordoned_by_us and worker.status not in (WorkerStatus.JAILED, WorkerStatus.SLASHED):
                await self._cluster.uncordon(node.name)
                _log.info("node uncordoned: no longer jailed", node_id=node.name)

    async def _clear_bootstrap_tokens(self) -> None:
        now = self._clock.now_ms()
        for token in await self._cluster.bootstrap_tokens():
            worker = self._index.workers.get(token.node_id)
            node = self.nodes.get(token.node_id)
            joined = (
                worker is not None
                and worker.status in (WorkerStatus.ACTIVE, WorkerStatus.BUSY)
                and node is not None
                and node.ready
                # Renewed after the token was made: a rebuilt host's old node may still look Ready.
                and (node.lease_renewed_ms or 0) > token.created_ms
            )
            barred = worker is None or worker.status in (WorkerStatus.JAILED, WorkerStatus.SLASHED)
            if joined or barred or token.expires_ms <= now:
                await self._cluster.delete_bootstrap_token(token.token_id)
                reason = "joined" if joined else "not eligible" if barred else "expired"
                _log.info("bootstrap token deleted", node_id=token.node_id, reason=reason)

    async def _write_statuses(self) -> None:
        if not self._may_write("statuses"):
            return
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        changes: dict[str, WorkerStatus] = {}
        for worker in self._index.workers.values():
            wanted = wanted_status(
                worker,
                self.nodes.get(worker.node_id),
                self._heartbeats.last_ms.get(worker.node_id),
                now_ms=now_ms,
                started_ms=self._started_ms,
                offline_after_ms=self._offline_after_ms,
            )
            sent = self._sent.get(worker.node_id)
            if wanted is not None and not (sent and sent[0] is wanted and now - sent[1] < _RESEND_S):
                changes[worker.node_id] = wanted
        names = sorted(changes)
        for start in range(0, len(names), _BATCH):
            await self._send({name: changes[name] for name in names[start : start + _BATCH]})

    async def _send(self, changes: dict[str, WorkerStatus]) -> None:
        try:
            with self._backing_off("statuses", unless=MoveAbort if len(changes) > 1 else ()):
                receipt = await self._registry.set_statuses(changes)
        except MoveAbort:
            if len(changes) == 1:
                raise
            # One worker whose status changed meanwhile fails them all; alone it fails alone.
            for node_id, status in changes.items():
                try:
                    await self._send({node_id: status})
                except MoveAbort as refused:
                    _log.warning("status refused", node_id=node_id, status=status.value, error=str(refused))
            return
        for node_id, status in changes.items():
            self._sent[node_id] = (status, self._clock.monotonic())
            _log.info("status written", node_id=node_id, status=status.value, digest=receipt.digest)
        self.status_changes += len(changes)

    async def _announce(self) -> None:
        master = self._index.master
        if not self._ca.hash or master is None or not self._may_write("announcement"):
            return
        wanted = (self._endpoint, self._api_server, self._ca.hash)
        if (master.endpoint, master.api_server, master.ca_hash) == wanted:
            return
        with self._backing_off("announcement"):
            receipt = await self._registry.announce_master(*wanted)
        # Its event is on the way; nothing is to be sent meanwhile.
        self._pauses["announcement"] = (self._clock.monotonic() + _CHAIN_BACKOFF_S, None)
        _log.info(
            "master announced", endpoint=self._endpoint, ca_hash=self._ca.hash.hex(), digest=receipt.digest
        )

    def announced(self) -> bool:
        """Whether the chain names this master, at these addresses, with this CA."""
        master = self._index.master
        return (
            master is not None
            and master.account == self._address
            and bool(self._ca.hash)
            and (master.endpoint, master.api_server, master.ca_hash)
            == (self._endpoint, self._api_server, self._ca.hash)
        )

    def _may_write(self, what: str) -> bool:
        """Whether to write on-chain now; raises what the last try raised while it isn't time for the next."""
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
    def _backing_off(
        self, what: str, unless: type[ChainError] | tuple[type[ChainError], ...] = ()
    ) -> Iterator[None]:
        """After a refusal the next try of `what` waits: a lasting cause isn't tried every 2 s."""
        try:
            yield
        except unless:
            raise
        except ChainError as error:
            self._pauses[what] = (self._clock.monotonic() + _CHAIN_BACKOFF_S, error)
            raise
