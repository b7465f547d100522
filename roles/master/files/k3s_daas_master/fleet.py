"""One pass of comparing the cluster with the chain, over and over.

It keeps node passwords, the list of nodes and the announced master right, cordons the jailed, writes on-chain
who is active or offline, clears bootstrap tokens that are no longer needed, has the connections of removed
nodes cut, and notices slashed nodes that came back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from k3s_daas.chain import ChainError, Receipt
from k3s_daas.join import JoinError, ca_hash
from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master import memory
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError, NodeView
from k3s_daas_master.cut import CutRequest
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.drains import DrainWatch
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.nodelist import NodeList
from k3s_daas_master.nodepasswords import NodePasswordKeeper
from k3s_daas_master.pacing import Pacing
from k3s_daas_master.policy import Policy
from k3s_daas_master.registration import ClusterCa
from k3s_daas_master.removal import Remover
from k3s_daas_master.statuses import StatusWriter, WritesStatuses
from k3s_daas_master.store import Store

_log = get_logger("k3s_daas_master.fleet")

_CA_CHECK_S = 60.0
_REST_S, _REST_RATIO, _LONGEST_REST_S = 0.2, 4.0, 2.0


def rest_s(took_s: float, every_s: float) -> float:
    """How long a pass that took so long is followed by none, in s, however often one is asked for.

    A heartbeat of a pending worker asks for one: while a large fleet joins, passes may not take all the time.
    """
    return max(min(_REST_S, every_s), min(_REST_RATIO * took_s, _LONGEST_REST_S))


class WritesRegistry(WritesStatuses, Protocol):
    async def announce_master(self, endpoint: str, api_server: str, ca_hash: bytes) -> Receipt: ...


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
        gas: GasWatch,
        disruption: Disruption,
        drains: DrainWatch,
        policy: Policy,
        access: NodeAccess,
        node_list: NodeList,
        cut: CutRequest,
        address: str,
        endpoint: str,
        api_server: str,
        offline_after_ms: int,
        clock: Clock,
    ) -> None:
        self._index = index
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
        self._gas = gas
        self._disruption = disruption
        self._drains = drains
        self._policy = policy
        self._access = access
        self._node_list = node_list
        self._cut = cut
        self._clock = clock
        self._pacing = Pacing(index, view, address, clock)
        self._statuses = StatusWriter(
            index=index,
            view=view,
            registry=registry,
            pacing=self._pacing,
            gas=gas,
            offline_after_ms=offline_after_ms,
            clock=clock,
        )
        self._wake = asyncio.Event()
        self._ca_checked: float | None = None
        self.nodes: dict[str, NodeView] = {}
        # Whether `nodes` was ever filled.
        self.looked = False
        self.problems: dict[str, str] = {}
        self.passes = 0

    @property
    def status_changes(self) -> int:
        """Statuses written on-chain."""
        return self._statuses.written

    def seen_nodes(self) -> dict[str, NodeView]:
        """The last look at the cluster; empty while it can't be looked at."""
        return {} if "nodes" in self.problems else self.nodes

    def wake(self) -> None:
        """Compare now instead of at the next turn."""
        self._wake.set()

    async def run(self, every_s: float) -> None:
        """Compare every `every_s` seconds, or when woken, until cancelled."""
        while True:
            self._wake.clear()
            began = self._clock.monotonic()
            await self.reconcile()
            # Lists of a whole cluster were freed.
            memory.give_back()
            rest = rest_s(self._clock.monotonic() - began, every_s)
            await asyncio.sleep(rest)
            if self._statuses.nearly(self.nodes, self._heartbeats.last_ms):
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, every_s - rest))

    async def reconcile(self) -> None:
        """One pass. A step that fails is noted in `problems` and doesn't hold up the others."""
        await self._step("ca", self._learn_ca)
        if self._index.loaded:
            self._disruption.look()
            await self._step("gas", self._gas.look)
            await self._step("announcement", self._announce)
            if await self._step("nodes", self._look_at_nodes):
                # First, because somebody waits for it.
                await self._step("statuses", self._write_statuses)
                await self._step("jailed", self._cordon_jailed)
                await self._step("bootstrap_tokens", self._clear_bootstrap_tokens)
                await self._step("drains", self._watch_drains)
            await self._step("node_list", self._node_list.reconcile)
            # Last: in a large fleet that is new to us it takes a while.
            await self._step("node_passwords", self._passwords.reconcile)
        self.passes += 1

    async def _step(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        try:
            await step()
        except (ChainError, ClusterError, JoinError, sqlite3.Error) as error:
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
        found = await self._cluster.nodes()
        gone = [name for name in self.nodes if name not in found]
        # Of the slashed the remover takes care. The last look is kept until this is done: what fails is tried
        # with the next one.
        slashed = set(self._index.slashed()) if gone else set()
        if left := [name for name in gone if name not in slashed and self._access.why_out(name, gone=True)]:
            self._cut.ask(left, self._clock.now_ms())
        self.nodes, self.looked = found, True
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
        await self._statuses.write(self.nodes, self._heartbeats.last_ms)

    async def _watch_drains(self) -> None:
        for found in await self._drains.look(self.nodes):
            self._policy.find(found.node_id, found)

    async def _announce(self) -> None:
        master = self._index.master
        if not self._ca.hash or master is None or not self._pacing.may_write("announcement"):
            return
        wanted = (self._endpoint, self._api_server, self._ca.hash)
        if (master.endpoint, master.api_server, master.ca_hash) == wanted:
            return
        if master.attestation_expires_at_ms and master.binding.ca_hash != self._ca.hash:
            return  # the contract wants it attested first
        with self._pacing.backing_off("announcement"):
            receipt = await self._registry.announce_master(*wanted)
        self._pacing.pause("announcement")
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
