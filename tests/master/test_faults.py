"""What may break under a master, and who must not suffer for it."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.errors import StateError
from k3s_daas_master.store import Store

FULL = sqlite3.OperationalError("database or disk is full")


class FullDisk:
    """A database on a disk that takes no more: reads work, writes fail as SQLite's do."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            raise FULL
        return self._db.execute(sql, *arguments)

    def close(self) -> None:
        self._db.close()


def fill(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store: Store = bench.state.store
    full: Any = FullDisk(store.db)
    monkeypatch.setattr(store, "_db", full)
    for part in (bench.state.policy, bench.state.heartbeats._signatures):
        monkeypatch.setattr(part, "_db", full)


async def turn(bench: Any) -> None:
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.catch_up()


async def test_a_full_disk_makes_nobody_silent(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For half an hour nothing can be written: heartbeats are refused, and nobody is written off for it."""
    token, key = await bench.join_signing("worker-1")
    calls = len(bench.chain.status_calls)
    with monkeypatch.context() as disk:
        fill(bench, disk)
        for _ in range(60):
            bench.clock.advance(30)
            refused = await bench.signed_beat(token, "worker-1", key)
            assert bench.refusal(refused) == (503, "not_ready")
            await bench.state.fleet.reconcile()
            bench.state.view.seen(bench.state.view.sequence + 1, bench.clock.ms)
        assert (await bench.api.get("/api/v1/workers")).status_code == 200
        assert (await bench.api.get("/metrics")).status_code == 200
        owner = bench.chain.mint("", bench.owner_a)
        await asyncio.sleep(0)
        bench.state.index.load(await bench.chain.snapshot())
        assert (await bench.review(owner))["authenticated"], "kubectl needs no disk"
    assert len(bench.chain.status_calls) == calls
    bench.clock.advance(30)
    assert (await bench.signed_beat(token, "worker-1", key)).status_code == 200


async def test_a_full_disk_loses_no_finding_for_good(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token, key = await bench.join_signing("worker-1")
    await bench.signed_beat(token, "worker-1", key, running_pods=1)
    with monkeypatch.context() as disk:
        fill(bench, disk)
        await bench.signed_beat(token, "worker-1", key, running_pods=2)
        assert bench.state.policy.findings() == []
    await bench.signed_beat(token, "worker-1", key, running_pods=2)
    assert len(bench.state.policy.findings()) == 1


async def test_a_master_that_dies_during_a_registration(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the bootstrap token and the answer: the worker asks again, and one token is left."""
    token = bench.chain.stake("worker-1")
    await bench.catch_up()

    class Killed(BaseException):
        pass

    async def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(bench.state.registrar._cluster, "bootstrap_tokens", killed)
        with pytest.raises(Killed):
            await bench.state.registrar.register(token, "worker-1", bench.clock.ms)
    (orphan,) = bench.kube.bootstrap_tokens()
    password = bench.kube.password_hash("worker-1")
    await bench.restart()
    await bench.state.fleet.reconcile()
    replayed = await bench.register(token, "worker-1")
    assert bench.refusal(replayed) == (409, "timestamp_replayed"), "what was used up stays used up"
    bench.clock.advance(1)
    answer = await bench.register(token, "worker-1")
    assert answer.status_code == 200
    (left,) = bench.kube.bootstrap_tokens()
    assert left["token-id"] != orphan["token-id"], "nobody holds a token that nobody was given"
    assert bench.kube.password_hash("worker-1") == password
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.PENDING


@pytest.mark.parametrize("endpoint", ["register-worker", "nodes/heartbeat"])
async def test_what_was_recorded_on_the_wire_is_worth_nothing(bench: Any, endpoint: str) -> None:
    """The very bytes, sent again: at once, a minute later, after a restart."""
    token, key = await bench.join_signing("worker-1")
    body = json.dumps({"node_id": "worker-1", "timestamp_ms": bench.clock.ms}).encode()
    headers = {
        "X-Seal-Token": token,
        "Content-Type": "application/json",
        "X-Worker-Signature": base64.b64encode(key.sign(body)).decode(),
    }

    async def send() -> Any:
        return await bench.api.post(f"/api/v1/{endpoint}", content=body, headers=headers)

    assert (await send()).status_code == 200
    assert bench.refusal(await send()) == (409, "timestamp_replayed")
    await bench.restart()
    await bench.state.fleet.reconcile()
    assert bench.refusal(await send()) == (409, "timestamp_replayed")
    bench.clock.advance(61)
    await turn(bench)
    assert bench.refusal(await send()) == (400, "clock_skew")
    assert bench.state.policy.findings() == []


def test_another_releases_state_file_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "master.db") as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(StateError, match=r"has schema 7, wanted \d+. Another release wrote it: install that"):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / "master.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)
