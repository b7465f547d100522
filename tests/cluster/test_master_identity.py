"""The master's own identity on an API server: enough for its work, and no more."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from cluster_kit import OWNER_A, RBAC, A, B, binding, configmap, pod, refused, role, unsafe

from k3s_daas import join
from k3s_daas_master.cluster import PodView


async def test_the_masters_identity_is_enough_for_its_work(server: Any, admin: httpx.Client) -> None:
    cluster = server.cluster()
    try:
        assert join.ca_hash(await cluster.cacerts()) == join.ca_hash(
            (server.tls / "server-ca.crt").read_bytes()
        )
        assert {"worker-a", "worker-b"} <= set(await cluster.nodes())
        for name in ("worker-a", "worker-c"):
            await cluster.put_node_password(name, join.node_password_hash("p"))
            await cluster.put_node_password(name, join.node_password_hash("q"), locked=True)
            found = await cluster.node_password(name)
            assert found is not None
            assert found.locked
        assert {"worker-a", "worker-c"} <= set(await cluster.node_passwords())
        token_id, secret = join.bootstrap_token()
        now = server.clock.now_ms()
        await cluster.create_bootstrap_token("worker-c", token_id, secret, now, now + 600_000)
        assert token_id in [token.token_id for token in await cluster.bootstrap_tokens()]
        await cluster.delete_bootstrap_token(token_id)
        admin.post("/api/v1/nodes", json={"metadata": {"name": "worker-c"}}).raise_for_status()
        assert await cluster.cordon("worker-c")
        assert await cluster.uncordon("worker-c")
        body = pod("drained", nodeName="worker-c", tolerations=[{"operator": "Exists"}])
        admin.post("/api/v1/namespaces/default/pods", json=body).raise_for_status()
        found_pods = await cluster.pods_to_drain("worker-c")
        assert [p.name for p in found_pods] == ["drained"]
        assert await cluster.evict(found_pods[0])
        await cluster.delete_pod(PodView("default", "drained", True))
        await cluster.delete_node("worker-c")
        assert "worker-c" not in await cluster.nodes()
    finally:
        await cluster.aclose()


def test_the_master_may_no_more_than_its_work(master: httpx.Client, admin: httpx.Client) -> None:
    review = master.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}).json()
    info = review["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("k3s-daas:master", ["system:authenticated"])
    home = f"/api/v1/namespaces/{B}"
    for path in ("/api/v1/secrets", f"{home}/secrets", f"{home}/configmaps", "/apis/apps/v1/deployments"):
        refused(master.get(path))
    refused(master.post(f"{home}/pods", json=pod("masters")))
    refused(master.post(f"{home}/pods/bs/exec?command=id"))
    refused(master.post(f"{home}/configmaps", json=configmap("masters")))
    refused(master.get("/api/v1/nodes/worker-a/proxy/metrics"))
    refused(master.post("/api/v1/namespaces/kube-system/serviceaccounts/default/token", json={"spec": {}}))
    # Rights that it may hand on, to whom it likes: the tenant's role, and none else.
    in_b = f"{RBAC}/namespaces/{B}/rolebindings"
    for to in ("cluster-admin", "k3s-daas:operator-view"):
        refused(master.post(in_b, json=binding("more", "k3s-daas:master", to)))
    everywhere = binding("k3s-daas:owner:x", "k3s-daas:master", kind="ClusterRoleBinding")
    refused(master.post(f"{RBAC}/clusterrolebindings", json=everywhere))
    refused(master.post(f"{RBAC}/clusterroles", json=role("k3s-daas:owner:x", "ClusterRole")))


@pytest.mark.usefixtures("k3s_only")
def test_the_policy_keeps_the_master_to_its_own_objects(master: httpx.Client, admin: httpx.Client) -> None:
    said = "k3s-daas-master"
    refused(master.post("/api/v1/namespaces", json={"metadata": {"name": "other"}}), said)
    admin.post("/api/v1/namespaces", json={"metadata": {"name": "elsewhere"}}).raise_for_status()
    refused(master.delete("/api/v1/namespaces/elsewhere"), said)
    secrets = "/api/v1/namespaces/kube-system/secrets"
    refused(master.post(secrets, json={"metadata": {"name": "mine"}}), said)
    refused(master.delete(f"{secrets}/k3s-serving"), said)
    quota = {"metadata": {"name": "x"}, "spec": {"hard": {"pods": "0"}}}
    refused(master.post("/api/v1/namespaces/kube-system/resourcequotas", json=quota), said)
    tenant_role = binding("x", OWNER_A, "k3s-daas:tenant-edit")
    refused(master.post(f"{RBAC}/namespaces/kube-system/rolebindings", json=tenant_role), said)
    refused(
        master.post(
            f"{RBAC}/clusterroles",
            json=role("mine", "ClusterRole", apiGroups=[""], resources=["nodes"], verbs=["get"]),
        ),
        said,
    )
    refused(master.delete(f"{RBAC}/clusterroles/cluster-admin"), said)
    refused(master.delete(f"{RBAC}/clusterrolebindings/cluster-admin"), said)
    everywhere = binding("k3s-daas:owner:x", OWNER_A, "k3s-daas:tenant-edit", "ClusterRoleBinding")
    refused(master.post(f"{RBAC}/clusterrolebindings", json=everywhere), said)


def test_the_master_acts_as_an_owner_with_that_owners_rights(server: Any, master: httpx.Client) -> None:
    as_a = {"Impersonate-User": OWNER_A, "Impersonate-Group": "k3s-daas:owners"}
    apply = {**as_a, "content-type": "application/apply-patch+yaml"}
    path = f"/api/v1/namespaces/{A}/configmaps/request-1?fieldManager=request-1"
    made = master.patch(path, content=json.dumps(configmap("request-1")), headers=apply)
    assert made.status_code == 201, made.text
    managers = [entry["manager"] for entry in made.json()["metadata"]["managedFields"]]
    assert managers == ["request-1"]
    refused(master.get(f"/api/v1/namespaces/{B}/configmaps", headers=as_a))
    refused(master.get("/api/v1/nodes", headers=as_a))
    if not server.standin:
        body = unsafe("hostNetwork")
        refused(master.post(f"/api/v1/namespaces/{A}/pods", json=body, headers=as_a), "PodSecurity")
    for group in ("system:masters", "k3s-daas:operators", "system:nodes"):
        refused(master.get("/api/v1/nodes", headers={**as_a, "Impersonate-Group": group}), "impersonate")
    account = {"Impersonate-User": "system:serviceaccount:kube-system:generic-garbage-collector"}
    refused(master.get("/api/v1/nodes", headers=account), "impersonate")
