"""The manifests of roles/k3s_server: narrow by what they say, whatever an API server makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from k3s_daas import tenancy
from k3s_daas_master.identity import USER
from k3s_daas_master.nodeaccess import NODE_USER, SHARED_USERS
from k3s_daas_master.nodelist import NAME as NODE_LIST
from k3s_daas_master.tenant_objects import DEFAULT_CONTAINER, DEFAULT_QUOTA

ROLES = Path(__file__).parents[2] / "roles"
FILES = ROLES / "k3s_server/files"


def objects(name: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    documents = yaml.safe_load_all((FILES / name).read_text())
    return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in documents}


RBAC, ADMISSION = objects("rbac.yaml"), objects("admission.yaml")
ROLE_KEYS = [key for key in RBAC if key[0] in ("Role", "ClusterRole")]


def rules(kind: str, namespace: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = RBAC[kind, namespace, name]["rules"]
    return found


@pytest.mark.parametrize("key", ROLE_KEYS, ids=" ".join)
def test_no_role_has_a_wildcard_where_it_counts(key: tuple[str, str, str]) -> None:
    for rule in rules(*key):
        assert "*" not in rule["verbs"]
        assert "*" not in rule.get("apiGroups", [])
        if "*" in rule.get("resources", []):
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
        assert "escalate" not in rule["verbs"]
        if set(rule["verbs"]) & {"bind"} or rule.get("resources") == ["groups"]:
            assert rule["resourceNames"], "by name alone"


def test_nothing_is_bound_to_the_systems_groups_nor_to_cluster_admin() -> None:
    """But that nodes may see one another."""
    of_the_system = set()
    for (kind, _, name), body in RBAC.items():
        if kind.endswith("Binding"):
            assert body["roleRef"]["name"].startswith("k3s-daas:")
            subjects = {subject["name"] for subject in body["subjects"]}
            of_the_system |= {(name, one) for one in subjects if not one.startswith("k3s-daas:")}
    assert of_the_system == {("k3s-daas:nodes", "system:nodes")}
    assert rules("ClusterRole", "", "k3s-daas:nodes") == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    ]


def test_nodes_are_checked_before_the_api_servers_own_rules() -> None:
    """It only ever denies, and a master that is down shuts nobody out."""
    config = yaml.safe_load((FILES / "authorization.yaml").read_text())
    assert [one["type"] for one in config["authorizers"]] == ["Webhook", "Node", "RBAC"]
    webhook = config["authorizers"][0]["webhook"]
    assert webhook["failurePolicy"] == "NoOpinion"
    assert webhook["unauthorizedTTL"] == "2s"
    [condition] = webhook["matchConditions"]
    for user in (*SHARED_USERS, NODE_USER):
        assert f"'{user}'" in condition["expression"]


def test_what_owners_do_not_get() -> None:
    granted = {
        (resource, verb)
        for rule in rules("ClusterRole", "", tenancy.TENANT_ROLE)
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    writes = {resource for resource, verb in granted if verb not in ("get", "list", "watch")}
    assert not writes & {
        *("namespaces", "resourcequotas", "limitranges", "rolebindings", "roles", "serviceaccounts"),
        *("serviceaccounts/token", "endpoints", "endpointslices", "daemonsets", "ingresses", "events"),
    }
    assert not {resource for resource, _ in granted} & {
        "pods/proxy",
        "services/proxy",
        "nodes",
        "pods/binding",
    }
    assert "impersonate" not in {verb for _, verb in granted}


def test_the_master_impersonates_no_group_of_the_system() -> None:
    (groups,) = [r for r in rules("ClusterRole", "", USER) if r.get("resources") == ["groups"]]
    assert set(groups["resourceNames"]) == {
        tenancy.OWNERS_GROUP,
        tenancy.READONLY_GROUP,
        "system:authenticated",
    }
    (bind,) = [r for r in rules("ClusterRole", "", USER) if "bind" in r["verbs"]]
    assert bind["resourceNames"] == [tenancy.TENANT_ROLE]
    for rule in rules("ClusterRole", "", USER):
        assert not {"secrets", "serviceaccounts", "serviceaccounts/token"} & set(rule["resources"])


def test_operators_see_no_secret() -> None:
    for name in ("k3s-daas:operator-view", "k3s-daas:operator-nodes"):
        for rule in rules("ClusterRole", "", name):
            assert "secrets" not in rule.get("resources", [])
            assert "" not in rule.get("apiGroups", []) or "*" not in rule.get("resources", [])


def test_every_policy_is_bound_denies_and_fails_closed() -> None:
    policies = {name for kind, _, name in ADMISSION if kind == "ValidatingAdmissionPolicy"}
    for name in policies:
        policy = ADMISSION["ValidatingAdmissionPolicy", "", name]["spec"]
        bound = ADMISSION["ValidatingAdmissionPolicyBinding", "", name]["spec"]
        assert policy["failurePolicy"] == "Fail"
        assert all(rule["message"] for rule in policy["validations"])
        assert (bound["policyName"], bound["validationActions"]) == (name, ["Deny"])
    assert len(ADMISSION) == 2 * len(policies)
    for name in ("k3s-daas-image-policy", NODE_LIST):
        params = ADMISSION["ValidatingAdmissionPolicyBinding", "", name]["spec"]["paramRef"]
        assert (params["name"], params["parameterNotFoundAction"]) == (name, "Deny")


def test_policies_name_the_groups_labels_and_users_that_the_code_gives() -> None:
    text = (FILES / "admission.yaml").read_text()
    for word in (
        *(tenancy.READONLY_GROUP, tenancy.OPERATORS_READONLY_GROUP, tenancy.LABEL_TENANT),
        *(tenancy.LABEL_MANAGED, tenancy.NAMESPACE_PREFIX, tenancy.TENANT_ROLE, USER),
    ):
        assert word in text


def test_the_roles_defaults_are_the_services() -> None:
    defaults = yaml.safe_load((ROLES / "master/defaults/main.yml").read_text())
    assert defaults["master_tenant_quota"] == dict(DEFAULT_QUOTA)
    assert defaults["master_tenant_container"] == {k: dict(v) for k, v in DEFAULT_CONTAINER.items()}
