"""Owner A against everything of owner B and of the cluster, on an API server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from cluster_kit import (
    ABOUT_ONESELF,
    MERGE,
    OWNER_A,
    OWNER_B,
    RBAC,
    SSRR,
    A,
    B,
    binding,
    configmap,
    may,
    pod,
    refused,
    resources,
    role,
)


@pytest.mark.usefixtures("k3s_only")
@pytest.mark.parametrize("namespace", [B, "kube-system", "kube-node-lease", "default", ""])
def test_every_verb_on_every_resource_is_refused_outside_the_own_namespace(
    owner_a: httpx.Client, admin: httpx.Client, namespace: str
) -> None:
    served = resources(admin)
    assert len(served) > 60
    more = [("", "users", False, ["impersonate"]), ("", "groups", False, ["impersonate"])]
    more += [("", "serviceaccounts", True, ["impersonate"]), ("", "nodes/proxy", False, ["get", "create"])]
    more += [
        ("rbac.authorization.k8s.io", kind, True, ["bind", "escalate"]) for kind in ("roles", "clusterroles")
    ]
    more += [("", "*", True, ["*"]), ("*", "*", True, ["*", "get"])]
    asked, allowed = 0, set()
    for group, resource, namespaced, verbs in [*served, *more]:
        if namespace and not namespaced:
            continue
        for verb in verbs:
            asked += 1
            if may(owner_a, verb, group, resource, namespace):
                allowed.add((verb, group, resource))
    assert allowed <= ABOUT_ONESELF
    assert asked > 150


@pytest.mark.usefixtures("k3s_only")
def test_the_rules_in_bs_namespace_are_those_of_anybody(owner_a: httpx.Client) -> None:
    status = owner_a.post(SSRR, json={"spec": {"namespace": B}}).json()["status"]
    granted = set()
    for rule in status["resourceRules"]:
        for verb in rule["verbs"]:
            for group in rule["apiGroups"]:
                granted |= {(verb, group, resource) for resource in rule["resources"]}
    # Its own node, by name, is the one thing of the cluster.
    assert granted == ABOUT_ONESELF | {("get", "", "nodes")}
    assert [rule["resourceNames"] for rule in status["resourceRules"] if rule.get("resourceNames")] == [
        ["worker-a"]
    ]


def test_own_node_and_no_other(owner_a: httpx.Client) -> None:
    assert owner_a.get("/api/v1/nodes/worker-a").status_code == 200
    refused(owner_a.get("/api/v1/nodes/worker-b"))
    refused(owner_a.get("/api/v1/nodes"))
    for method in ("PATCH", "DELETE"):
        for name in ("worker-a", "worker-b"):
            refused(owner_a.request(method, f"/api/v1/nodes/{name}", json={"spec": {"unschedulable": True}}))
    for sub in ("proxy/metrics", "proxy/", "status"):
        refused(owner_a.get(f"/api/v1/nodes/worker-a/{sub}"))
        refused(owner_a.get(f"/api/v1/nodes/worker-b/{sub}"))


OF_B = f"/api/v1/namespaces/{B}"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{OF_B}", None),
        ("PATCH", f"{OF_B}", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        ("DELETE", f"{OF_B}", None),
        ("GET", f"{OF_B}/pods", None),
        ("GET", f"{OF_B}/pods/bs", None),
        ("GET", f"{OF_B}/pods/bs/log", None),
        ("POST", f"{OF_B}/pods", pod("as")),
        ("DELETE", f"{OF_B}/pods/bs", None),
        ("DELETE", f"{OF_B}/pods", None),
        ("POST", f"{OF_B}/pods/bs/eviction", {"metadata": {"name": "bs"}}),
        ("POST", f"{OF_B}/pods/bs/exec?command=id", None),
        ("GET", f"{OF_B}/pods/bs/exec?command=id", None),
        ("POST", f"{OF_B}/pods/bs/attach", None),
        ("POST", f"{OF_B}/pods/bs/portforward?ports=80", None),
        ("GET", f"{OF_B}/pods/bs/proxy/", None),
        ("GET", f"{OF_B}/services/bs/proxy/", None),
        ("PATCH", f"{OF_B}/pods/bs/ephemeralcontainers", {"spec": {}}),
        ("GET", f"{OF_B}/secrets", None),
        ("GET", f"{OF_B}/secrets/bs", None),
        ("PUT", f"{OF_B}/secrets/bs", {"metadata": {"name": "bs"}}),
        ("POST", f"{OF_B}/configmaps", configmap("as")),
        ("POST", f"{OF_B}/serviceaccounts/default/token", {"spec": {}}),
        ("GET", f"{OF_B}/pods?watch=true", None),
        ("GET", "/api/v1/pods", None),
        ("GET", "/api/v1/secrets", None),
        ("GET", "/api/v1/namespaces", None),
        ("POST", "/api/v1/namespaces", {"metadata": {"name": "mine-too"}}),
        ("GET", "/api/v1/namespaces/kube-system/secrets", None),
        ("GET", "/api/v1/namespaces/kube-system/secrets/worker-b.node-password.k3s", None),
        ("GET", "/api/v1/namespaces/kube-system/configmaps/k3s-daas-image-policy", None),
        ("PATCH", "/api/v1/namespaces/kube-system/configmaps/k3s-daas-image-policy", {"data": {}}),
        ("POST", "/api/v1/namespaces/kube-system/pods", pod("as")),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", None),
        ("GET", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", None),
        ("DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/k3s-daas-tenant", None),
        ("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests", None),
        ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {"metadata": {"name": "x"}}),
        ("GET", "/apis/k3s.cattle.io/v1/addons", None),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}}),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": OWNER_B}}),
        ("GET", "/metrics", None),
        ("GET", "/logs/", None),
        ("GET", "/debug/pprof/", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_nothing_of_b_or_of_the_cluster(owner_a: httpx.Client, method: str, path: str, body: Any) -> None:
    headers = {"content-type": "application/merge-patch+json"} if method == "PATCH" else {}
    refused(
        owner_a.request(method, path, content=None if body is None else json.dumps(body), headers=headers)
    )


@pytest.mark.parametrize(
    "path", ["/v1-k3s/config", "/v1-k3s/client-ca.crt", "/v1-k3s/server-bootstrap", "/db/info"]
)
def test_k3s_own_endpoints_are_not_for_owners(owner_a: httpx.Client, path: str) -> None:
    assert 400 <= owner_a.get(path).status_code < 500


def test_no_way_up_inside_the_own_namespace(owner_a: httpx.Client) -> None:
    home = f"{RBAC}/namespaces/{A}"
    refused(owner_a.post(f"{home}/roles", json=role("all")))
    for to in ("cluster-admin", "admin", "k3s-daas:tenant-edit", "k3s-daas:master"):
        refused(owner_a.post(f"{home}/rolebindings", json=binding("more", OWNER_A, to)))
    refused(owner_a.delete(f"{home}/rolebindings/k3s-daas:owner"))
    refused(owner_a.post(f"{RBAC}/clusterroles", json=role("all", "ClusterRole")))
    everywhere = binding("more", OWNER_A, kind="ClusterRoleBinding")
    refused(owner_a.post(f"{RBAC}/clusterrolebindings", json=everywhere))
    own = f"/api/v1/namespaces/{A}"
    refused(owner_a.delete(own))
    privileged = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    refused(owner_a.patch(own, content=json.dumps(privileged), headers=MERGE))
    for kind in ("resourcequotas", "limitranges"):
        refused(owner_a.delete(f"{own}/{kind}/k3s-daas"))
        refused(owner_a.patch(f"{own}/{kind}/k3s-daas", content="{}", headers=MERGE))
    refused(owner_a.post(f"{own}/serviceaccounts", json={"metadata": {"name": "x"}}))
    refused(owner_a.post(f"{own}/serviceaccounts/default/token", json={"spec": {}}))
    refused(
        owner_a.post(
            f"{own}/pods/x/binding", json={"metadata": {"name": "x"}, "target": {"name": "worker-b"}}
        )
    )
    daemons = {"metadata": {"name": "x"}, "spec": {}}
    refused(owner_a.post(f"/apis/apps/v1/namespaces/{A}/daemonsets", json=daemons))


@pytest.mark.parametrize(
    "who",
    [
        {"Impersonate-User": OWNER_B},
        {"Impersonate-User": OWNER_A, "Impersonate-Group": "system:masters"},
        {"Impersonate-User": OWNER_A, "Impersonate-Group": "k3s-daas:operators"},
        {"Impersonate-User": "system:admin"},
        {"Impersonate-User": "k3s-daas:master"},
        {"Impersonate-User": "system:node:worker-b", "Impersonate-Group": "system:nodes"},
        {"Impersonate-User": f"system:serviceaccount:{A}:default"},
        {"Impersonate-User": f"system:serviceaccount:{B}:default"},
        {"Impersonate-User": "system:serviceaccount:kube-system:generic-garbage-collector"},
    ],
    ids=str,
)
def test_nobody_is_impersonated(owner_a: httpx.Client, who: dict[str, str]) -> None:
    refused(owner_a.get(f"/api/v1/namespaces/{A}/pods", headers=who), "impersonate")


@pytest.mark.usefixtures("k3s_only")
def test_a_service_accounts_token_opens_nothing(
    server: Any, owner_a: httpx.Client, admin: httpx.Client
) -> None:
    """A's pods carry the default account's token, which outlives the seal token: it must be worth nothing."""
    path = f"/api/v1/namespaces/{A}/serviceaccounts/default/token"
    token = admin.post(path, json={"spec": {"expirationSeconds": 600}}).json()["status"]["token"]
    with server.http(OWNER_A) as client:
        client.headers["authorization"] = f"Bearer {token}"
        for group, resource, namespaced, verbs in resources(admin):
            for verb in verbs:
                if may(client, verb, group, resource, A if namespaced else ""):
                    assert (verb, group, resource) in ABOUT_ONESELF
        refused(client.get(f"/api/v1/namespaces/{A}/secrets"))
