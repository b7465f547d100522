"""End to end on a real chain: contract, follower, request loop, API over TLS, and the client that checks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from live_master import LiveMaster, live_master

from k3s_daas import cli, seal
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import Registry, StakeRequest, WorkerStatus
from k3s_daas.requests.client import RequestsApi, ResultMismatch, checked_result
from k3s_daas.requests.schema import encode
from k3s_daas.requests.submit import Submission, plan, send
from k3s_daas_master.executor import Executor

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
DAY_MS = 86_400_000


class Owner:
    """Somebody with a worker that is active, and a token."""

    def __init__(self, folder: Path, registry: Registry, url: str) -> None:
        self.folder, self.registry, self.url = folder, registry, url
        self.token = seal.make()
        self.address = registry.chain.require_address()

    async def settle(self, node_id: str, master: Registry) -> None:
        expires = await self.registry.clock_ms() + DAY_MS
        stake = StakeRequest(node_id, seal.commitment(seal.make()), SUI, expires)
        await self.registry.stake([stake], self.address)
        await self.registry.create_owner_token(seal.commitment(self.token), expires)
        await master.set_statuses({node_id: WorkerStatus.ACTIVE})

    async def submit(self, raw: bytes, **how: Any) -> int:
        return await send(self.registry, await plan(self.registry, Submission(raw, 5, 10**6, **how)))

    async def api(self) -> RequestsApi:
        return await RequestsApi.connect(self.registry, self.token)

    async def command(self, capsys: Any, *arguments: str) -> tuple[int, str, str]:
        """`k3s-daas request …`: (exit code, stdout, stderr)."""
        deployment = self.registry.deployment
        action, *rest = arguments
        chain = ["--network=localnet", f"--endpoint={self.url}", f"--package-id={deployment.package_id}"]
        chain += [f"--registry-id={deployment.registry_id}", f"--token-file={self.folder / 'owner.seal'}"]
        if action == "submit":
            chain.append(f"--key-file={self.folder / 'owner.key'}")
        capsys.readouterr()
        code = await asyncio.to_thread(cli.main, ["request", action, *chain, *rest])
        out, err = capsys.readouterr()
        return code, out, err


@pytest_asyncio.fixture(loop_scope="session")
async def live(
    new_registry: Any, new_wallet: Any, live_net: Any, tmp_path: Path
) -> AsyncIterator[tuple[LiveMaster, Owner]]:
    key = Key.create(tmp_path / "owner.key")
    await live_net.faucet(key.address, 100 * SUI)
    chain = await SuiClient.connect([live_net.url], "localnet", key)
    operator: Registry = await new_registry()
    (tmp_path / "master").mkdir()
    async with live_master(tmp_path / "master", operator, await new_wallet(), live_net.url) as master:
        owner = Owner(tmp_path, Registry(chain, operator.deployment), live_net.url)
        await owner.settle("worker-1", Registry(master.chain, operator.deployment))
        (tmp_path / "owner.seal").touch(0o600)
        (tmp_path / "owner.seal").write_text(owner.token)
        yield master, owner
    await chain.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_from_the_command_line(live: tuple[LiveMaster, Owner], capsys: Any, tmp_path: Path) -> None:
    master, owner = live
    manifest = tmp_path / "web.yaml"
    manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {greeting: hello}\n")
    code, out, err = await owner.command(capsys, "submit", "--dry-run", "apply", str(manifest))
    assert (code, out) == (0, "")
    assert "deposit of 0.001 SUI" in err
    assert await owner.registry.open_requests() == []
    code, out, err = await owner.command(capsys, "submit", "apply", str(manifest))
    assert code == 0, err
    assert json.loads(out)["object"]["data"] == {"greeting": "hello"}
    assert "the result's hash is the one on-chain" in err
    made = master.kube.get("configmaps", "web", owner.address)
    assert made is not None
    assert [call.user for call in master.kube.wrote()] == [owner.address]
    code, out, err = await owner.command(capsys, "submit", "get", "pods", "nobody")
    assert (code, json.loads(out)["error"]["code"]) == (1, "NotFound")
    code, out, _ = await owner.command(capsys, "status")
    assert code == 0
    assert "configmaps/web" in out
    assert [line.split()[1] for line in out.splitlines() if line.strip()[:1].isdigit()] == [
        "failed",
        "succeeded",
    ]
    code, out, _ = await owner.command(capsys, "status", "1")
    assert (code, json.loads(out)["status"]) == (0, "succeeded")
    code, out, _ = await owner.command(capsys, "result", "1")
    assert (code, json.loads(out)["outcome"]) == (0, "succeeded")
    code, _, err = await owner.command(capsys, "result", "99")
    assert code == 11
    assert "no request of this number" in err
    for bad, wrong in (
        (["apply", str(tmp_path / "none.yaml")], "No such file"),
        (["get", "secrets", "x"], "resource 'secrets'"),
        (["scale", "deployments", "../x", "--replicas=1"], "name"),
    ):
        code, _, err = await owner.command(capsys, "submit", *bad)
        assert (code, wrong in err) == (78, True), err
    assert await owner.registry.open_requests() == []


async def test_a_result_that_was_changed_is_not_believed(live: tuple[LiveMaster, Owner]) -> None:
    _, owner = live
    raw = encode(method="list", resource="pods")
    number = await owner.submit(raw)
    async with await owner.api() as api:
        await api.post(number, raw)
        answer = await api.wait(number, 30)
    assert (await checked_result(owner.registry, answer) or {})["items"] == []
    for change in (
        {"result": answer["result"] + " "},
        {"request_id": 2},
        {"checkpoint": answer["checkpoint"] - 1},
    ):
        with pytest.raises(ResultMismatch):
            await checked_result(owner.registry, answer | change)


@pytest.mark.parametrize("moment", ["claim", "execution", "completion"])
async def test_stopped_in_the_middle_it_goes_on(
    live: tuple[LiveMaster, Owner], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The service ends right after the transaction or the call went out; the next one finds what happened."""
    master, owner = live
    hung = asyncio.Event()

    def hanging(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            await original(*arguments)
            hung.set()
            await asyncio.Event().wait()

        return call

    where, name = {
        "claim": (Registry, "claim_request"),
        "execution": (Executor, "run"),
        "completion": (Registry, "complete_request"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, hanging(getattr(where, name)))
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "b"}}
        raw = encode(method="apply", resource="configmaps", name="web", payload=manifest)
        number = await owner.submit(raw)
        async with await owner.api() as api:
            await api.post(number, raw)
        await asyncio.wait_for(hung.wait(), 30)
        await master.stop()
    await master.start()
    async with await owner.api() as api:
        answer = await api.wait(number, 30)
    assert answer["status"] == "succeeded", answer
    assert await checked_result(owner.registry, answer) is not None
    assert len(master.kube.effects) == 1
    assert [call.method for call in master.kube.wrote()] == ["PATCH"]


async def test_what_nobody_posts_is_timed_out_and_refunded(
    live: tuple[LiveMaster, Owner], live_net: Any
) -> None:
    """Whoever pays the gas: the deposit comes back, and nobody is blamed."""
    master, owner = live
    before = await owner.registry.chain.balance(owner.address)
    number = await owner.submit(encode(method="list", resource="pods"), candidates=["worker-1"])
    masters = await master.chain.balance(master.chain.address)

    async def scheduled() -> bool:
        return bool(master.store.requests.get(number))

    await until(scheduled)
    row = master.store.requests.get(number)
    assert row is not None
    assert row.state == "scheduled"
    paid = before - await owner.registry.chain.balance(owner.address)
    live_net.clock.advance(600_001)
    await live_net.faucet("0x" + "77" * 32, 1)  # a checkpoint, which shows the time

    async def over() -> bool:
        found = master.store.requests.get(number)
        return found is not None and found.state == "timed_out"

    await until(over)
    assert before - await owner.registry.chain.balance(owner.address) == paid - 10**6
    print(
        "gas of a time-out, MIST:",
        masters - await master.chain.balance(master.chain.address),
        file=sys.__stderr__,
    )
    (worker,) = await owner.registry.workers()
    assert (worker.workload, worker.reputation) == (0, 100)
