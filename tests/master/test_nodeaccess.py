"""What the API server hears about a node: who is out, whose certificate is whose, and what nobody claims."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.certificates import Certificates
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.store import Store

ONE, OTHER, THIRD = "1" * 64, "2" * 64, "3" * 64
PODS = {"verb": "list", "resource": "pods", "version": "v1"}


def review_of(user: str, sha256: str | None = None, **attributes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"user": user, "groups": ["system:authenticated"], **attributes}
    if sha256 is not None:
        spec["extra"] = {"authentication.kubernetes.io/credential-id": [f"X509SHA256={sha256}"]}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


async def asked(bench: Any, user: str, sha256: str | None = None, **attributes: Any) -> str | None:
    """Why the user is refused; None when the master has no opinion."""
    body = review_of(user, sha256, **(attributes or {"resourceAttributes": PODS}))
    answer = await bench.webhook.post("/node-access", json=body)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["apiVersion"], said["kind"]) == (body["apiVersion"], body["kind"])
    status = said["status"]
    # It never allows anything: what isn't refused goes by the API server's own rules.
    assert status["allowed"] is False
    assert set(status) in ({"allowed"}, {"allowed", "denied", "reason"})
    return str(status["reason"]) if status.get("denied") else None


async def test_only_registered_workers_are_nodes(bench: Any) -> None:
    await bench.join("worker-1")
    assert await asked(bench, "system:node:worker-1") is None
    assert await asked(bench, "system:node:worker-2") == "worker-2 is no registered worker"
    assert await asked(bench, "system:node:") == " is no registered worker"


@pytest.mark.parametrize("user", ["k3s-daas:master", "system:admin", "0x" + "a" * 64, "system:nodes", ""])
async def test_of_others_it_has_no_opinion(bench: Any, user: str) -> None:
    assert await asked(bench, user) is None


async def test_a_slashed_node_is_out_at_once_and_for_good(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert await asked(bench, "system:node:worker-1") == "worker-1 is slashed"
    await bench.restart()
    assert await asked(bench, "system:node:worker-1") == "worker-1 is slashed"


async def test_while_nothing_is_known_only_the_removed_are_out(bench: Any) -> None:
    await bench.join("worker-1")
    bench.state.index.loaded = False
    for node_id in ("worker-1", "worker-9"):
        assert await asked(bench, f"system:node:{node_id}") is None
    assert await asked(bench, "system:kube-proxy", ONE) is None
    bench.state.store.request_removal("worker-1", 1)
    assert await asked(bench, "system:node:worker-1") is None
    bench.state.store.finish_removal("worker-1", 2)
    assert await asked(bench, "system:node:worker-1") == "worker-1 was removed"


@pytest.mark.parametrize("user", ["system:kube-proxy", "system:k3s-controller"])
async def test_a_certificate_that_all_nodes_share_is_good_once_it_is_claimed(bench: Any, user: str) -> None:
    token = await bench.join("worker-1")
    refusal = f"no worker of the fleet says that this certificate of {user} is its own"
    assert await asked(bench, user, ONE) == refusal
    bench.clock.advance(1)
    assert (await bench.beat(token, "worker-1", certificates=[ONE, OTHER])).status_code == 200
    assert await asked(bench, user, ONE) is None
    assert await asked(bench, user, OTHER) is None
    assert await asked(bench, user, THIRD) == refusal
    assert await asked(bench, user) == refusal
    # An agent that started anew has others, and the old ones are nobody's.
    bench.clock.advance(1)
    await bench.beat(token, "worker-1", certificates=[THIRD])
    assert await asked(bench, user, ONE) == refusal
    assert await asked(bench, user, THIRD) is None


async def test_claims_outlive_the_master(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    await bench.beat(token, "worker-1", certificates=[ONE])
    await bench.restart()
    assert await asked(bench, "system:kube-proxy", ONE) is None


async def test_claims_end_with_the_worker(bench: Any) -> None:
    token = await bench.join("worker-1")
    other = await bench.join("worker-2", bench.owner_b)
    bench.clock.advance(1)
    await bench.beat(token, "worker-1", certificates=[ONE, THIRD])
    await bench.beat(other, "worker-2", certificates=[OTHER, THIRD])
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert await asked(bench, "system:kube-proxy", ONE) is not None
    assert await asked(bench, "system:kube-proxy", OTHER) is None
    # Claimed by both: it is as good as the one that is left.
    assert await asked(bench, "system:kube-proxy", THIRD) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"nonResourceAttributes": {"path": "/readyz", "verb": "get"}},
        {"resourceAttributes": {"group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}},
        {
            "resourceAttributes": {
                "group": "discovery.k8s.io",
                "resource": "endpointslices",
                "namespace": "default",
                "verb": "watch",
            }
        },
    ],
)
async def test_what_k3s_waits_for_at_its_start_is_left_to_it(bench: Any, attributes: dict[str, Any]) -> None:
    """A server too, which has such a certificate and no watcher: it ends itself after 15 minutes without."""
    assert await asked(bench, "system:k3s-controller", ONE, **attributes) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"group": "discovery.k8s.io", "resource": "endpointslices"},
        {"group": "discovery.k8s.io", "resource": "endpointslices", "namespace": "kube-system"},
        {"group": "", "resource": "endpoints", "namespace": "default"},
    ],
)
async def test_and_no_more_than_that(bench: Any, attributes: dict[str, Any]) -> None:
    assert await asked(bench, "system:k3s-controller", ONE, resourceAttributes=attributes) is not None


@pytest.mark.parametrize(
    "certificates", [["x"], [ONE[:-1]], [ONE.replace("1", "A")], [ONE] * 5, ONE, [None], {"a": ONE}]
)
async def test_a_claim_that_is_none_is_refused(bench: Any, certificates: Any) -> None:
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    answer = await bench.beat(token, "worker-1", certificates=certificates)
    assert bench.refusal(answer) == (400, "bad_request")


async def test_a_node_that_leaves_may_work_until_it_is_gone_from_the_cluster(bench: Any) -> None:
    await bench.join("worker-1")
    bench.chain.set_status("worker-1", WorkerStatus.UNBONDING)
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    assert await asked(bench, "system:node:worker-1") is None
    del bench.kube.nodes["worker-1"]
    await bench.state.fleet.reconcile()
    assert await asked(bench, "system:node:worker-1") == "worker-1 has left"


async def test_connections_are_cut_once_when_a_node_has_left(bench: Any) -> None:
    request = bench.config.state_dir / "cut-connections"
    await bench.join("worker-1")
    await bench.join("worker-2", bench.owner_b)
    # One that an operator deletes comes back by itself, and is no reason.
    del bench.kube.nodes["worker-2"]
    await bench.state.fleet.reconcile()
    assert not request.exists()
    bench.chain.set_status("worker-1", WorkerStatus.UNBONDING)
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    assert not request.exists()
    del bench.kube.nodes["worker-1"]
    await bench.state.fleet.reconcile()
    assert json.loads(request.read_text())["because_removed"] == ["worker-1"]
    request.unlink()
    await bench.state.fleet.reconcile()
    assert not request.exists()


async def test_connections_are_cut_with_each_removal_of_a_slashed_node(bench: Any) -> None:
    request = bench.config.state_dir / "cut-connections"
    await bench.join("worker-1")
    bench.chain.slash("worker-1")
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.state.remover.sweep()
    assert json.loads(request.read_text())["because_removed"] == ["worker-1"]
    request.unlink()
    await bench.state.fleet.reconcile()
    await bench.state.remover.sweep()
    assert not request.exists()


async def test_a_cut_that_cant_be_asked_for_is_asked_for_again(bench: Any) -> None:
    await bench.join("worker-1")
    await bench.join("worker-2", bench.owner_b)
    bench.chain.slash("worker-1")
    bench.chain.set_status("worker-2", WorkerStatus.UNBONDING)
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    blocked = bench.config.state_dir / ".cut-connections"
    blocked.mkdir()
    await bench.state.remover.sweep()
    assert bench.state.store.open_removals() == ["worker-1"]
    del bench.kube.nodes["worker-2"]
    await bench.state.fleet.reconcile()
    assert "nodes" in bench.state.fleet.problems
    blocked.rmdir()
    request = bench.config.state_dir / "cut-connections"
    await bench.state.fleet.reconcile()
    assert json.loads(request.read_text())["because_removed"] == ["worker-2"]
    assert "nodes" not in bench.state.fleet.problems
    await bench.state.remover.sweep()
    assert json.loads(request.read_text())["because_removed"] == ["worker-1"]
    assert bench.state.store.open_removals() == []


async def test_the_list_of_nodes_has_who_may_be_one(bench: Any) -> None:
    assert bench.kube.node_list == []
    token = bench.chain.stake("worker-1", bench.owner_a)
    await bench.catch_up()
    # Before it gets its token, not at the next comparison.
    assert (await bench.register(token, "worker-1")).status_code == 200
    assert bench.kube.node_list == ["worker-1"]
    bench.chain.stake("worker-2", bench.owner_b)
    await bench.catch_up()
    bench.kube.node_list = ["somebody-elses"]
    await bench.state.fleet.reconcile()
    assert bench.kube.node_list == ["worker-1", "worker-2"]
    before = len(bench.kube.asked("PATCH"))
    await bench.state.fleet.reconcile()
    assert len(bench.kube.asked("PATCH")) == before
    bench.chain.slash("worker-1")
    bench.chain.set_status("worker-2", WorkerStatus.UNBONDING)
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    assert bench.kube.node_list == []


async def test_without_the_list_no_token_is_given_out(bench: Any) -> None:
    token = bench.chain.stake("worker-1", bench.owner_a)
    await bench.catch_up()
    bench.kube.broken = True
    answer = await bench.register(token, "worker-1")
    assert bench.refusal(answer)[0] == 503
    assert bench.kube.bootstrap_tokens() == []


@given(raw=st.binary(max_size=200) | st.from_type(object).map(repr).map(str.encode))
def test_anything_else_is_refused(raw: bytes) -> None:
    access = NodeAccess(TokenIndex(), None, lambda: None, lambda _: False)  # type: ignore[arg-type]
    with contextlib.suppress(ApiError):
        assert access.review(raw)[0] is False


names = st.sampled_from(["a", "b"])
stakes = st.tuples(names, st.integers(1, 2))
prints = st.lists(st.sampled_from([ONE, OTHER, THIRD]), max_size=3)


@given(claims=st.lists(st.tuples(stakes, prints), max_size=12))
def test_claims_are_what_each_worker_said_last(
    tmp_path_factory: pytest.TempPathFactory, claims: list[tuple[tuple[str, int], list[str]]]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    certificates, model = Certificates(store), {}
    for (node_id, since), sha256s in claims:
        worker: Any = WorkerView(node_id, "0x1", 1, None, since)  # type: ignore[arg-type]
        certificates.claim(worker, sha256s)
        model[node_id] = (since, set(sha256s))
    for again in (certificates, Certificates(store)):
        for sha256 in (ONE, OTHER, THIRD):
            wanted = {(node_id, "0x1", since) for node_id, (since, has) in model.items() if sha256 in has}
            assert set(again.holders(sha256)) == wanted
    store.close()
