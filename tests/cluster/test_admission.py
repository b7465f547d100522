"""What RBAC can't say, on an API server: pods that reach out, images that aren't listed."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from cluster_kit import MERGE, RESTRICTED, A, B, pod, refused, spec_of, unsafe

pytestmark = pytest.mark.usefixtures("k3s_only")


@pytest.mark.parametrize(
    "change",
    ["privileged", "root", "hostPath", "hostPort", "hostNetwork", "hostPID", "hostIPC", "capabilities"],
)
def test_pod_security_is_restricted(owner_a: httpx.Client, change: str) -> None:
    refused(owner_a.post(f"/api/v1/namespaces/{A}/pods", json=unsafe(change)), "violates PodSecurity")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"nodeName": "worker-b"}, "spec.nodeName"),
        ({"tolerations": [{"operator": "Exists"}]}, "toleration"),
        ({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}, "toleration"),
        (
            {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
            "toleration",
        ),
        ({"priorityClassName": "system-node-critical"}, "priority class"),
        ({"priorityClassName": "system-cluster-critical"}, "priority class"),
    ],
)
def test_no_pod_goes_past_scheduler_taints_and_priorities(
    owner_a: httpx.Client, spec: dict[str, Any], said: str
) -> None:
    refused(owner_a.post(f"/api/v1/namespaces/{A}/pods", json=pod("unsafe", **spec)), "k3s-daas-tenant", said)


def test_not_even_the_admin_or_a_node_puts_one_past_the_scheduler(admin: httpx.Client) -> None:
    answer = admin.post(f"/api/v1/namespaces/{B}/pods", json=pod("mirror", nodeName="worker-a"))
    refused(answer, "spec.nodeName")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"externalIPs": ["10.0.0.1"]}, "spec.externalIPs"),
        ({"type": "NodePort"}, "exceeded quota"),
        ({"type": "LoadBalancer"}, "exceeded quota"),
    ],
)
def test_no_service_reaches_out(owner_a: httpx.Client, spec: dict[str, Any], said: str) -> None:
    body = {"metadata": {"name": "out"}, "spec": {"ports": [{"port": 80}], **spec}}
    refused(owner_a.post(f"/api/v1/namespaces/{A}/services", json=body), said)


DIGEST = "sha256:" + "5" * 64


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.29",
        "library/nginx",
        "someone/app:2",
        "docker.io/library/nginx@sha256:" + "1" * 64,
        "ghcr.io/a/b/c:v1",
        "registry.example.com/team/app:1",
        "registry.example.com/team",
        "registry.example.com/one/image:3",
        f"registry.example.com/one/image@{DIGEST}",
        f"evil.example.com/x@{DIGEST}",
    ],
)
def test_listed_images_are_let_in(owner_a: httpx.Client, image: str) -> None:
    answer = owner_a.post(f"/api/v1/namespaces/{A}/pods?dryRun=All", json=pod("image", image))
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "image",
    [
        "evil.example.com/x",
        "evil.example.com/docker.io/x",
        "docker.io.evil.example.com/x",
        "docker.io:5000/x",
        "ghcr.io:443/x",
        "localhost/x",
        "localhost:5000/docker.io/x",
        "registry.example.com/teams/app",
        "registry.example.com/other/team/app",
        "registry.example.com/one/image2",
        "evil.example.com/x@sha256:" + "6" * 64,
        f"evil.example.com/x:{'5' * 64}",
    ],
)
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_other_images_are_refused(owner_a: httpx.Client, image: str, where: str) -> None:
    body = pod("image")
    container = {"name": "other", "image": image, "securityContext": RESTRICTED}
    spec_of(body)[where] = [*spec_of(body).get(where, []), container]
    answer = owner_a.post(f"/api/v1/namespaces/{A}/pods?dryRun=All", json=body)
    refused(answer, "k3s-daas-image-policy", f"Found image {image}", "wanted one of docker.io")


def test_neither_an_update_nor_a_debug_container_gets_round_it(owner_a: httpx.Client) -> None:
    home = f"/api/v1/namespaces/{A}/pods"
    strategic = {"content-type": "application/strategic-merge-patch+json"}
    bad = {"name": "c", "image": "evil.example.com/x"}
    change = {"spec": {"containers": [bad]}}
    refused(owner_a.patch(f"{home}/steady", content=json.dumps(change), headers=strategic), "image-policy")
    debug = {"spec": {"ephemeralContainers": [{**bad, "name": "d", "securityContext": RESTRICTED}]}}
    path = f"{home}/steady/ephemeralcontainers"
    refused(owner_a.patch(path, content=json.dumps(debug), headers=strategic), "image-policy")
    debug["spec"]["ephemeralContainers"][0]["image"] = "docker.io/library/busybox"
    assert owner_a.patch(path, content=json.dumps(debug), headers=strategic).status_code == 200


def test_with_digests_required_a_tag_is_not_enough(
    server: Any, owner_a: httpx.Client, admin: httpx.Client
) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/k3s-daas-image-policy"

    def required(yes: str) -> None:
        admin.patch(
            path, content=json.dumps({"data": {"digestRequired": yes}}), headers=MERGE
        ).raise_for_status()

    def tried(image: str) -> httpx.Response:
        return owner_a.post(f"/api/v1/namespaces/{A}/pods?dryRun=All", json=pod("image", image))

    required("true")
    try:
        server.until(lambda: tried("nginx:1").status_code == 403)
        refused(tried("nginx:1"), "wanted every image as NAME@sha256:DIGEST")
        assert tried("nginx@sha256:" + "1" * 64).status_code == 201
        assert tried("nginx:1@sha256:" + "1" * 64).status_code == 201
    finally:
        required("false")
    server.until(lambda: tried("nginx:1").status_code == 201)


def test_without_its_lists_the_policy_lets_nothing_in(
    server: Any, owner_a: httpx.Client, admin: httpx.Client
) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/k3s-daas-image-policy"
    kept = admin.get(path).json()
    admin.delete(path)
    try:

        def tried() -> httpx.Response:
            return owner_a.post(f"/api/v1/namespaces/{A}/pods?dryRun=All", json=pod("image"))

        answer = server.until(lambda: answer if (answer := tried()).status_code != 201 else None)
        assert 400 <= answer.status_code < 500
        assert "no params found" in answer.json()["message"]
    finally:
        fresh = {key: kept[key] for key in ("apiVersion", "kind", "data")}
        name = {"metadata": {"name": kept["metadata"]["name"], "labels": kept["metadata"].get("labels", {})}}
        name["metadata"]["annotations"] = kept["metadata"].get("annotations", {})
        admin.post("/api/v1/namespaces/kube-system/configmaps", json=fresh | name).raise_for_status()
    server.until(lambda: tried().status_code == 201)
