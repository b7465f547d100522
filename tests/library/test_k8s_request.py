"""sui_k8s_request: submitted once, to the best worker, with the deposit it costs; served, with its result."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from k3s_daas import seal
from k3s_daas.registry import Registry, WorkerStatus
from k3s_daas.registry.requests import candidates_of
from k3s_daas.requests.schema import encode
from k3s_daas.tenancy import tenant_namespace

sys.path.insert(0, str(Path(__file__).parents[1] / "master" / "requests"))
from live_master import LiveMaster, live_master

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
DAY_MS = 86_400_000
ASKED = {"method": "list", "resource": "pods", "deposit": "0.01"}


def worker(node_id: str) -> dict[str, str]:
    return {"node_id": node_id, "commitment": hashlib.sha256(node_id.encode()).hexdigest()}


def configmap(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": data}


@pytest.fixture
def working(fleet: Any, new_wallet: Any) -> Any:
    """`await working(*node ids)`: the fleet with these workers active, and its master's Registry."""

    async def make(*node_ids: str) -> tuple[Any, Registry]:
        assert not (await fleet("sui_stake", workers=[worker(name) for name in node_ids]))["failed"]
        master = await new_wallet()
        await fleet("sui_master", account=master.address, gas="0")
        of_master = Registry(master, fleet.registry.deployment)
        await of_master.set_statuses(dict.fromkeys(node_ids, WorkerStatus.ACTIVE))
        return fleet, of_master

    return make


@pytest_asyncio.fixture(loop_scope="session")
async def served(working: Any, live_net: Any, tmp_path: Path) -> AsyncIterator[tuple[Any, LiveMaster, Path]]:
    """(the owner's fleet, its running master, the owner's token file)."""
    fleet, of_master = await working("a")
    token, path = seal.make(), tmp_path / "owner.seal"
    path.touch(0o600)
    path.write_text(token + "\n")
    expires = await fleet.registry.clock_ms() + 90 * DAY_MS
    await fleet.registry.create_owner_token(seal.commitment(token), expires)
    (tmp_path / "master").mkdir()
    async with live_master(tmp_path / "master", fleet.registry, of_master.chain, live_net.url) as master:
        await of_master.set_statuses({"a": WorkerStatus.BUSY})
        await of_master.set_statuses({"a": WorkerStatus.ACTIVE})
        yield fleet, master, path


async def test_an_owner_has_something_applied_and_gets_its_result(served: Any) -> None:
    fleet, master, token = served
    asked = {
        "method": "apply",
        "resource": "configmaps",
        "manifest": configmap(greeting="hello"),
        "deposit": "0.01",
        "token_file": str(token),
    }
    planned = await fleet("sui_k8s_request", check=True, **asked)
    assert (planned["changed"], planned["digests"], "result" in planned) == (True, [], False), planned
    assert master.kube.calls == [], "check mode asks for nothing"
    assert await fleet.registry.open_requests() == []
    done = await fleet("sui_k8s_request", **asked)
    assert not done["failed"], done
    owner = fleet.chain.address
    made = master.kube.get("configmaps", "web", owner)
    assert made is not None
    assert made["data"] == {"greeting": "hello"}
    assert done["result"]["object"]["data"] == {"greeting": "hello"}
    assert done["result"]["namespace"] == tenant_namespace(owner)
    assert (done["status"]["status"], done["status"]["node_id"]) == ("succeeded", "a")
    assert {call.user for call in master.kube.calls} == {owner}
    assert token.read_text().strip() not in json.dumps(done)
    (a,) = await fleet.registry.workers()
    assert (a.rewards_mist, a.workload) == (SUI // 100, 0), "the worker has earned the deposit"
    assert await fleet.registry.open_requests() == []


async def test_what_comes_to_nothing_fails_and_says_why(served: Any, tmp_path: Path) -> None:
    fleet, master, token = served
    asked = {"method": "get", "resource": "pods", "name": "nobody", "deposit": "0.01"}
    result = await fleet("sui_k8s_request", token_file=str(token), **asked)
    assert "found status failed, wanted succeeded. NotFound" in result["msg"]
    before = await fleet.sent()
    stranger = tmp_path / "stranger.seal"
    stranger.touch(0o600)
    stranger.write_text("short")
    result = await fleet("sui_k8s_request", token_file=str(stranger), **asked)
    assert "seal token has 5 characters" in result["msg"]
    stranger.chmod(0o644)
    result = await fleet("sui_k8s_request", token_file=str(stranger), **asked)
    assert "mode 0644" in result["msg"]
    result = await fleet("sui_k8s_request", token_file=str(tmp_path / "none"), **asked)
    assert "No such file" in result["msg"]
    assert await fleet.sent() == before
    await master.registry.appoint_master(master.chain.address, 0)  # another term: nothing is announced yet
    result = await fleet("sui_k8s_request", token_file=str(token), **asked)
    assert "wanted an https:// address" in result["msg"]
    assert await fleet.registry.open_requests() == []


async def test_a_request_is_submitted_once_while_it_is_open(working: Any) -> None:
    fleet, _ = await working("a", "b")
    assert await fleet.registry.open_requests() == []
    planned = await fleet("sui_k8s_request", check=True, **ASKED)
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert planned["request"]["node_id"] == "a"
    assert planned["candidates"] == ["a", "b"]
    text = " ".join(planned["preview"]["summary"])
    assert "deposit of 0.01 SUI is the worker's once the request is completed" in text
    assert "within 10 min" in text
    assert await fleet.registry.open_requests() == []
    done = await fleet("sui_k8s_request", **ASKED)
    assert (done["request"]["request_id"], done["request"]["node_id"]) == (1, "a")
    assert done["body"] == encode(method="list", resource="pods").decode()
    assert done["request"]["payload_hash"] == hashlib.sha256(done["body"].encode()).hexdigest()
    paid = planned["preview"]["balance_before_mist"] - await fleet.chain.balance(fleet.chain.address)
    assert paid == SUI // 100 + done["gas_mist"]
    (request,) = await fleet.registry.open_requests()
    assert request == await fleet.registry.open_request(1)
    assert await fleet.registry.open_request(2) is None
    assert (request.node_id, request.deposit_mist, request.priority) == ("a", SUI // 100, 5)
    before = await fleet.sent()
    again = await fleet("sui_k8s_request", **ASKED)
    assert (again["changed"], again["request"]["request_id"]) == (False, 1)
    assert await fleet.sent() == before
    other = await fleet("sui_k8s_request", nonce="2", **ASKED)
    assert (other["request"]["request_id"], other["request"]["node_id"]) == (2, "b")  # a has work now


async def test_the_best_candidates_are_those_of_the_contract(working: Any) -> None:
    fleet, master = await working("a", "b", "c", "d")
    await master.set_statuses({"c": WorkerStatus.BUSY, "d": WorkerStatus.OFFLINE})
    workers = await fleet.registry.workers()
    assert candidates_of(workers, 5) == ["a", "b"]
    assert candidates_of(workers, 8) == ["a", "b", "c"]
    named = await fleet("sui_k8s_request", nonce="x", candidates=["b"], **ASKED)
    assert named["request"]["node_id"] == "b"
    assert candidates_of(await fleet.registry.workers(), 5) == ["a", "b"]
    urgent = await fleet("sui_k8s_request", nonce="y", candidates=["c"], priority=8, **ASKED)
    assert urgent["request"]["node_id"] == "c"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"deposit": "0.0009"}, "wanted at least 0.001 SUI"),
        ({"deposit": "much"}, "wanted an amount"),
        ({"priority": 11}, "wanted 0 to 10"),
        ({"candidates": []}, "wanted 1 to 32"),
        ({"candidates": ["A"]}, "RFC 1123"),
        ({"candidates": [f"w{i}" for i in range(33)]}, "wanted 1 to 32"),
        ({"candidates": ["nobody"]}, "ENoAvailableWorkers"),
        ({"method": None}, "missing required arguments: method"),
        ({"method": "exec"}, "value of method must be one of"),
        ({"resource": "secrets"}, "resource 'secrets'"),
        ({"name": "p"}, "list with a name"),
        ({"method": "apply", "manifest": {"kind": "Secret"}, "name": "x"}, "kind 'Secret'"),
        ({"deposit": "1000"}, "Send at least"),
        ({"registry_id": ""}, "Only check mode plans"),
    ],
)
async def test_refuses_before_anything_is_sent(working: Any, arguments: dict[str, Any], wrong: str) -> None:
    fleet, _ = await working("a")
    before = await fleet.sent()
    result = await fleet("sui_k8s_request", **ASKED | arguments)
    assert result["failed"]
    assert wrong in result["msg"] + str(result.get("abort_name"))
    assert await fleet.sent() == before


async def test_only_owners_with_a_worker_in_service_ask_and_only_who_can_is_asked(
    working: Any, new_operator: Any
) -> None:
    fleet, master = await working("a")
    stranger = await new_operator()
    stranger.ids = fleet.ids
    assert "Found no staked worker of" in (await stranger("sui_k8s_request", **ASKED))["msg"]
    await master.set_statuses({"a": WorkerStatus.OFFLINE})
    assert "Found none of 1 workers active" in (await fleet("sui_k8s_request", **ASKED))["msg"]
    await fleet.registry.propose_slash("a", 4, bytes(32))
    assert "Found no staked worker of" in (await fleet("sui_k8s_request", **ASKED))["msg"]
    stranger.ids = {"package_id": "", "registry_id": ""}
    result = await stranger("sui_k8s_request", check=True, **ASKED)
    assert "would only be created by this run" in result["msg"]


async def test_each_own_worker_lets_an_owner_have_ten_open_requests(working: Any, new_operator: Any) -> None:
    fleet, _ = await working("a", "b", "c")
    asker = await new_operator()
    asker.ids = fleet.ids
    await asker("sui_stake", workers=[worker("mine-1")])
    proof = (await asker.registry.worker("mine-1")).proof_id

    async def nine(tx: Any) -> None:
        for number, deposit in enumerate(tx.split([SUI // 1000] * 9)):
            payload, names = tx.data(bytes([number] * 32)), tx.strings(["a", "b", "c"])
            clock = tx.object("0x6", mutable=False)
            args = tx.object(proof), deposit, payload, tx.u8(5), names, clock
            asker.registry.call(tx, "k8s_scheduler::submit_k8s_request", *args)

    await asker.chain.execute(nine)
    assert (await asker("sui_k8s_request", nonce="tenth", **ASKED))["changed"]
    before = await asker.sent()
    refused = await asker("sui_k8s_request", nonce="eleventh", **ASKED)
    assert "Found 10 open requests for each of the 1 workers that" in refused["msg"]
    assert not (await asker("sui_k8s_request", nonce="tenth", **ASKED))["changed"]  # it is open
    assert await asker.sent() == before
    await asker("sui_stake", workers=[worker("mine-1"), worker("mine-2")])
    assert (await asker("sui_k8s_request", nonce="eleventh", **ASKED))["changed"]
    second = (await asker.registry.worker("mine-2")).proof_id
    assert [request.proof_id for request in await asker.registry.open_requests()] == [proof] * 10 + [second]
