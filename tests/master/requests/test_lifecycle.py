"""A request from the chain to its result, and every way in which it goes no further."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from request_fakes import (
    OTHER,
    OWNER,
    WINDOW_MS,
    Call,
    abort,
    apply,
    configmap,
    failure,
    job,
)
from starlette.responses import JSONResponse, Response

from k3s_daas.chain import ChainUnreachable, InsufficientGas, OutcomeUnknown
from k3s_daas.registry import WorkerStatus
from k3s_daas.requests.schema import encode
from k3s_daas.tenancy import tenant_namespace

NAMESPACE = tenant_namespace(OWNER)
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


async def test_a_configmap_is_applied_as_its_owner_and_its_hash_is_on_chain(bench: Any, owner: Any) -> None:
    raw = apply(configmap(greeting="hello"), "configmaps")
    done = await owner.served(raw)
    assert (done["status"], done["error"]) == ("succeeded", None), done
    assert bench.chain.book.ended[1] == ("completed", bytes.fromhex(done["result_hash"]))
    result = done["result"]
    assert (result["outcome"], result["request_id"], result["node_id"]) == ("succeeded", 1, "worker-1")
    assert result["object"]["data"] == {"greeting": "hello"}
    assert "managedFields" not in result["object"]["metadata"]
    made = bench.kube.owners.get("configmaps", "web")
    assert made["metadata"]["labels"] == {"k3s-daas/request": "1"}
    assert made["metadata"]["managedFields"] == [{"manager": "k3s-daas-request-1", "operation": "Apply"}]
    # Every call was the owner's: user, groups, namespace. The rehearsal and the look change nothing.
    calls = bench.kube.owners.calls
    assert {(call.user, tuple(call.groups)) for call in calls} == {(OWNER, ("k3s-daas:owners",))}
    assert [(call.method, call.path, call.dry) for call in calls] == [
        ("PATCH", f"{MAPS}/web", True),
        ("GET", f"{MAPS}/web", False),
        ("PATCH", f"{MAPS}/web", False),
    ]
    assert not [path for _, path in bench.kube.requests if "owner-" in path], "nothing of it as the master"
    assert bench.chain.book.log == [("claimed", 1), ("effect", f"{MAPS}/web"), ("completed", 1)]


@pytest.mark.parametrize(
    ("fields", "key", "wanted"),
    [
        ({"method": "get", "resource": "configmaps", "name": "here"}, "object", {"a": "b"}),
        ({"method": "list", "resource": "configmaps"}, "items", [{"a": "b"}]),
        ({"method": "logs", "resource": "pods", "name": "p"}, "log", "one\ntwo\n"),
        ({"method": "delete", "resource": "configmaps", "name": "here"}, None, None),
        ({"method": "scale", "resource": "deployments", "name": "d", "replicas": 3}, "object", None),
    ],
)
async def test_every_method(
    bench: Any, owner: Any, fields: dict[str, Any], key: str | None, wanted: Any
) -> None:
    kube = bench.kube.owners
    kube.put("configmaps", "here", data={"a": "b"})
    kube.put("configmaps", "foreign", owner=OTHER, data={"not": "yours"})
    kube.put("deployments", "d", spec={"replicas": 1})
    done = await owner.served(encode(**fields))
    assert done["status"] == "succeeded", done
    result = done["result"]
    if fields["method"] == "get":
        assert result["object"]["data"] == wanted
    elif fields["method"] == "list":
        assert [item["data"] for item in result["items"]] == wanted
    elif fields["method"] == "logs":
        assert result["log"] == wanted
    elif fields["method"] == "delete":
        assert kube.get("configmaps", "here") is None
        (call,) = kube.wrote()
        assert call.body["preconditions"] == {"uid": "uid-1"}
    else:
        assert kube.get("deployments", "d")["spec"]["replicas"] == 3
        assert kube.effects == [
            ("scale", "k3s-daas-request-1", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/d/scale")
        ]
    assert (key is None) or key in result


async def test_pods_go_to_the_worker_that_the_contract_picked(bench: Any, owner: Any) -> None:
    await owner.served(apply(job(), "jobs"))
    made = bench.kube.owners.get("jobs", "once")
    spec = made["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": "worker-1"}
    assert spec["automountServiceAccountToken"] is False
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {"selector": {}, "template": {"spec": {"containers": []}}},
    }
    assert (await owner.served(apply(deployment, "deployments")))["status"] == "succeeded"
    spec = bench.kube.owners.get("deployments", "web")["spec"]["template"]["spec"]
    assert "nodeSelector" not in spec, "it outlives its worker"
    key = "preferredDuringSchedulingIgnoredDuringExecution"
    (term,) = spec["affinity"]["nodeAffinity"][key]
    assert term["weight"] == 100
    assert term["preference"]["matchExpressions"][0]["values"] == ["worker-1"]


async def test_what_the_cluster_would_refuse_is_never_claimed(bench: Any, owner: Any) -> None:
    def quota(call: Call) -> Response | None:
        return failure(403, "Forbidden", "exceeded quota: pods") if call.method == "PATCH" else None

    bench.kube.owners.intercept = quota
    raw = apply(configmap(), "configmaps")
    done = await owner.served(raw)
    assert (done["status"], done["result"]) == ("refused", None)
    assert done["error"] == {"code": "Forbidden", "message": "exceeded quota: pods"}
    assert bench.chain.book.log == []
    # Posted again, it is tried again.
    bench.kube.owners.intercept = lambda call: None
    assert (await owner.post(1, raw)).status_code == 202
    await bench.state.requests.sweep()
    assert await owner.status(1) == "succeeded"


async def test_what_the_cluster_refuses_after_the_claim_completes_as_failed(bench: Any, owner: Any) -> None:
    done = await owner.served(encode(method="get", resource="pods", name="nobody"))
    assert (done["status"], done["error"]["code"]) == ("failed", "NotFound")
    assert done["result"]["outcome"] == "failed"
    assert bench.chain.book.ended[1][0] == "completed"
    rows = (await bench.api.get("/api/v1/workers")).json()["workers"]
    assert (rows[0]["requests_succeeded"], rows[0]["requests_failed"]) == (0, 1)


async def test_nobody_else_sees_or_serves_it(bench: Any, owner: Any) -> None:
    raw = apply(configmap(), "configmaps")
    number = await owner.ask(raw)
    await bench.join("worker-2", OTHER)
    other = type(owner)(bench, bench.chain.mint("", OTHER), OTHER)
    worker = type(owner)(bench, bench.chain.mint("worker-1", OWNER))
    await bench.catch_up()
    unknown = await other.get(99)
    assert bench.refusal(unknown) == (404, "request_unknown")
    for answer in (await other.get(number), await other.post(number, raw)):
        assert bench.refusal(answer) == (404, "request_unknown")
        assert answer.json() == json.loads(unknown.text.replace("99", str(number)))
    assert await other.all() == []
    assert [one["request_id"] for one in await owner.all()] == [number]
    assert "result" not in (await owner.all())[0]
    for answer in (await worker.get(number), await type(owner)(bench, "seal_" + "A" * 43).get(number)):
        assert bench.refusal(answer) == (401, "token_unknown")
    assert bench.refusal(await type(owner)(bench, "x").get(number)) == (400, "token_malformed")
    assert bench.refusal(await bench.api.get("/api/v1/requests")) == (400, "token_malformed")
    bench.chain.revoke("", OWNER)
    await bench.catch_up()
    assert bench.refusal(await owner.get(number)) == (401, "token_revoked")


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 30, "%00", "1e3", "²"])
async def test_numbers_that_are_none(bench: Any, owner: Any, number: str) -> None:
    assert bench.refusal(await owner.get(number)) == (400, "bad_request")


async def test_bodies_that_are_not_the_one(bench: Any, owner: Any) -> None:
    raw = apply(configmap(), "configmaps")
    number = bench.chain.book.submit(raw)
    await bench.catch_up()
    assert bench.refusal(await owner.post(number, raw + b" ")) == (422, "payload_mismatch")
    assert bench.refusal(await owner.post(number, b"")) == (422, "payload_mismatch")
    assert bench.refusal(await owner.post(number, b"x" * 70_000)) == (413, "body_too_large")
    assert await owner.status(number) == "scheduled"
    assert (await owner.post(number, raw)).status_code == 202
    assert (await owner.post(number, raw)).status_code == 202, "a second time changes nothing"
    await bench.state.requests.sweep()
    assert bench.refusal(await owner.post(number, raw)) == (409, "request_over")
    assert len(bench.kube.owners.effects) == 1


async def test_a_body_that_comes_too_late_is_not_taken(bench: Any, owner: Any) -> None:
    raw = apply(configmap(), "configmaps")
    number = bench.chain.book.submit(raw)
    bench.clock.advance(WINDOW_MS / 1000 - 60)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert bench.refusal(await owner.post(number, raw)) == (410, "request_expired")
    await bench.state.requests.sweep()
    assert bench.chain.book.log == []
    bench.clock.advance(60)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.requests.sweep()
    await bench.catch_up()
    assert bench.chain.book.log == [("timed out", number)]
    assert await owner.status(number) == "timed_out"


async def test_a_request_missed_while_nobody_followed_is_found(bench: Any, owner: Any) -> None:
    raw = apply(configmap(), "configmaps")
    number = bench.chain.book.submit(raw, seen=False)
    assert bench.refusal(await owner.get(number)) == (404, "request_unknown")
    await bench.restart()
    await bench.state.requests.sweep()
    assert await owner.status(number) == "scheduled"
    assert (await owner.post(number, raw)).status_code == 202
    await bench.state.requests.sweep()
    assert await owner.status(number) == "succeeded"


async def test_a_claim_of_another_master_is_not_executed(bench: Any, owner: Any) -> None:
    raw = apply(job(), "jobs")
    number = await owner.ask(raw)
    await bench.chain.book.claim_request(number)
    await bench.catch_up()
    await bench.state.requests.sweep()
    assert await owner.status(number) == "abandoned"
    # And one that was faster than its event.
    second = await owner.ask(apply(job("two"), "jobs"))
    bench.chain.book.refuse = lambda call, _: abort("ERequestClaimed") if call == "claim" else None
    await bench.state.requests.sweep()
    assert await owner.status(second) == "abandoned"
    assert bench.kube.owners.effects == []


async def test_a_claim_whose_answer_was_lost_is_found(bench: Any, owner: Any) -> None:
    number = await owner.ask(apply(configmap(), "configmaps"))
    claim = bench.chain.book.claim_request

    async def lost(request_id: int) -> Any:
        await claim(request_id)
        raise OutcomeUnknown("digest", {"url": "timed out"})

    bench.chain.claim_request = lost
    await bench.state.requests.sweep()
    assert await owner.status(number) == "claiming"
    bench.clock.advance(2)
    await bench.state.requests.sweep()
    assert await owner.status(number) == "succeeded"
    assert bench.chain.book.log[0] == ("claimed", number)
    # The same, but there was another master in between: it may be that one's claim.
    second = await owner.ask(apply(configmap("two"), "configmaps"))
    await bench.state.requests.sweep()
    bench.state.index.master = type(bench.chain.master)(2, bench.address, "", "", b"", 0)
    bench.clock.advance(2)
    await bench.state.requests.sweep()
    assert await owner.status(second) == "abandoned"
    assert bench.kube.owners.get("configmaps", "two") is None


async def test_nothing_is_claimed_or_run_on_a_stale_view(bench: Any, owner: Any) -> None:
    number = await owner.ask(apply(configmap(), "configmaps"))
    bench.clock.advance(61)
    await bench.state.requests.sweep()
    assert (bench.chain.book.log, bench.kube.owners.calls) == ([], [])
    refused = await owner.post(number, apply(configmap(), "configmaps"))
    assert bench.refusal(refused) == (503, "not_ready")
    assert (await owner.get(number)).status_code == 200, "reading goes on"
    bench.clock.advance(900)
    assert bench.refusal(await owner.get(number)) == (503, "not_ready")


@pytest.mark.parametrize("who", ["owner", "worker", "master"])
async def test_nothing_is_claimed_for_or_by_who_is_out(bench: Any, owner: Any, who: str) -> None:
    """The owner was slashed, the picked worker is jailed, or somebody else is the master now."""
    if who == "worker":
        await bench.join("worker-9", OTHER)
    number = await owner.ask(
        apply(configmap(), "configmaps"), node_id="worker-9" if who == "worker" else "worker-1"
    )
    if who == "owner":
        bench.chain.slash("worker-1")
    elif who == "worker":
        bench.chain.set_status("worker-9", WorkerStatus.JAILED)
    else:
        bench.state.index.master = type(bench.chain.master)(2, OTHER, "", "", b"", 0)
    await bench.catch_up()
    await bench.state.requests.sweep()
    assert ("claimed", number) not in bench.chain.book.log
    assert bench.kube.owners.wrote() == []


async def test_an_owner_slashed_after_the_claim_has_nothing_run(bench: Any, owner: Any) -> None:
    await bench.join("worker-9", OTHER)
    number = await owner.ask(apply(configmap(), "configmaps"), node_id="worker-9")

    def slash(call: Call) -> None:
        if call.method == "GET":
            bench.chain.slash("worker-1")
            for batch in bench.chain.log[-1:]:
                bench.state.follower.take(batch, 0)

    bench.kube.owners.intercept = slash
    await bench.state.requests.sweep()
    assert bench.kube.owners.effects == []
    assert bench.chain.book.ended[number][0] == "completed"
    row = bench.state.store.requests.get(number)
    assert (row.state, row.error["code"]) == ("failed", "owner_not_eligible")


async def test_a_slashed_worker_earns_nothing_and_the_deposit_comes_back(bench: Any, owner: Any) -> None:
    await bench.join("worker-9", OTHER)
    number = await owner.ask(apply(configmap(), "configmaps"), node_id="worker-9")
    book = bench.chain.book
    book.refuse = lambda call, _: abort("EWorkerSlashed") if call == "complete" else None
    await bench.state.requests.sweep()
    assert await owner.status(number) == "executed"
    bench.clock.advance(WINDOW_MS / 1000)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.requests.sweep()
    await bench.catch_up()
    assert book.log[-1] == ("timed out", number)
    answer = (await owner.get(number)).json()
    assert answer["status"] == "timed_out"
    assert json.loads(answer["result"])["outcome"] == "succeeded", "what it did is still told"
    assert len(bench.kube.owners.effects) == 1
    assert bench.state.store.requests.stats()["worker-9"].missed == 1


@pytest.mark.parametrize(
    "error", [ChainUnreachable({}), InsufficientGas(0, 1, OWNER), OutcomeUnknown("d", {})]
)
async def test_a_chain_that_fails_is_tried_again(bench: Any, owner: Any, error: Exception) -> None:
    number = await owner.ask(apply(configmap(), "configmaps"))
    book = bench.chain.book
    for call in ("claim", "complete"):
        book.refuse = lambda asked, _, call=call: error if asked == call else None
        await bench.state.requests.sweep()
        await bench.state.requests.sweep()  # not yet
        book.refuse = lambda asked, _: None
        bench.clock.advance(20)
        bench.chain.checkpoint()
        await bench.catch_up()
    await bench.state.requests.sweep()
    assert await owner.status(number) == "succeeded"
    assert len(bench.kube.owners.effects) == 1


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_what_is_wrong_with_the_master_itself_is_no_result(bench: Any, owner: Any, status: int) -> None:
    """Its own identity may not impersonate, or it asks too much: nothing of the owner's."""
    number = await owner.ask(encode(method="list", resource="pods"))
    text = 'users "0x0a" is forbidden: User "k3s-daas-master" cannot impersonate resource "users"'
    bench.kube.owners.intercept = lambda call: failure(status, "Forbidden", text)
    await bench.state.requests.sweep()
    assert await owner.status(number) == "claimed"
    bench.kube.owners.intercept = lambda call: None
    bench.clock.advance(2)
    await bench.state.requests.sweep()
    assert await owner.status(number) == "succeeded"


async def test_results_are_cut_to_what_is_kept(bench: Any, owner: Any) -> None:
    for number in range(40):
        bench.kube.owners.put("configmaps", f"m{number:02}", data={"x": "y" * 10_000})
    done = await owner.served(encode(method="list", resource="configmaps"))
    assert done["result"]["truncated"]
    assert 20 < len(done["result"]["items"]) < 40
    bench.kube.owners.put("configmaps", "large", data={"x": "y" * 300_000})
    done = await owner.served(encode(method="get", resource="configmaps", name="large"))
    assert (done["status"], done["result"]["truncated"]) == ("succeeded", True)
    assert "object" not in done["result"]
    endless = JSONResponse({"data": "z" * 3_000_000})
    bench.kube.owners.intercept = lambda call: endless
    done = await owner.served(encode(method="get", resource="configmaps", name="m01"))
    assert (done["status"], done["result"]["truncated"]) == ("succeeded", True)


async def test_results_are_kept_for_a_while_and_the_largest_holder_goes_first(bench: Any, owner: Any) -> None:
    rows = bench.state.store.requests
    await bench.join("worker-2", OTHER)
    other = type(owner)(bench, bench.chain.mint("", OTHER), OTHER)
    bench.kube.owners.put("configmaps", "m", data={"x": "y" * 5_000})
    bench.kube.owners.put("configmaps", "m", owner=OTHER, data={"x": "y" * 5_000})
    await bench.catch_up()
    for nonce in range(3):
        assert (await owner.served(encode(method="get", resource="configmaps", name="m", nonce=str(nonce))))[
            "status"
        ] == "succeeded"
    await other.served(encode(method="get", resource="configmaps", name="m"))
    assert rows.prune(0, 17_000) == 1
    assert bench.refusal(await owner.get(1)) == (404, "request_unknown")
    assert (await owner.get(2)).status_code == (await other.get(4)).status_code == 200
    bench.clock.advance(8 * 86_400)
    await bench.state.requests.sweep()
    assert rows.get(4) is None


async def test_the_workers_figures(bench: Any, owner: Any) -> None:
    number = await owner.ask(encode(method="list", resource="pods"))
    bench.clock.advance(2)
    await bench.state.requests.sweep()
    assert await owner.status(number) == "succeeded"
    (row,) = (await bench.api.get("/api/v1/workers")).json()["workers"]
    assert (row["requests_succeeded"], row["requests_missed"], row["request_mean_ms"]) == (1, 0, 2000)
    text = (await bench.api.get("/metrics")).text
    assert 'k3s_daas_requests_total{node_id="worker-1",outcome="succeeded"} 1.0' in text
    assert 'k3s_daas_request_seconds_sum{node_id="worker-1"} 2.0' in text
    assert 'k3s_daas_requests_open{status="scheduled"} 0.0' in text
    assert 'k3s_daas_request_calls_total{outcome="ok"}' in text


async def test_another_registrys_rows_are_not_taken_for_ours(bench: Any, owner: Any) -> None:
    """The state directory was used with another registry before: the same number, another request."""
    await owner.served(encode(method="list", resource="pods"))
    book = bench.chain.book
    book.last_id = 0
    raw = encode(method="list", resource="jobs")
    bench.clock.advance(1)
    number = await owner.ask(raw)
    assert number == 1
    await bench.state.requests.sweep()
    answer = (await owner.get(number)).json()
    assert (answer["status"], answer["resource"]) == ("succeeded", "jobs")
    assert answer["payload_hash"] == hashlib.sha256(raw).hexdigest()
