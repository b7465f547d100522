"""Tenants come and go with their owner; what somebody spoils is put right; nobody else's is touched.

`MemoryApi` is a fake of the four calls that the loop makes: it keeps bodies and counts versions. How a real
API server takes them is tested in test_tenants_live.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from lightkube.resources.core_v1 import LimitRange, Namespace, ResourceQuota
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, RoleBinding

from k3s_daas import tenancy
from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.cluster import ClusterError
from k3s_daas_master.tenant_cluster import Found
from k3s_daas_master.tenant_objects import DEFAULT_QUOTA, Limits, of_owner
from k3s_daas_master.tenants import Tenants

HOUR_MS = 3_600_000


class MemoryApi:
    """Objects by (kind, namespace, name)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        self.refuse: dict[tuple[str, str, str], ClusterError] = {}
        self.down = False
        self._version = 0

    def _key(self, kind: Any, name: str, namespace: str | None) -> tuple[str, str, str]:
        if self.down:
            raise ClusterError("list: connection refused")
        return (kind.__name__, namespace or "", name)

    async def get(self, kind: Any, name: str, namespace: str | None = None) -> Found | None:
        body = self.objects.get(self._key(kind, name, namespace))
        return None if body is None else Found(copy.deepcopy(body))

    async def managed(self, kind: Any) -> dict[tuple[str, str, str], Found]:
        self._key(kind, "", None)
        return {
            key: Found(copy.deepcopy(body))
            for key, body in self.objects.items()
            if key[0] == kind.__name__ and "k3s-daas/managed" in (body["metadata"].get("labels") or {})
        }

    async def apply(self, wanted: Any) -> Found:
        key = self._key(wanted.kind, wanted.name, wanted.namespace)
        if error := self.refuse.get(key):
            raise error
        self.writes.append(f"apply {key[0]} {key[2]}")
        self._version += 1
        self.objects[key] = copy.deepcopy(wanted.body)
        self.objects[key]["metadata"]["resourceVersion"] = str(self._version)
        return Found(copy.deepcopy(self.objects[key]))

    async def delete(self, kind: Any, name: str, namespace: str | None = None) -> None:
        key = self._key(kind, name, namespace)
        if self.objects.pop(key, None) is None:
            return
        self.writes.append(f"delete {key[0]} {key[2]}")
        if kind is Namespace:
            self.objects = {k: v for k, v in self.objects.items() if k[1] != name}


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def tenants(bench: Any, api: MemoryApi) -> Tenants:
    return Tenants(
        index=bench.state.index, view=bench.state.view, cluster=api, clock=bench.clock, grace_ms=24 * HOUR_MS
    )


def home(owner: str) -> str:
    return tenancy.tenant_namespace(owner)


def kinds_of(api: MemoryApi, owner: str) -> set[str]:
    short = tenancy.short_owner(owner)
    return {kind for kind, namespace, name in api.objects if short in namespace or short in name}


ALL = {
    "Namespace",
    "ResourceQuota",
    "LimitRange",
    "NetworkPolicy",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
}
ACCESS = {"RoleBinding", "ClusterRole", "ClusterRoleBinding"}


async def test_an_owner_gets_its_namespace_with_everything_in_it(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    bench.chain.stake("worker-2")
    await bench.catch_up()
    assert await tenants.reconcile()
    name = home(bench.owner_a)
    space = api.objects[("Namespace", "", name)]["metadata"]
    assert space["annotations"] == {"k3s-daas/owner": bench.owner_a}
    assert space["labels"]["k3s-daas/owner-namespace"] == "true"
    assert space["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    binding = api.objects[("RoleBinding", name, "k3s-daas:owner")]
    assert [subject["name"] for subject in binding["subjects"]] == [bench.owner_a]
    assert binding["roleRef"]["name"] == "k3s-daas:tenant-edit"
    short = tenancy.short_owner(bench.owner_a)
    role = api.objects[("ClusterRole", "", f"k3s-daas:owner:{short}")]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["nodes"],
            "verbs": ["get"],
            "resourceNames": ["worker-1", "worker-2"],
        }
    ]
    assert api.objects[("ResourceQuota", name, "k3s-daas")]["spec"]["hard"] == dict(DEFAULT_QUOTA)
    assert tenants.count == 1
    assert tenants.problems == {}


async def test_nobody_without_a_live_worker_gets_anything(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1", bench.owner_a, WorkerStatus.UNBONDING)
    bench.chain.stake("worker-2", bench.owner_b)
    bench.chain.slash("worker-2")
    await bench.catch_up()
    assert await tenants.reconcile()
    assert api.objects == {}


async def test_a_second_pass_writes_nothing(bench: Any, tenants: Tenants, api: MemoryApi) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    api.writes.clear()
    await tenants.reconcile()
    again = Tenants(
        index=bench.state.index, view=bench.state.view, cluster=api, clock=bench.clock, grace_ms=HOUR_MS
    )
    await again.reconcile()
    assert api.writes == [], "also after a restart"


@pytest.mark.parametrize("kind", [ResourceQuota, LimitRange, NetworkPolicy, RoleBinding, ClusterRole])
async def test_what_was_deleted_or_changed_is_put_right(
    bench: Any, tenants: Tenants, api: MemoryApi, kind: Any
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    before = copy.deepcopy(api.objects)
    key = next(key for key in api.objects if key[0] == kind.__name__)
    del api.objects[key]
    await tenants.reconcile()
    assert set(api.objects) == set(before)
    for field in ("spec", "rules", "subjects"):
        if field in api.objects[key]:
            api.objects[key][field] = {} if field == "spec" else []
    api.objects[key]["metadata"]["resourceVersion"] = "spoilt"
    await tenants.reconcile()
    for field in ("spec", "rules", "subjects"):
        assert api.objects[key].get(field) == before[key].get(field)


async def test_a_lowered_pod_security_level_is_put_right(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    meta = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]
    meta["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
    meta["resourceVersion"] = "spoilt"
    await tenants.reconcile()
    meta = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]
    assert meta["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


async def test_a_servers_own_spelling_is_not_written_again_and_again(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    # A server may keep 1000m as 1: other words, the version that our apply led to.
    api.objects[("ResourceQuota", home(bench.owner_a), "k3s-daas")]["spec"]["hard"]["requests.cpu"] = "16000m"
    api.writes.clear()
    await tenants.reconcile()
    assert api.writes == []


async def test_between_whole_passes_only_who_came_or_left_is_touched(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    api.writes.clear()
    bench.chain.stake("worker-9", bench.owner_b)
    await bench.catch_up()
    await tenants.reconcile(whole=False)
    assert kinds_of(api, bench.owner_b) == ALL
    assert len(api.writes) == 8
    api.writes.clear()
    bench.chain.slash("worker-9")
    await bench.catch_up()
    await tenants.reconcile(whole=False)
    assert kinds_of(api, bench.owner_b) == ALL - ACCESS
    assert kinds_of(api, bench.owner_a) == ALL
    assert [line.split()[0] for line in api.writes] == ["delete"] * 3 + ["apply"]


@pytest.mark.parametrize("how", ["slashed", "left"])
async def test_the_last_worker_takes_the_rights_at_once_and_the_namespace_after_the_grace(
    bench: Any, tenants: Tenants, api: MemoryApi, how: str
) -> None:
    bench.chain.stake("worker-1")
    bench.chain.stake("worker-2")
    await bench.catch_up()
    await tenants.reconcile()
    gone = bench.chain.slash if how == "slashed" else bench.chain.withdraw
    gone("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == ALL, "one worker is left"
    role = next(value for key, value in api.objects.items() if key[0] == "ClusterRole")
    assert role["rules"][0]["resourceNames"] == ["worker-2"]
    gone("worker-2")
    await bench.catch_up()
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == ALL - ACCESS
    meta = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]
    assert meta["annotations"]["k3s-daas/delete-after"].endswith("Z")
    bench.clock.advance(24 * 3600 - 60)
    bench.chain.checkpoint()
    await bench.catch_up()
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == ALL - ACCESS
    bench.clock.advance(61)
    bench.chain.checkpoint()
    await bench.catch_up()
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == set()


async def test_the_grace_time_survives_a_restart(bench: Any, tenants: Tenants, api: MemoryApi) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    bench.chain.slash("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    bench.clock.advance(24 * 3600 + 1)
    bench.chain.checkpoint()
    await bench.catch_up()
    again = Tenants(
        index=bench.state.index, view=bench.state.view, cluster=api, clock=bench.clock, grace_ms=24 * HOUR_MS
    )
    await again.reconcile()
    assert kinds_of(api, bench.owner_a) == set()


async def test_an_owner_that_stakes_again_in_time_loses_nothing(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    api.objects[("ConfigMap", home(bench.owner_a), "mine")] = {"metadata": {"name": "mine"}}
    bench.chain.withdraw("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    bench.chain.stake("worker-3")
    await bench.catch_up()
    await tenants.reconcile()
    meta = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]
    assert "k3s-daas/delete-after" not in meta["annotations"]
    assert kinds_of(api, bench.owner_a) == ALL | {"ConfigMap"}
    bench.clock.advance(48 * 3600)
    bench.chain.checkpoint()
    await bench.catch_up()
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == ALL | {"ConfigMap"}


async def test_a_spoilt_date_counts_anew(bench: Any, tenants: Tenants, api: MemoryApi) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    bench.chain.slash("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    annotations = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]["annotations"]
    for spoilt in ("soon", "2020-01-01T00:00:00", ""):
        annotations["k3s-daas/delete-after"] = spoilt
        await tenants.reconcile()
        annotations = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]["annotations"]
        assert annotations["k3s-daas/delete-after"] > "2026"


async def test_a_namespace_that_names_another_owner_is_never_touched(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    name = home(bench.owner_a)
    theirs = {"metadata": {"name": name, "annotations": {"k3s-daas/owner": bench.owner_b}}}
    nobodys = {"metadata": {"name": name}}
    bench.chain.stake("worker-1")
    bench.chain.stake("worker-2", bench.owner_b)
    await bench.catch_up()
    for body in (theirs, nobodys):
        api.objects[("Namespace", "", name)] = copy.deepcopy(body)
        await tenants.reconcile()
        await tenants.reconcile(whole=False)
        assert api.objects[("Namespace", "", name)] == body
        assert kinds_of(api, bench.owner_a) == {"Namespace"}
        assert "It isn't touched" in tenants.problems[bench.owner_a]
    assert kinds_of(api, bench.owner_b) == ALL, "the other owner has its own all the same"
    del api.objects[("Namespace", "", name)]
    await tenants.reconcile()
    assert tenants.problems == {}
    assert kinds_of(api, bench.owner_a) == ALL


async def test_a_foreign_namespace_is_not_deleted_either(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    meta = api.objects[("Namespace", "", home(bench.owner_a))]["metadata"]
    meta["annotations"] = {"k3s-daas/owner": bench.owner_b, "k3s-daas/delete-after": "2020-01-01T00:00:00Z"}
    bench.chain.slash("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    assert ("Namespace", "", home(bench.owner_a)) in api.objects


async def test_a_namespace_that_is_ending_is_made_again_later(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    key = ("Namespace", "", home(bench.owner_a))
    api.objects[key]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    api.writes.clear()
    await tenants.reconcile()
    assert api.writes == []
    assert "made again" in tenants.problems[bench.owner_a]
    await api.delete(Namespace, key[2])
    await tenants.reconcile()
    assert kinds_of(api, bench.owner_a) == ALL
    assert tenants.problems == {}


@pytest.mark.parametrize("why", ["stale", "unsettled", "unread"])
async def test_nothing_is_made_or_taken_on_a_view_that_may_be_wrong(
    bench: Any, tenants: Tenants, api: MemoryApi, why: str
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    bench.chain.slash("worker-1")
    bench.chain.stake("worker-2", bench.owner_b)
    await bench.catch_up()
    if why == "stale":
        bench.chain.refuse_reads = ChainUnreachable({})
        bench.clock.advance(120)
    elif why == "unsettled":
        bench.state.index.settled = False
    else:
        bench.state.index.loaded = False
    api.writes.clear()
    assert not await tenants.reconcile()
    assert api.writes == []


async def test_one_owners_trouble_is_not_the_others(bench: Any, tenants: Tenants, api: MemoryApi) -> None:
    api.refuse[("ResourceQuota", home(bench.owner_a), "k3s-daas")] = ClusterError("forbidden", 403)
    bench.chain.stake("worker-1")
    bench.chain.stake("worker-2", bench.owner_b)
    await bench.catch_up()
    await tenants.reconcile()
    assert tenants.problems == {bench.owner_a: "forbidden"}
    assert "RoleBinding" not in kinds_of(api, bench.owner_a), "no rights before the limits are there"
    assert kinds_of(api, bench.owner_b) == ALL
    api.refuse.clear()
    await tenants.reconcile()
    assert tenants.problems == {}
    assert kinds_of(api, bench.owner_a) == ALL


async def test_an_api_server_that_is_away_is_a_problem_until_it_is_back(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    api.down = True
    assert not await tenants.reconcile()
    assert "" in tenants.problems
    api.down = False
    assert await tenants.reconcile()
    assert tenants.problems == {}


async def test_rights_left_behind_by_an_owner_long_gone_are_taken(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    for wanted in of_owner(bench.owner_b, ["worker-7"], Limits()):
        if wanted.kind in (ClusterRole, ClusterRoleBinding):
            await api.apply(wanted)
    await tenants.reconcile()
    assert api.objects == {}


async def test_a_tenant_cannot_name_owners_by_objects_of_its_own(
    bench: Any, tenants: Tenants, api: MemoryApi
) -> None:
    bench.chain.stake("worker-1")
    await bench.catch_up()
    await tenants.reconcile()
    forged = {
        "metadata": {
            "name": "mine",
            "labels": {"k3s-daas/managed": "true"},
            "annotations": {"k3s-daas/owner": "nobody"},
        }
    }
    api.objects[("NetworkPolicy", home(bench.owner_a), "mine")] = forged
    api.writes.clear()
    await tenants.reconcile()
    assert api.writes == []
    assert tenants.problems == {}


def test_a_default_deny_and_names_only(bench: Any) -> None:
    policies = {
        w.name: w.body["spec"] for w in of_owner(bench.owner_a, [], Limits()) if w.kind is NetworkPolicy
    }
    closed = policies["k3s-daas-default-deny"]
    assert closed["podSelector"] == {}
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed
    (rule,) = closed["egress"]
    assert {port["port"] for port in rule["ports"]} == {53}
    assert rule["to"][0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    inside = policies["k3s-daas-same-namespace"]
    assert [inside["ingress"][0]["from"], inside["egress"][0]["to"]] == [[{"podSelector": {}}]] * 2


def test_kinds_are_ours_to_bind(bench: Any) -> None:
    bindings = [
        w for w in of_owner(bench.owner_a, ["w"], Limits()) if w.kind in (RoleBinding, ClusterRoleBinding)
    ]
    assert {s["name"] for w in bindings for s in w.body["subjects"]} == {bench.owner_a}
    assert {s["kind"] for w in bindings for s in w.body["subjects"]} == {"User"}
