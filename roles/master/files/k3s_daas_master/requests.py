"""K8s requests from the chain: taken in, claimed, executed as their owner, completed; each at most once.

What the chain schedules comes from the follower (`note`), and from the registry's own list for whatever was
missed. The owner posts the body (`request_intake`). Then one step follows another (`request_rows`), each with
its own condition, each repeatable: `sweep` takes every open request as far as it gets. Nothing is claimed or
executed on a stale view of the chain, for an owner or a worker that isn't in service, or without the time to
finish it; what can't be finished is timed out, which refunds its deposit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Protocol

from k3s_daas.chain import ChainError, MoveAbort, Receipt
from k3s_daas.logs import get_logger
from k3s_daas.registry import (
    OpenRequest,
    RegistryEvent,
    RequestClaimed,
    RequestCompleted,
    RequestScheduled,
    RequestTimedOut,
    StakeWithdrawn,
    WorkerRegistered,
    WorkerStatus,
)
from k3s_daas.requests.policy import RESOURCES, Policy
from k3s_daas.requests.schema import NotAllowed, parse, payload_hash
from k3s_daas.tenancy import tenant_namespace
from k3s_daas_master.clock import Clock
from k3s_daas_master.executor import Executor, Refusal, Work, result_of
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.owner_api import Answer, InDoubt, NotExecuted
from k3s_daas_master.request_rows import FINAL, RequestState, Row, Scheduled
from k3s_daas_master.store import Store

_log = get_logger("k3s_daas_master.requests")

#: A request is claimed, and its execution begun, only with this much of its 10 minutes left.
CLAIM_MARGIN_MS = 90_000
EXECUTE_MARGIN_MS = 45_000
#: So long after its deadline a request that is open nowhere is taken for ended.
_LOST_AFTER_MS = 60_000
_RESYNC_S = 60.0
_PAUSE_S = 2.0
_RETRY_S = (1.0, 2.0, 5.0, 10.0)
# After a transaction its event is on the way.
_EVENT_S = 15.0
_PARALLEL = 8

_IN_SERVICE = frozenset({WorkerStatus.ACTIVE, WorkerStatus.BUSY, WorkerStatus.PENDING, WorkerStatus.OFFLINE})


class ServesRequests(Protocol):
    """What is asked of the on-chain registry."""

    async def open_requests(self) -> list[OpenRequest]: ...

    async def open_request(self, request_id: int) -> OpenRequest | None: ...

    async def claim_request(self, request_id: int) -> Receipt: ...

    async def complete_request(self, request_id: int, result_hash: bytes) -> Receipt: ...

    async def time_out_request(self, request_id: int) -> Receipt: ...


class Requests:
    """The requests of one registry, served by the master with the wallet `address`."""

    def __init__(
        self,
        *,
        registry: ServesRequests,
        index: TokenIndex,
        view: ChainView,
        store: Store,
        executor: Executor,
        policy: Policy,
        address: str,
        clock: Clock,
        keep_ms: int,
        keep_bytes: int,
    ) -> None:
        self._registry = registry
        self._index = index
        self._view = view
        self._store = store
        self._rows = store.requests
        self._executor = executor
        self._policy = policy
        self._address = address
        self._clock = clock
        self._keep_ms = keep_ms
        self._keep_bytes = keep_bytes
        self._wake = asyncio.Event()
        self._synced_at: float | None = None
        #: (time of the next try, failures in a row) of requests that wait for it.
        self._waiting: dict[int, tuple[float, int]] = {}

    # -- from the chain -----------------------------------------------------------------------------------

    def note(self, event: RegistryEvent, checkpoint: int) -> None:
        """Take in one event, within the follower's transaction: once."""
        now = self._clock.now_ms()
        match event:
            case RequestScheduled():
                self._rows.note(_scheduled(event), now)
            case RequestClaimed():
                self._rows.claimed_by_others(event.request_id)
            case RequestCompleted():
                self._rows.completed(event.request_id, event.result_hash, checkpoint, now)
            case RequestTimedOut():
                self._rows.timed_out(event.request_id, event.missed, checkpoint, now)
            case StakeWithdrawn() | WorkerRegistered():
                self._rows.forget_worker(event.node_id)

    async def sync(self) -> None:
        """Read the open requests from the chain: what was missed while nobody followed. Raises ChainError.

        An endpoint may lag, so that a request isn't listed means nothing until well after its deadline.
        """
        listed = await self._registry.open_requests()
        now = self._clock.now_ms()
        with self._store.transaction():
            for request in listed:
                self._rows.note(_scheduled(request), now, claimed=request.claimed)
            open_ids = {request.request_id for request in listed}
            for request_id, _, deadline in self._rows.open():
                if request_id not in open_ids and self._view.timestamp_ms > deadline + _LOST_AFTER_MS:
                    self._rows.lost_sight(request_id, now)
        self._synced_at = self._clock.monotonic()

    # -- the loop -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look at the open requests now."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.sweep()
            except (ChainError, sqlite3.Error) as error:
                _log.warning("requests will be looked at again", error=str(error))
            except Exception:
                # A mistake of ours over requests must not end the service for the fleet.
                _log.exception("requests broke and will be looked at again")
            try:
                await asyncio.wait_for(self._wake.wait(), _PAUSE_S)
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Take every open request as far as it gets, several side by side."""
        self._rows.prune(self._clock.now_ms() - self._keep_ms, self._keep_bytes)
        if not self._may_act():
            return
        now = self._clock.monotonic()
        if self._synced_at is None or now - self._synced_at >= _RESYNC_S:
            await self.sync()
        opened = self._rows.open()
        self._waiting = {one: self._waiting[one] for one, _, _ in opened if one in self._waiting}
        limit = asyncio.Semaphore(_PARALLEL)
        await asyncio.gather(
            *(
                self._try(request_id, limit)
                for request_id, state, deadline in opened
                if self._waiting.get(request_id, (0.0, 0))[0] <= now and self._has_a_step(state, deadline)
            )
        )

    def _may_act(self) -> bool:
        """Whether this is the live master with a fresh view of the chain."""
        master = self._index.master
        return (
            self._index.loaded
            and master is not None
            and master.account == self._address
            and self._view.fresh()
        )

    def _has_a_step(self, state: RequestState, deadline_ms: int) -> bool:
        idle = (RequestState.SCHEDULED, RequestState.REFUSED, RequestState.ABANDONED)
        return state not in idle or self._over(deadline_ms)

    def _over(self, deadline_ms: int) -> bool:
        """By the chain's own time, which is what the contract goes by."""
        return self._view.timestamp_ms >= deadline_ms

    async def _try(self, request_id: int, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                while await self._step(request_id):
                    self._waiting.pop(request_id, None)
            except (ChainError, NotExecuted, InDoubt) as error:
                failures = self._waiting.get(request_id, (0.0, 0))[1]
                self._wait(request_id, _RETRY_S[min(failures, len(_RETRY_S) - 1)], failures + 1)
                _log.warning("request will be tried again", request_id=request_id, error=str(error))
            except Exception:
                self._wait(request_id, _RETRY_S[-1], 1)
                _log.exception("request broke and will be tried again", request_id=request_id)

    def _wait(self, request_id: int, seconds: float, failures: int = 0) -> None:
        self._waiting[request_id] = (self._clock.monotonic() + seconds, failures)

    # -- steps --------------------------------------------------------------------------------------------

    async def _step(self, request_id: int) -> bool:
        """One step of one request; False when there is none to take now. Raises what keeps it from it."""
        row = self._rows.get(request_id)
        if row is None or row.state in FINAL or not self._may_act():
            return False
        if self._over(row.deadline_ms):
            await self._time_out(row)
            return False
        steps: dict[RequestState, Callable[[Row], Awaitable[bool]]] = {
            RequestState.BODY_RECEIVED: self._begin,
            RequestState.CLAIMING: self._find_claim,
            RequestState.CLAIMED: self._execute,
            RequestState.EXECUTING: self._find_out,
            RequestState.EXECUTED: self._complete,
        }
        step = steps.get(row.state)
        return step is not None and await step(row)

    async def _begin(self, row: Row) -> bool:
        """Rehearse it, then claim it."""
        if self._left(row) < CLAIM_MARGIN_MS or not self._servable(row):
            return False
        work = _work(row)
        refusal = self._no_longer(row, work) or await self._executor.rehearse(work)
        if refusal is not None:
            error = {"code": refusal.code, "message": refusal.message}
            self._rows.refuse(row.request_id, error)
            _log.info("request refused by the cluster, not claimed", request_id=row.request_id, **error)
            return False
        master = self._index.master
        # Time has passed: the chain may have gone dark, or said something else about us or them.
        if master is None or not self._may_act() or not self._servable(row):
            return False
        if not self._rows.claiming(row.request_id, master.epoch):
            return False
        return await self._claim(row.request_id)

    async def _claim(self, request_id: int) -> bool:
        try:
            receipt = await self._registry.claim_request(request_id)
        except MoveAbort as error:
            if error.name == "ERequestClaimed":
                # It was open for us, and somebody was faster: it is theirs.
                self._rows.abandon(request_id)
            raise
        _log.info("request claimed", request_id=request_id, digest=receipt.digest)
        return self._rows.claimed(request_id)

    async def _find_claim(self, row: Row) -> bool:
        """A claim was begun, and how it went isn't known."""
        found = await self._registry.open_request(row.request_id)
        if found is None:
            self._wait(row.request_id, _EVENT_S)
            return False  # it ended: its event is on the way
        master = self._index.master
        if not found.claimed:
            if self._left(row) < CLAIM_MARGIN_MS or not self._servable(row):
                return False
            return await self._claim(row.request_id)
        if master is None or master.epoch != row.claim_epoch:
            # Another was master in between, and may have claimed and executed it.
            self._rows.abandon(row.request_id)
            return False
        return self._rows.claimed(row.request_id)

    async def _execute(self, row: Row) -> bool:
        work = _work(row)
        seen = await self._executor.look(work)
        if self._left(row) < EXECUTE_MARGIN_MS or not self._may_act() or self._slashed(row.node_id):
            return False
        if not self._rows.executing(row.request_id, seen):
            return False
        refusal = self._no_longer(row, work)
        if refusal is not None:
            # Claimed in good faith, and the worker isn't to blame: it completes, as failed.
            return self._executed(row, refusal)
        try:
            outcome = await self._executor.run(work, seen)
        except NotExecuted:
            self._rows.not_executed(row.request_id)
            raise
        return self._executed(row, outcome)

    async def _find_out(self, row: Row) -> bool:
        """An execution was begun, and how it went isn't known."""
        try:
            outcome = await self._executor.find_out(_work(row), row.seen or {})
        except NotExecuted as error:
            _log.info("execution repeated", request_id=row.request_id, because=str(error))
            return self._rows.not_executed(row.request_id)
        return self._executed(row, outcome)

    def _executed(self, row: Row, outcome: Answer | Refusal) -> bool:
        now = self._clock.now_ms()
        result, error = result_of(_work(row), outcome, now)
        _log.info(
            "request executed",
            request_id=row.request_id,
            owner=row.requester,
            error=(error or {}).get("code"),
        )
        return self._rows.executed(row.request_id, result, payload_hash(result), error, now)

    async def _complete(self, row: Row) -> bool:
        assert row.result_hash is not None
        receipt = await self._registry.complete_request(row.request_id, row.result_hash)
        with self._store.transaction():
            self._rows.completed(row.request_id, row.result_hash, receipt.checkpoint, self._clock.now_ms())
        _log.info("request completed", request_id=row.request_id, digest=receipt.digest)
        return False

    async def _time_out(self, row: Row) -> None:
        receipt = await self._registry.time_out_request(row.request_id)
        self._wait(row.request_id, _EVENT_S)
        _log.info("request timed out", request_id=row.request_id, status=row.state, digest=receipt.digest)

    # -- questions ----------------------------------------------------------------------------------------

    def _left(self, row: Row) -> int:
        """Ms until its deadline, by the later of the two clocks."""
        return row.deadline_ms - self._view.now_ms()

    def _servable(self, row: Row) -> bool:
        """Whether its owner, and the worker that is paid for it, are in service."""
        worker = self._index.workers.get(row.node_id)
        return (
            worker is not None and worker.status in _IN_SERVICE and self._index.owner_is_live(row.requester)
        )

    def _slashed(self, node_id: str) -> bool:
        """The contract takes no result of a slashed worker."""
        worker = self._index.workers.get(node_id)
        return worker is None or worker.status is WorkerStatus.SLASHED

    def _no_longer(self, row: Row, work: Work) -> Refusal | None:
        """What has changed since the body came so that it may not run."""
        if not self._index.owner_is_live(row.requester):
            return Refusal("owner_not_eligible", "The owner has no worker in service any more.")
        try:
            self._policy.check(work.envelope, work.namespace)
        except NotAllowed as error:
            return Refusal("request_refused", str(error))
        return None


def _work(row: Row) -> Work:
    assert row.body is not None
    envelope = parse(row.body)
    namespace, resource = tenant_namespace(row.requester), RESOURCES[envelope.resource]
    return Work(row.request_id, row.requester, namespace, row.node_id, envelope, resource)


def _scheduled(found: RequestScheduled | OpenRequest) -> Scheduled:
    return Scheduled(
        found.request_id,
        found.requester,
        found.node_id,
        found.payload_hash,
        found.priority,
        found.deposit_mist,
        found.deadline_ms,
    )
