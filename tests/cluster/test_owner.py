"""What an owner can do on an API server: fresh, stale, as operator, from its first stake to its last."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_kit import MERGE, OWNER_A, OWNER_B, RBAC, A, B, binding, configmap, pod, refused, spec_of

from k3s_daas import kubeconfig


@pytest.mark.usefixtures("k3s_only")
def test_an_owner_works_in_its_own_namespace(owner_a: httpx.Client) -> None:
    core, apps = f"/api/v1/namespaces/{A}", f"/apis/apps/v1/namespaces/{A}"
    assert owner_a.get(core).json()["metadata"]["name"] == A
    labels = {"app": "web"}
    deployment = {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec_of(pod("x"))},
        },
    }
    for path, body in (
        (f"{apps}/deployments", deployment),
        (
            f"{core}/services",
            {"metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 80}]}},
        ),
        (f"{core}/secrets", {"metadata": {"name": "mine"}, "stringData": {"a": "b"}}),
        (f"{core}/configmaps", configmap("more")),
        (
            f"/apis/networking.k8s.io/v1/namespaces/{A}/networkpolicies",
            {"metadata": {"name": "open"}, "spec": {"podSelector": {}, "egress": [{}]}},
        ),
    ):
        answer = owner_a.post(path, json=body)
        assert answer.status_code == 201, answer.text
    assert owner_a.get(f"{core}/secrets/mine").status_code == 200
    scale = {"spec": {"replicas": 0}}
    path = f"{apps}/deployments/web/scale"
    assert owner_a.patch(path, content=json.dumps(scale), headers=MERGE).status_code == 200
    for kind in ("resourcequotas", "limitranges", "events", "endpoints", "serviceaccounts"):
        assert owner_a.get(f"{core}/{kind}").status_code == 200
    assert owner_a.delete(f"{apps}/deployments/web").status_code == 200


@pytest.mark.usefixtures("k3s_only")
def test_limits_are_filled_in_and_the_quota_counts(server: Any, owner_a: httpx.Client) -> None:
    path = f"/api/v1/namespaces/{A}/pods"
    made = owner_a.post(f"{path}?dryRun=All", json=pod("plain")).json()
    assert made["spec"]["containers"][0]["resources"]["limits"]["memory"] == "256Mi"
    large = pod("large")
    spec_of(large)["containers"][0]["resources"] = {"requests": {"cpu": "17"}, "limits": {"cpu": "17"}}
    refused(owner_a.post(path, json=large), "exceeded quota: k3s-daas")


@pytest.mark.usefixtures("k3s_only")
def test_the_masters_network_policies_are_not_the_owners_to_change(owner_a: httpx.Client) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{A}/networkpolicies"
    for name in ("k3s-daas-default-deny", "k3s-daas-same-namespace"):
        refused(owner_a.delete(f"{path}/{name}"), "kept by the master")
        refused(
            owner_a.patch(f"{path}/{name}", content='{"spec": {"egress": [{}]}}', headers=MERGE), "kept by"
        )
        unlabelled = {"metadata": {"labels": {"k3s-daas/managed": None}}}
        refused(owner_a.patch(f"{path}/{name}", content=json.dumps(unlabelled), headers=MERGE), "kept by")
    refused(owner_a.delete(path), "kept by the master")


def test_who_am_i(owner_a: httpx.Client) -> None:
    answer = owner_a.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    info = answer.json()["status"]["userInfo"]
    assert info["username"] == OWNER_A
    assert info["groups"] == ["k3s-daas:owners", "system:authenticated"]


@pytest.mark.usefixtures("k3s_only")
def test_on_a_stale_view_an_owner_reads_and_changes_nothing(server: Any) -> None:
    """Each look at the chain is stale for a token that the API server hasn't asked about before."""
    server.mint(OWNER_A)  # a new token: nothing is cached about it
    server.clock.monotonic, kept = (lambda: kept() + 120), server.clock.monotonic
    try:
        with server.http(OWNER_A) as client:
            info = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}).json()
            assert info["status"]["userInfo"]["groups"] == [
                "k3s-daas:owners-readonly",
                "system:authenticated",
            ]
            home = f"/api/v1/namespaces/{A}"
            assert client.get(f"{home}/pods").status_code == 200
            assert client.get(f"{home}/secrets").status_code == 200
            said = ("k3s-daas-stale-readonly", "Reading works")
            refused(client.post(f"{home}/configmaps", json=configmap("stale")), *said)
            refused(client.post(f"{home}/pods", json=pod("stale")), *said)
            refused(client.delete(f"{home}/pods/steady"), *said)
            refused(client.delete(f"{home}/configmaps"), *said)
            refused(client.patch(f"{home}/pods/steady", content="{}", headers=MERGE), *said)
            refused(client.post(f"{home}/pods/steady/exec?command=id"), *said)
            refused(client.get(f"{home}/pods/steady/exec?command=id"), *said)
            refused(client.post(f"{home}/pods/steady/portforward?ports=80"), *said)
            refused(client.get(f"/api/v1/namespaces/{B}/pods"))
    finally:
        server.clock.monotonic = kept
        server.mint(OWNER_A)


async def test_an_operator_sees_the_cluster_without_its_secrets(server: Any, admin: httpx.Client) -> None:
    await server.hand_cap_to(OWNER_A)
    server.mint(OWNER_A)
    try:
        with server.http(OWNER_A) as operator:
            for path in (
                "/api/v1/nodes",
                "/api/v1/pods",
                "/api/v1/namespaces",
                f"/api/v1/namespaces/{B}/pods",
            ):
                assert operator.get(path).status_code == 200
            for on in ("true", "null"):
                body = f'{{"spec": {{"unschedulable": {on}}}}}'
                cordoned = operator.patch("/api/v1/nodes/worker-b", content=body, headers=MERGE)
                assert cordoned.status_code == 200
            refused(operator.get("/api/v1/secrets"))
            refused(operator.get(f"/api/v1/namespaces/{B}/secrets/bs"))
            refused(operator.get("/api/v1/namespaces/kube-system/secrets"))
            refused(operator.delete("/api/v1/nodes/worker-b"))
            refused(operator.delete(f"/api/v1/namespaces/{B}/pods/bs"))
            refused(operator.post(f"/api/v1/namespaces/{B}/pods", json=pod("ops")))
            refused(operator.post(f"/api/v1/namespaces/{B}/pods/bs/exec?command=id"))
            everywhere = binding("more", OWNER_A, kind="ClusterRoleBinding")
            refused(operator.post(f"{RBAC}/clusterrolebindings", json=everywhere))
            refused(operator.get("/api/v1/nodes/worker-b/proxy/metrics"))
            refused(operator.get("/api/v1/pods", headers={"Impersonate-User": OWNER_B}), "impersonate")
    finally:
        await server.hand_cap_to(None)
        server.mint(OWNER_A)


async def test_what_somebody_spoils_is_put_right(server: Any, admin: httpx.Client) -> None:
    home = f"/api/v1/namespaces/{A}"
    before = {}
    paths = [
        f"{home}/resourcequotas/k3s-daas",
        f"{home}/limitranges/k3s-daas",
        f"/apis/networking.k8s.io/v1/namespaces/{A}/networkpolicies/k3s-daas-default-deny",
        f"{RBAC}/namespaces/{A}/rolebindings/k3s-daas:owner",
        f"{RBAC}/clusterroles/k3s-daas:owner:{'0a' * 20}",
        f"{RBAC}/clusterrolebindings/k3s-daas:owner:{'0a' * 20}",
    ]
    for path in paths:
        before[path] = admin.get(path).json()
        assert admin.delete(path).status_code == 200
    label = "pod-security.kubernetes.io/enforce"
    admin.patch(home, content=json.dumps({"metadata": {"labels": {label: "privileged"}}}), headers=MERGE)
    quota_b = f"/api/v1/namespaces/{B}/resourcequotas/k3s-daas"
    admin.patch(quota_b, content='{"spec": {"hard": {"pods": "100000"}}}', headers=MERGE)
    other = binding("k3s-daas:owner", OWNER_A, "view")
    admin.post(f"{RBAC}/namespaces/{A}/rolebindings", json=other).raise_for_status()
    tenants = await server.reconcile()
    assert tenants.problems == {}
    for path in paths:
        found = admin.get(path).json()
        for field in ("spec", "rules", "subjects", "roleRef"):
            assert found.get(field) == before[path].get(field), path
    assert admin.get(home).json()["metadata"]["labels"][label] == "restricted"
    assert admin.get(quota_b).json()["spec"]["hard"]["pods"] == "100"


async def test_a_second_pass_writes_nothing(server: Any, admin: httpx.Client) -> None:
    def versions() -> dict[str, str]:
        found = {}
        for path in (
            "/api/v1/namespaces",
            "/api/v1/limitranges",
            "/apis/networking.k8s.io/v1/networkpolicies",
            f"{RBAC}/rolebindings",
            f"{RBAC}/clusterroles",
            f"{RBAC}/clusterrolebindings",
        ):
            for item in admin.get(path, params={"labelSelector": "k3s-daas/managed=true"}).json()["items"]:
                meta = item["metadata"]
                found[f"{path} {meta.get('namespace')} {meta['name']}"] = meta["resourceVersion"]
        return found

    await server.reconcile()
    before = versions()
    assert len(before) == 14
    await server.reconcile()
    assert versions() == before


def test_kubectl_with_the_credential_plugin(server: Any, tmp_path: Path) -> None:
    token = tmp_path / "seal-token"
    token.touch(0o600)
    token.write_text(server.tokens[OWNER_A])
    plugin = tmp_path / "k3s-daas"
    plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m k3s_daas.cli "$@"\n')
    plugin.chmod(0o755)
    path = tmp_path / "kubeconfig"
    pem = (server.tls / "server-ca.crt").read_bytes()
    content = kubeconfig.build(server.url, pem, OWNER_A, command=str(plugin), token_file=token)
    kubeconfig.put(path, content)
    server.fresh()
    listed = server.kubectl(path, "get", "configmaps", "-o", "name")
    assert listed.returncode == 0, listed.stderr
    assert "configmap/mine" in listed.stdout
    if not server.standin:
        everything = server.kubectl(path, "get", "all")
        assert everything.returncode == 0, everything.stderr
        who = server.kubectl(path, "auth", "whoami", "-o", "json")
        assert json.loads(who.stdout)["status"]["userInfo"]["username"] == OWNER_A
    assert server.kubectl(path, "get", "node", "worker-a").returncode == 0
    for words in (["get", "pods", "-n", B], ["get", "nodes"], ["get", "secrets", "-n", "kube-system"]):
        done = server.kubectl(path, *words)
        assert done.returncode != 0
        assert "orbidden" in done.stderr
    token.chmod(0o644)
    refused_by_plugin = server.kubectl(path, "get", "pods")
    assert refused_by_plugin.returncode != 0
    assert "mode 0644, wanted 0600" in refused_by_plugin.stderr


def test_a_revoked_token_stops_within_10_seconds(server: Any, owner_b: httpx.Client) -> None:
    path = f"/api/v1/namespaces/{B}/pods"
    assert owner_b.get(path).status_code == 200
    server.revoke(OWNER_B)
    server.until(lambda: owner_b.get(path).status_code == 401, 11.0)
    server.mint(OWNER_B)


async def test_slashing_the_last_worker_ends_it_all(server: Any, admin: httpx.Client) -> None:
    owner, space = "0x" + "0c" * 32, "owner-" + "0c" * 20
    server.stake("worker-x", owner)
    server.mint(owner)
    assert (await server.reconcile()).problems == {}
    path = f"/api/v1/namespaces/{space}/configmaps"
    with server.http(owner) as client:
        assert client.post(path, json=configmap("mine")).status_code == 201
        server.slash("worker-x")
        server.until(lambda: client.get(path).status_code == 401, 11.0)
    await server.reconcile()
    short = "0c" * 20
    assert admin.get(f"{RBAC}/clusterroles/k3s-daas:owner:{short}").status_code == 404
    assert admin.get(f"{RBAC}/namespaces/{space}/rolebindings/k3s-daas:owner").status_code == 404
    marked = admin.get(f"/api/v1/namespaces/{space}").json()["metadata"]["annotations"]
    assert "k3s-daas/delete-after" in marked
    # The grace time is 0 here.
    await server.reconcile()
    server.until(lambda: admin.get(f"/api/v1/namespaces/{space}").status_code == 404, 60.0)
    assert admin.get(f"/api/v1/namespaces/{A}").status_code == 200
