"""sui_k8s_request: submitted once, to the best worker, with the deposit it costs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from k3s_daas.registry import Registry, WorkerStatus
from k3s_daas.registry.requests import candidates_of, open_requests

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000


def worker(node_id: str) -> dict[str, str]:
    return {"node_id": node_id, "commitment": hashlib.sha256(node_id.encode()).hexdigest()}


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


async def test_a_request_is_submitted_once_while_it_is_open(working: Any) -> None:
    fleet, _ = await working("a", "b")
    assert await open_requests(fleet.registry) == []
    asked = {"payload": "kind: Job", "deposit": "0.01"}
    planned = await fleet("sui_k8s_request", check=True, **asked)
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert planned["request"]["node_id"] == "a"
    assert planned["candidates"] == ["a", "b"]
    text = " ".join(planned["preview"]["summary"])
    assert "deposit of 0.01 SUI is the worker's once the request is completed" in text
    assert "within 10 min" in text
    assert await open_requests(fleet.registry) == []
    done = await fleet("sui_k8s_request", **asked)
    assert (done["request"]["request_id"], done["request"]["node_id"]) == (1, "a")
    assert done["payload_hash"] == hashlib.sha256(b"kind: Job").hexdigest()
    paid = planned["preview"]["balance_before_mist"] - await fleet.chain.balance(fleet.chain.address)
    assert paid == SUI // 100 + done["gas_mist"]
    (request,) = await open_requests(fleet.registry)
    assert (request.node_id, request.deposit_mist, request.priority) == ("a", SUI // 100, 5)
    before = await fleet.sent()
    for same in (asked, {"payload_hash": done["payload_hash"], "deposit": "0.01"}):
        again = await fleet("sui_k8s_request", **same)
        assert (again["changed"], again["request"]["request_id"]) == (False, 1)
    assert await fleet.sent() == before
    other = await fleet("sui_k8s_request", payload="kind: Pod", deposit="0.01")
    assert (other["request"]["request_id"], other["request"]["node_id"]) == (2, "b")  # a has work now


async def test_the_best_candidates_are_those_of_the_contract(working: Any) -> None:
    fleet, master = await working("a", "b", "c", "d")
    await master.set_statuses({"c": WorkerStatus.BUSY, "d": WorkerStatus.OFFLINE})
    workers = await fleet.registry.workers()
    assert candidates_of(workers, 5) == ["a", "b"]
    assert candidates_of(workers, 8) == ["a", "b", "c"]
    named = await fleet("sui_k8s_request", payload="x", deposit="0.01", candidates=["b"])
    assert named["request"]["node_id"] == "b"
    assert candidates_of(await fleet.registry.workers(), 5) == ["a", "b"]
    urgent = await fleet("sui_k8s_request", payload="y", deposit="0.01", candidates=["c"], priority=8)
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
        ({"payload": None, "payload_hash": "ab"}, "64 hex digits"),
        ({"payload": None}, "one of the following is required"),
        ({"payload_hash": "ab" * 32}, "mutually exclusive"),
        ({"deposit": "1000"}, "Send at least"),
        ({"registry_id": ""}, "Only check mode plans"),
    ],
)
async def test_refuses_before_anything_is_sent(working: Any, arguments: dict[str, Any], wrong: str) -> None:
    fleet, _ = await working("a")
    before = await fleet.sent()
    result = await fleet("sui_k8s_request", **{"payload": "x", "deposit": "0.01"} | arguments)
    assert result["failed"]
    assert wrong in result["msg"] + str(result.get("abort_name"))
    assert await fleet.sent() == before


async def test_only_owners_with_a_worker_in_service_ask_and_only_who_can_is_asked(
    working: Any, new_operator: Any
) -> None:
    fleet, master = await working("a")
    stranger = await new_operator()
    stranger.ids = fleet.ids
    asked = {"payload": "x", "deposit": "0.01"}
    assert "Found no staked worker of" in (await stranger("sui_k8s_request", **asked))["msg"]
    await master.set_statuses({"a": WorkerStatus.OFFLINE})
    assert "Found none of 1 workers active" in (await fleet("sui_k8s_request", **asked))["msg"]
    await fleet.registry.propose_slash("a", 4, bytes(32))
    assert "Found no staked worker of" in (await fleet("sui_k8s_request", **asked))["msg"]
    stranger.ids = {"package_id": "", "registry_id": ""}
    result = await stranger("sui_k8s_request", check=True, **asked)
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
    assert (await asker("sui_k8s_request", payload="tenth", deposit="0.001"))["changed"]
    before = await asker.sent()
    refused = await asker("sui_k8s_request", payload="eleventh", deposit="0.001")
    assert "Found 10 open requests for each of the 1 workers that" in refused["msg"]
    assert not (await asker("sui_k8s_request", payload="tenth", deposit="0.001"))["changed"]  # it is open
    assert await asker.sent() == before
    await asker("sui_stake", workers=[worker("mine-1"), worker("mine-2")])
    assert (await asker("sui_k8s_request", payload="eleventh", deposit="0.001"))["changed"]
    second = (await asker.registry.worker("mine-2")).proof_id
    assert [request.proof_id for request in await open_requests(asker.registry)] == [proof] * 10 + [second]
