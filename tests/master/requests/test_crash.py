"""Killed anywhere, and anything in between: nothing runs twice, and nothing claimed is left open.

The master is killed right before or right after one of its effects outside: a step on the disk, a
transaction, a call to the cluster. Or its answer is lost there. It is started anew from what the disk holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from request_fakes import OWNER, WINDOW_MS, OwnersKube, apply, attach, configmap, job

from k3s_daas.chain import OutcomeUnknown
from k3s_daas.registry import Deployment, WorkerStatus, parse_event
from k3s_daas.requests.policy import Policy
from k3s_daas.requests.schema import encode
from k3s_daas_master.executor import Executor
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.owner_api import OwnerApi
from k3s_daas_master.request_intake import RequestIntake
from k3s_daas_master.request_rows import FINAL
from k3s_daas_master.requests import Requests
from k3s_daas_master.store import Store

MASTER = "0x" + "cc" * 32
DEPLOYMENT = Deployment("0x" + "aa" * 32, "0x" + "bb" * 32)


class Killed(BaseException):
    """The process is gone."""


class World:
    """One chain and one cluster that stay, and masters that come and go."""

    def __init__(self, chain: Any, folder: Path, kills: list[int], lose_at: int | None) -> None:
        self.chain, self.clock, self.folder = chain, chain.clock, folder
        self.book = attach(chain)
        self.kube = OwnersKube(self.book.log)
        chain.stake("worker-1", OWNER, WorkerStatus.ACTIVE)
        chain.stake("worker-2", "0x" + "0b" * 32, WorkerStatus.ACTIVE)
        self.points = 0
        #: Each next process is killed after so many moments.
        self.kills = list(kills)
        self.kill_at: int | None = None
        self.lose_at = lose_at

    def point(self) -> None:
        """One moment at which the process may be gone."""
        self.points += 1
        if self.points == self.kill_at:
            raise Killed

    def start(self) -> None:
        self.kill_at = self.points + self.kills.pop(0) if self.kills else None
        self.store = Store(self.folder)
        self.index, self.view = TokenIndex(), ChainView(self.clock, chain_may_lead=True)
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.kube.app()),
            base_url="https://kube",
            headers={"Authorization": "Bearer admin"},
        )
        api = OwnerApi(lambda: client, 5.0)
        policy = Policy()
        common: dict[str, Any] = {
            "index": self.index,
            "view": self.view,
            "clock": self.clock,
            "policy": policy,
        }
        self.requests = Requests(
            registry=self,
            store=self.store,
            executor=Executor(api),
            address=MASTER,
            keep_ms=10**9,
            keep_bytes=10**9,
            **common,
        )
        self.intake = RequestIntake(rows=self.store.requests, on_body=self.requests.wake, **common)
        send, step = api._send, self.store.requests._step

        async def sent(*arguments: Any) -> Any:
            self.point()
            answer = await send(*arguments)
            self.point()
            if self.points == self.lose_at:
                raise httpx2.ReadError("cut off")
            return answer

        def stepped(*arguments: Any, **columns: Any) -> bool:
            self.point()
            done = step(*arguments, **columns)
            self.point()
            return done

        api._send = sent  # type: ignore[method-assign]
        self.store.requests._step = stepped  # type: ignore[method-assign]

    async def follow(self) -> None:
        """What the follower does: the index, then the events in one transaction with the cursor."""
        snapshot = await self.chain.snapshot()
        self.index.load(snapshot)
        for batch in self.chain.log:
            cursor = self.store.cursor() or 0
            if batch.sequence > cursor:
                with self.store.transaction():
                    for event in batch.events:
                        parsed = parse_event(event, DEPLOYMENT)
                        if parsed is not None:
                            self.requests.note(parsed, batch.sequence)
                    self.store.set_cursor(batch.sequence)
            self.view.seen(batch.sequence, batch.timestamp_ms)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The registry: transactions may be cut off before or after, and their answers lost."""
        call = getattr(self.book, name)

        async def asked(*arguments: Any) -> Any:
            if name in ("open_requests", "open_request"):
                return await call(*arguments)
            self.point()
            receipt = await call(*arguments)
            self.point()
            if self.points == self.lose_at:
                raise OutcomeUnknown("digest", {})
            return receipt

        return asked

    async def go_on(self, seconds: float) -> None:
        """Time passes, and the master of the moment works; killed, another takes its place."""
        self.clock.advance(seconds)
        self.chain.checkpoint()
        try:
            await self.follow()
            await self.requests.sweep()
        except Killed:
            self.store.close()
            self.start()


BODIES = {
    "configmap": apply(configmap("target"), "configmaps"),
    "job": apply(job("target"), "jobs"),
    "delete": encode(method="delete", resource="configmaps", name="target"),
    "scale": encode(method="scale", resource="deployments", name="target", replicas=5),
    "get": encode(method="get", resource="configmaps", name="target"),
}


def between(kube: OwnersKube, what: str) -> None:
    """What the owner does itself, by kubectl, while the master is away."""
    for resource in ("configmaps", "jobs", "deployments"):
        found = kube.get(resource, "target")
        if found is None:
            continue
        if what == "delete":
            kube.objects = {key: value for key, value in kube.objects.items() if value is not found}
        elif what == "replace":
            kube.put(resource, "target", data={"other": "one"}, spec={"replicas": 1})
        elif what == "touch":
            found["metadata"]["generation"] += 1
            if resource == "deployments":
                found["spec"]["replicas"] = 9


async def story(world: World, body: str, there: bool, meddling: str) -> None:
    kube, book = world.kube, world.book
    if there or body == "scale":
        resource = {"job": "jobs", "scale": "deployments"}.get(body, "configmaps")
        kube.put(resource, "target", data={"old": "1"}, spec={"replicas": 1})
    world.start()
    raw = BODIES[body]
    # Paid to another owner's worker, so that a miss would count.
    number = book.submit(raw, OWNER, "worker-2")
    await world.follow()
    world.intake.accept(OWNER, number, raw)
    meddled = False
    for _ in range(8):
        before = world.points
        await world.go_on(12)
        if not meddled and world.points > before:
            between(kube, meddling)
            meddled = True
    world.kills, world.kill_at, world.lose_at = [], None, None
    for seconds in (30, WINDOW_MS / 1000, 30, 30, 30):
        await world.go_on(seconds)
    row = world.store.requests.get(number)
    world.store.close()
    assert row is not None

    # Nothing claimed is left open, and what the master says is what the chain says.
    assert number not in book.open, row
    assert row.state in FINAL, row
    how, result_hash = book.ended[number]
    assert (how == "timed out") == (row.state == "timed_out"), row
    if how == "completed":
        assert row.result is not None
        assert hashlib.sha256(row.result).digest() == result_hash == row.result_hash
    # Executed at most once, never before the claim, and not at all when it says it failed to.
    effects = [at for at, (what, _) in enumerate(book.log) if what == "effect"]
    claims = [at for at, (what, _) in enumerate(book.log) if what == "claimed"]
    assert len(claims) <= 1
    assert all(claims and at > claims[0] for at in effects)
    # A ConfigMap that the owner took away meanwhile may be put there again: it is the same object.
    again = body == "configmap" and meddling != "nothing"
    assert len(effects) <= (2 if again else 1), (book.log, row)
    if row.state == "succeeded" and body not in ("get", "delete"):
        assert effects or kube.effects, "it says so, and nothing happened"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.sampled_from(sorted(BODIES)),
    there=st.booleans(),
    kills=st.lists(st.integers(1, 24), max_size=3),
    lose_at=st.none() | st.integers(1, 24),
    meddling=st.sampled_from(["nothing", "nothing", "delete", "replace", "touch"]),
)
def test_at_most_once_whatever_happens(
    make_chain: Any, body: str, there: bool, kills: list[int], lose_at: int | None, meddling: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(make_chain(), Path(folder), kills, lose_at)
        asyncio.run(story(world, body, there, meddling))


def test_killed_at_every_single_moment(make_chain: Any) -> None:
    """Without meddling one restart is always enough: executed exactly once, or known not to be."""
    for body in sorted(BODIES):
        for there in (False, True):
            for moment in range(1, 25):
                with tempfile.TemporaryDirectory() as folder:
                    world = World(make_chain(), Path(folder), [moment], None)
                    asyncio.run(story(world, body, there, "nothing"))
                    if there and body != "get":
                        assert len(world.kube.effects) == 1, (body, moment, world.book.log)
                        assert world.book.ended[1][0] == "completed", (body, moment)
