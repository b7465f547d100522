"""What tenants and the master's narrow identity need of an API server."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec

from k3s_daas_master.certificate import load_ca, sign

RBAC = "/apis/rbac.authorization.k8s.io/v1"
MANIFEST = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "edit:tenant"}
rules: [{apiGroups: [""], resources: [configmaps, pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: more}
rules: [{apiGroups: [""], resources: [configmaps, secrets], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: boss}
rules:
- {apiGroups: [""], resources: [namespaces, configmaps], verbs: [get, list, create, patch, delete]}
- {apiGroups: [""], resources: [nodes], verbs: [get]}
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles, rolebindings]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: ["edit:tenant"]
  verbs: [bind]
- {apiGroups: [""], resources: [users], verbs: [impersonate]}
- {apiGroups: [""], resources: [groups], resourceNames: [owners], verbs: [impersonate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: boss}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: boss}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:admin"}]
"""


@pytest.fixture(scope="module")
def admin(shared: Any) -> Iterator[httpx.Client]:
    with shared.http(cert=admin_pair(shared)) as client:
        yield client


def admin_pair(cluster: Any) -> tuple[str, str]:
    tls = cluster.root / "var/lib/rancher/k3s/server/tls"
    return str(tls / "client-admin.crt"), str(tls / "client-admin.key")


def apply(
    client: httpx.Client, path: str, body: dict[str, Any], manager: str = "m", force: bool = False
) -> Any:
    query = {"fieldManager": manager, **({"force": "true"} if force else {})}
    headers = {"content-type": "application/apply-patch+yaml"}
    return client.patch(path, params=query, content=json.dumps(body), headers=headers)


def configmap(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_apply_makes_then_changes_and_takes_back_what_it_no_longer_says(admin: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps/applied"
    assert apply(admin, path, configmap("applied", a="1", b="2")).status_code == 201
    admin.patch(
        path, content='{"data": {"z": "9"}}', headers={"content-type": "application/merge-patch+json"}
    )
    again = apply(admin, path, configmap("applied", a="3"))
    assert again.status_code == 200
    assert again.json()["data"] == {"a": "3", "z": "9"}
    version = again.json()["metadata"]["resourceVersion"]
    assert apply(admin, path, configmap("applied", a="3")).json()["metadata"]["resourceVersion"] == version


def test_apply_may_say_nothing_at_first_and_at_last(admin: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps/empty"
    assert apply(admin, path, configmap("empty")).status_code == 201
    assert apply(admin, path, configmap("empty", a="1")).json()["data"] == {"a": "1"}
    assert not apply(admin, path, configmap("empty")).json().get("data")


def test_two_who_apply_conflict_unless_one_insists(admin: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps/shared"
    apply(admin, path, configmap("shared", a="1"), "one")
    refused = apply(admin, path, configmap("shared", a="2"), "two")
    assert refused.status_code == 409
    assert 'conflict with "one": .data.a' in refused.json()["message"]
    assert apply(admin, path, configmap("shared", a="2"), "two", force=True).json()["data"] == {"a": "2"}
    # Now it is the other's: the first one's silence takes nothing away.
    assert apply(admin, path, configmap("shared"), "one").json()["data"] == {"a": "2"}


def test_apply_wants_a_manager_and_its_own_name(admin: httpx.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps/x"
    assert apply(admin, path, configmap("x"), manager="").status_code == 400
    assert apply(admin, path, configmap("y")).status_code == 400


def test_nothing_is_made_in_a_namespace_that_is_not_there(admin: httpx.Client) -> None:
    body = configmap("x")
    assert admin.post("/api/v1/namespaces/nowhere/configmaps", json=body).status_code == 404
    assert apply(admin, "/api/v1/namespaces/nowhere/configmaps/x", body).status_code == 404


def test_a_namespace_goes_with_everything_in_it(admin: httpx.Client) -> None:
    admin.post("/api/v1/namespaces", json={"metadata": {"name": "going"}})
    admin.post("/api/v1/namespaces/going/configmaps", json=configmap("x"))
    assert admin.delete("/api/v1/namespaces/going").status_code == 200
    assert admin.get("/api/v1/namespaces/going").status_code == 404
    admin.post("/api/v1/namespaces", json={"metadata": {"name": "going"}})
    assert admin.get("/api/v1/namespaces/going/configmaps").json()["items"] == []


def narrow(cluster: Any, folder: Path) -> httpx.Client:
    """`boss` of the manifest above: the admin certificate's user, without the group system:masters."""
    tls = cluster.root / "var/lib/rancher/k3s/server/tls"
    chain, signer = load_ca(tls / "client-ca.crt", tls / "client-ca.key")
    key = ec.generate_private_key(ec.SECP256R1())
    made = sign(key, chain[0], signer, "system:admin", dt.datetime.now(dt.UTC))
    crt, pem = folder / "boss.crt", folder / "boss.key"
    crt.write_bytes(made.public_bytes(ser.Encoding.PEM))
    pem.write_bytes(key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()))
    client: httpx.Client = cluster.http(cert=(str(crt), str(pem)))
    return client


@pytest.fixture
def boss(cluster: Any, tmp_path: Path, wait: Callable[..., Any]) -> Iterator[httpx.Client]:
    folder = cluster.root / "var/lib/rancher/k3s/server/manifests"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(MANIFEST)
    with narrow(cluster, tmp_path) as client:
        wait(lambda: client.get("/api/v1/namespaces").status_code == 200)
        yield client


def binding(role: str, kind: str = "ClusterRole") -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role.replace(":", "-")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "0xa"}],
    }


def test_manifests_are_applied_and_the_rights_they_give_are_all_there_are(boss: httpx.Client) -> None:
    assert boss.get(f"{RBAC}/clusterroles/edit%3Atenant").status_code == 200
    assert boss.get("/api/v1/namespaces/kube-system/secrets").status_code == 403
    assert boss.get("/api/v1/namespaces/default/frobs").status_code == 403, (
        "before anybody learns what there is"
    )
    assert apply(boss, "/api/v1/namespaces/mine", {"metadata": {"name": "mine"}}).status_code == 201


def test_nobody_gives_what_they_do_not_have(boss: httpx.Client) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    assert boss.post(path, json=binding("edit:tenant")).status_code == 201, "bound by name"
    assert boss.post(path, json=binding("boss")).status_code == 201, "all of which it has"
    assert boss.post(path, json=binding("more")).status_code == 403
    roles = f"{RBAC}/clusterroles"
    meta: dict[str, Any] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    own = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "resourceNames": ["worker-1"]}
    assert (
        apply(boss, f"{roles}/nodes", meta | {"metadata": {"name": "nodes"}, "rules": [own]}).status_code
        == 201
    )
    for more in (
        {"verbs": ["get", "delete"]},
        {"resources": ["secrets"]},
        {"verbs": ["*"]},
        {"apiGroups": ["*"]},
    ):
        body = meta | {"metadata": {"name": "nodes"}, "rules": [{**own, **more}]}
        assert apply(boss, f"{roles}/nodes", body).status_code == 403, more


def test_a_bindings_role_cannot_be_changed(boss: httpx.Client, cluster: Any) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    boss.post(path, json=binding("edit:tenant"))
    other = binding("edit:tenant")
    other["roleRef"]["kind"] = "Role"
    with cluster.http(cert=admin_pair(cluster)) as admin:
        headers = {"content-type": "application/merge-patch+json"}
        changed = admin.patch(f"{path}/edit-tenant", content=json.dumps(other), headers=headers)
    assert changed.status_code == 422


def test_impersonation_takes_the_right_to_and_gives_no_more(boss: httpx.Client) -> None:
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    boss.post(path, json=binding("edit:tenant"))
    who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    as_owner = {"Impersonate-User": "0xa", "Impersonate-Group": "owners"}
    info = boss.post(who, json={}, headers=as_owner).json()["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("0xa", ["owners", "system:authenticated"])
    assert boss.get("/api/v1/namespaces/default/configmaps", headers=as_owner).status_code == 200
    assert boss.get("/api/v1/namespaces/kube-system/configmaps", headers=as_owner).status_code == 403
    masters = {"Impersonate-User": "0xa", "Impersonate-Group": "system:masters"}
    assert boss.get("/api/v1/nodes", headers=masters).status_code == 403
    account = {"Impersonate-User": "system:serviceaccount:kube-system:x"}
    assert boss.get("/api/v1/namespaces", headers=account).status_code == 403
    assert boss.get("/api/v1/namespaces", headers={"Impersonate-Group": "owners"}).status_code == 500


def test_what_may_i(boss: httpx.Client) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for verb, resource, yes in (
        ("get", "nodes", True),
        ("delete", "nodes", False),
        ("list", "secrets", False),
    ):
        body = {"spec": {"resourceAttributes": {"verb": verb, "resource": resource}}}
        assert boss.post(path, json=body).json()["status"]["allowed"] is yes


def test_a_namespace_can_be_read_by_who_has_that_right_in_it(boss: httpx.Client, cluster: Any) -> None:
    with cluster.http(cert=admin_pair(cluster)) as admin:
        role = {
            "metadata": {"name": "look"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}],
        }
        admin.post(f"{RBAC}/clusterroles", json=role)
        admin.post(f"{RBAC}/namespaces/default/rolebindings", json=binding("look"))
    as_owner = {"Impersonate-User": "0xa"}
    assert boss.get("/api/v1/namespaces/default", headers=as_owner).status_code == 200
    assert boss.get("/api/v1/namespaces/kube-system", headers=as_owner).status_code == 403
    assert boss.get("/api/v1/namespaces", headers=as_owner).status_code == 403


def test_kubectl_gets_its_token_from_the_plugin_and_its_namespace_from_the_context(
    cluster: Any, tmp_path: Path
) -> None:
    token = cluster.add_token()  # any token that the server knows: what counts is where it came from
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [
            "-c",
            f"import os; assert os.environ['KUBERNETES_EXEC_INFO']; print({json.dumps(answer)!r})",
        ],
    }
    content["users"][0]["user"] = {"exec": plugin}
    content["contexts"][0]["context"]["namespace"] = "elsewhere"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    done = cluster.run("kubectl", "get", "configmaps", "--kubeconfig", str(path))
    assert done.returncode != 0
    assert 'User "system:bootstrap' in done.stderr
    assert "/namespaces/elsewhere/configmaps" in done.stderr
