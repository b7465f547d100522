"""What the tests on an API server share: bodies, and what a refusal looks like."""

from __future__ import annotations

from typing import Any

import httpx

OWNER_A, OWNER_B = "0x" + "0a" * 32, "0x" + "0b" * 32
#: Their namespaces.
A, B = "owner-" + "0a" * 20, "owner-" + "0b" * 20
MERGE = {"content-type": "application/merge-patch+json"}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SSAR = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SSRR = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

#: What every authenticated user may: ask about itself (system:basic-user).
ABOUT_ONESELF = {
    ("create", "authentication.k8s.io", "selfsubjectreviews"),
    ("create", "authorization.k8s.io", "selfsubjectaccessreviews"),
    ("create", "authorization.k8s.io", "selfsubjectrulesreviews"),
}


def pod(name: str, image: str = "docker.io/library/nginx:1", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, "securityContext": RESTRICTED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }


def configmap(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}}


def refused(answer: httpx.Response, *words: str) -> None:
    """403, and for the reason that was meant."""
    assert answer.status_code == 403, (
        f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
    )
    message = answer.json()["message"]
    assert all(word in message for word in words), message


def resources(admin: httpx.Client) -> list[tuple[str, str, bool, list[str]]]:
    """Everything that the API server serves: (group, resource or resource/subresource, namespaced, verbs)."""
    paths = [("", "/api/v1")]
    for group in admin.get("/apis").json()["groups"]:
        paths.append((group["name"], f"/apis/{group['preferredVersion']['groupVersion']}"))
    found = []
    for group, path in paths:
        for one in admin.get(path).json().get("resources", []):
            found.append((group, one["name"], one["namespaced"], one["verbs"]))
    return found


def may(
    client: httpx.Client, verb: str, group: str, resource: str, namespace: str = "", name: str = ""
) -> bool:
    what, _, sub = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": what, "subresource": sub}
    attributes |= {"namespace": namespace, "name": name}
    answer = client.post(SSAR, json={"spec": {"resourceAttributes": attributes}})
    assert answer.status_code == 201, answer.text
    return bool(answer.json()["status"]["allowed"])


def role(name: str, kind: str = "Role", **rule: Any) -> dict[str, Any]:
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], **rule}]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "rules": rules,
    }


def binding(name: str, user: str, to: str = "cluster-admin", kind: str = "RoleBinding") -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": to},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def spec_of(body: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = body["spec"]
    return spec


def unsafe(change: str) -> dict[str, Any]:
    body = pod("unsafe")
    spec = spec_of(body)
    container = spec["containers"][0]
    match change:
        case "privileged":
            container["securityContext"] = {"privileged": True}
        case "root":
            container["securityContext"] = {**RESTRICTED, "runAsNonRoot": False, "runAsUser": 0}
        case "hostPath":
            spec["volumes"] = [{"name": "v", "hostPath": {"path": "/"}}]
        case "hostPort":
            container["ports"] = [{"containerPort": 80, "hostPort": 80}]
        case "capabilities":
            container["securityContext"] = {**RESTRICTED, "capabilities": {"add": ["SYS_ADMIN"]}}
        case _:
            spec[change] = True
    return body
