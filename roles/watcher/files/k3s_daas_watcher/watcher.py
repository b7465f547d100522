"""The watcher's rules: what is checked, what is sent, what follows from the answers.

No loops and no sockets of its own: `service.py` calls `check_chain` and `beat` when their time comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from k3s_daas import join, logs
from k3s_daas.registry.model import Master, WorkerStatus

from . import alerts
from .agent import AgentProbe, AgentState
from .attested import prove
from .chainview import Reader, Sighting, View, look
from .clock import Clock
from .config import WatcherConfig
from .control import Control
from .errors import Exit, Refusal
from .findings import master_refusal
from .hostusage import HostUsage
from .live import FAILURES_BEFORE_RESTART, NOT_REGISTERED, RESTART_CAP, Live
from .master_client import MasterClient, MasterRefused, MasterUnreachable
from .pinned import FetchCa, pinned_ca
from .signing import HeartbeatKey
from .state import KnownMaster, StateStore

log = logs.get_logger(__name__)

RESTART_BACKOFF_MS = 60_000
RESTART_BACKOFF_CAP_MS = 3_600_000
# The master takes timestamps within 60 s of its own clock.
CLOCK_SKEW_MS = 60_000
# Two hours of heartbeats: how far the clock can go back without a moment coming twice by chance.
SIGNED_KEPT = 256
CONFIRMATION_WAIT_S = 20.0


class Slashed(Exception):
    """The chain says this worker is slashed. Final."""


class Pods(Protocol):
    """Counts the pods that run on this node; never raises."""

    async def count(self, api_server: str, ca_pem: str) -> int | None: ...

    async def close(self) -> None: ...


class Watcher:
    """One worker's watcher. All dependencies are handed in; `fetch_ca` blocks and runs in a thread."""

    def __init__(
        self,
        config: WatcherConfig,
        token: str,
        readers: Sequence[Reader],
        store: StateStore,
        control: Control,
        probe: AgentProbe,
        clock: Clock,
        *,
        key: HeartbeatKey | None = None,
        usage: Callable[[], HostUsage],
        pods: Pods,
        certificates: Callable[[], list[str]],
        fetch_ca: FetchCa = join.fetch_cacerts,
    ) -> None:
        self.config = config
        self.store = store
        self.live = Live()
        self._token = token
        self._key = key
        self._readers = readers
        self._control = control
        self._probe = probe
        self._clock = clock
        self._fetch_ca = fetch_ca
        self.usage = usage
        self._pods = pods
        self._certificates = certificates
        self._told: list[str] = []
        self._looking = asyncio.Lock()
        self._client: MasterClient | None = None
        self._client_of: KnownMaster | None = None
        self._announced: Master | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()
        await self._pods.close()
        await asyncio.gather(*(reader.close() for reader in self._readers))

    # --- chain ---

    async def look(self) -> View:
        """What all endpoints say now."""
        # One look at a time: the readers connect when first used.
        async with self._looking:
            return await look(self._readers, self.config.node_id, self.config.wanted_answers)

    async def check_chain(self) -> None:
        """Look at the stake once. Raises Slashed; every other finding is recorded and logged on change."""
        view = await self.look()
        changed = view.outcome is not self.live.outcome
        self.live.outcome, self.live.answers = view.outcome, view.answers
        self.live.chain_detail = view.detail
        if view.sighting is None:
            if changed:
                log.warning("chain view lost", kind=view.outcome.value, detail=view.detail)
            self._save()
            return
        if changed:
            log.info("chain view good", endpoints=len(view.answers), detail=view.detail)
        self._record(view.sighting)
        self._save()
        if self.store.state.status == WorkerStatus.SLASHED:
            raise Slashed

    def _record(self, sighting: Sighting) -> None:
        state, worker, token = self.store.state, sighting.worker, sighting.token
        status = worker.status.value if worker else NOT_REGISTERED
        if status != state.status:
            log.warning("status on-chain changed", old=state.status, new=status)
        state.last_validation_ms = self._clock.now_ms()
        state.status = status
        state.stake_mist = worker.stake_mist if worker else 0
        state.token_generation = token.generation if token else None
        state.token_expires_at_ms = token.expires_at_ms if token else None
        self.live.slash_proposed = bool(worker and worker.proposal)
        if sighting.master is not None and sighting.master.endpoint:
            self._announced = sighting.master

    def _save(self) -> None:
        alerts.update(self.config, self.store.state, self.live, self._clock.now_ms())
        self.store.save()
        self.live.state_problem = self.store.problem

    # --- heartbeat ---

    async def beat(self) -> bool:
        """Send one heartbeat; True when the master took it. Raises Slashed when the chain confirms one."""
        # Whatever comes of it: what can't be told now waits for the next heartbeat like all else.
        self._told = self._certificates()
        try:
            client = await self.master()
            await self._count_pods()
            await self._send(client)
        except Refusal as refusal:
            await self._failed(refusal)
            return False
        state = self.store.state
        if state.consecutive_failures:
            log.info("heartbeats work again", after_failures=state.consecutive_failures)
        state.last_heartbeat_ms = self._clock.now_ms()
        state.consecutive_failures, state.last_failure = 0, None
        state.restarts, state.next_restart_ms = 0, 0
        self.live.failure = None
        self.live.beats += 1
        if "agent_unhealthy" in state.alerts:
            # Nobody else looks at an agent while heartbeats work, and the alert must have an end.
            self.live.agent = await self._probe.look()
        self._save()
        return True

    def untold(self) -> bool:
        """Whether the node has certificates that no heartbeat has told the master about yet."""
        return self._certificates() != self._told

    async def _count_pods(self) -> None:
        known = self.store.state.master
        if known is not None:
            self.live.pods = await self._pods.count(known.api_server, known.ca_pem)
            self.live.pods_at_ms = self._clock.now_ms()

    async def _send(self, client: MasterClient) -> None:
        state = self.store.state
        before = state.timestamp_floor_ms
        state.timestamp_floor_ms = self._timestamp()
        # Before it is sent: killed in between, the next one must still be later.
        self._save()
        body: dict[str, Any] = {
            "node_id": self.config.node_id,
            "timestamp_ms": state.timestamp_floor_ms,
            "stake_status": state.status or "unknown",
            "stake_mist": state.stake_mist or 0,
            "running_pods": self.live.pods,
            "resource_usage": self.usage().summary(),
        }
        if self._told:
            body["certificates"] = self._told
        try:
            await client.heartbeat(body, self._key)
        except (MasterRefused, MasterUnreachable) as error:
            if isinstance(error, MasterRefused) and error.code == "clock_skew":
                # It was not recorded. Kept as the floor, a clock that was an hour ahead would silence us
                # for an hour after it was set right; so would an older one that got no answer.
                now = self._clock.now_ms()
                state.timestamp_floor_ms = before if before <= now + CLOCK_SKEW_MS else now
            raise master_refusal(error) from None

    def _timestamp(self) -> int:
        """A moment that nothing was signed for yet, also when the floor went back behind some that were: two
        bodies of one moment are an offence."""
        state = self.store.state
        moment = max(self._clock.now_ms(), state.timestamp_floor_ms + 1)
        while moment in state.signed_ms:
            moment += 1
        state.signed_ms = [*state.signed_ms, moment][-SIGNED_KEPT:]
        return moment

    async def master(self) -> MasterClient:
        """A client for the master that is on-chain, or for the last one known while the chain is dark.

        Raises Refusal. It is this watcher's own: not to be closed.
        """
        known, announced = self.store.state.master, self._announced
        if known is not None and self.config.wants_proof and not known.attested:
            known = None
        if announced is not None and not _same(known, announced):
            ca = await asyncio.to_thread(pinned_ca, announced.api_server, announced.ca_hash, self._fetch_ca)
            await prove(self.config, announced, ca, self._readers)
            known = KnownMaster(
                epoch=announced.epoch,
                endpoint=announced.endpoint,
                api_server=announced.api_server,
                ca_hash=announced.ca_hash.hex(),
                ca_pem=ca.decode("ascii", "ignore"),
                attested=self.config.wants_proof,
            )
            self.store.state.master = known
            log.info("master found on-chain", endpoint=known.endpoint, epoch=known.epoch)
        if known is None:
            raise Refusal(
                "master_not_announced",
                "no master is known",
                found=self.live.chain_detail or "the registry names no master with an endpoint",
                wanted="a master that announced itself on-chain",
                fix="run playbooks/master.yml, or make the chain reachable",
                exit_code=Exit.MASTER_NOT_ANNOUNCED,
            )
        if self._client is None or self._client_of != known:
            if self._client is not None:
                await self._client.close()
            try:
                self._client = MasterClient(known.endpoint, known.ca_pem, self._token)
            except MasterUnreachable as error:
                raise master_refusal(error) from None
            self._client_of = known
        return self._client

    async def _failed(self, refusal: Refusal) -> None:
        state = self.store.state
        state.consecutive_failures += 1
        state.last_failure = refusal.code
        self.live.failure = refusal
        log.warning(
            "heartbeat failed",
            kind=refusal.code,
            in_a_row=state.consecutive_failures,
            found=refusal.found,
            wanted=refusal.wanted,
            fix=refusal.fix,
        )
        if refusal.code == "worker_slashed":
            # The master's word alone stops nothing: the chain decides, and is asked now.
            await self.check_chain()
        if state.consecutive_failures >= FAILURES_BEFORE_RESTART:
            await self._consider_restart()
        self._save()

    # --- agent ---

    async def _consider_restart(self) -> None:
        """Ask root to restart an agent that is unhealthy, less and less often, and not for ever."""
        state = self.store.state
        self.live.agent = await self._probe.look()
        if self.live.agent.state is not AgentState.UNHEALTHY:
            log.info("agent left alone", state=self.live.agent.state.value, detail=self.live.agent.detail)
            return
        now = self._clock.now_ms()
        # A clock set back must not stretch the wait beyond the longest there is.
        if 0 < state.next_restart_ms - now <= RESTART_BACKOFF_CAP_MS:
            return
        if state.restarts >= RESTART_CAP:
            log.error("agent unhealthy, restarts given up", restarts=state.restarts)
            return
        try:
            self._control.ask("restart", "agent_unhealthy", now)
        except OSError as error:
            log.error("restart can't be requested", why=error.strerror)
            return
        state.restarts += 1
        state.next_restart_ms = now + min(RESTART_BACKOFF_MS << (state.restarts - 1), RESTART_BACKOFF_CAP_MS)
        log.warning("agent unhealthy, restart requested", detail=self.live.agent.detail, nth=state.restarts)

    async def shut_down_agent(self) -> Exit:
        """Have root stop the agent for good; the exit code says whether root confirmed it."""
        now = self._clock.now_ms()
        log.critical("worker is slashed, stopping the agent", node_id=self.config.node_id)
        try:
            self.store.mark_slashed(now)
            request = self._control.ask("stop", "slashed", now)
        except OSError as error:
            log.critical("the stop can't be requested", why=error.strerror)
            return Exit.STOP_UNCONFIRMED
        end = self._clock.monotonic() + CONFIRMATION_WAIT_S
        while self._clock.monotonic() < end:
            answer = self._control.answer(request)
            if answer is not None and answer.result == "done":
                log.critical("agent stopped for good", detail=answer.detail)
                return Exit.SLASHED
            if answer is not None:
                log.critical("root could not stop the agent", detail=answer.detail)
                return Exit.STOP_UNCONFIRMED
            await self._clock.sleep(0.2)
        log.critical("root did not confirm the stop", waited_s=CONFIRMATION_WAIT_S)
        return Exit.STOP_UNCONFIRMED


def _same(known: KnownMaster | None, announced: Master) -> bool:
    return known is not None and (known.epoch, known.endpoint, known.api_server, known.ca_hash) == (
        announced.epoch,
        announced.endpoint,
        announced.api_server,
        announced.ca_hash.hex(),
    )
