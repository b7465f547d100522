"""The Kubernetes objects of one owner, as server-side apply takes them. Pure: nothing is asked or changed.

RBAC object names of the owner are `k3s-daas:owner:<first 40 hex digits>`, the rest is called `k3s-daas-…`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube.core.resource import Resource
from lightkube.resources.core_v1 import LimitRange, Namespace, ResourceQuota
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, RoleBinding

from k3s_daas import tenancy

Kind = type[Resource]
#: In the order in which they are made: a namespace before what is in it, limits before anybody may use it.
KINDS: tuple[Kind, ...] = (
    Namespace,
    ResourceQuota,
    LimitRange,
    NetworkPolicy,
    ClusterRole,
    ClusterRoleBinding,
    RoleBinding,
)
#: What gives an owner rights; goes at once when its last worker does.
ACCESS: tuple[Kind, ...] = (RoleBinding, ClusterRoleBinding, ClusterRole)

_RBAC = "rbac.authorization.k8s.io"
_POD_SECURITY = "pod-security.kubernetes.io"

#: What an owner's namespace may hold and use, as ResourceQuota's `hard`. No ports on other people's nodes.
DEFAULT_QUOTA: Mapping[str, str] = {
    "pods": "100",
    "requests.cpu": "16",
    "requests.memory": "32Gi",
    "limits.cpu": "32",
    "limits.memory": "64Gi",
    "requests.ephemeral-storage": "64Gi",
    "persistentvolumeclaims": "20",
    "requests.storage": "200Gi",
    "services": "50",
    "services.nodeports": "0",
    "services.loadbalancers": "0",
    "configmaps": "200",
    "secrets": "200",
    "count/deployments.apps": "100",
    "count/statefulsets.apps": "50",
    "count/jobs.batch": "200",
    "count/cronjobs.batch": "50",
    "count/networkpolicies.networking.k8s.io": "50",
}
#: For a container that asks for nothing: LimitRange's defaults. Without them a quota would refuse it.
DEFAULT_CONTAINER: Mapping[str, Mapping[str, str]] = {
    "default": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "1Gi"},
    "defaultRequest": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
}


@dataclass(frozen=True)
class Limits:
    """What every owner gets: `quota` is ResourceQuota's `hard`, `container` LimitRange's defaults."""

    quota: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_QUOTA))
    container: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: dict(DEFAULT_CONTAINER))


@dataclass(frozen=True)
class Wanted:
    """One object: its kind, and its body for server-side apply (without apiVersion and kind)."""

    kind: Kind
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        value = self.body["metadata"].get("namespace")
        return None if value is None else str(value)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.kind.__name__, self.namespace or "", self.name)


def of_owner(owner: str, node_ids: Iterable[str], limits: Limits) -> list[Wanted]:
    """Everything that an owner with these live workers has, in the order of KINDS. Raises InvalidOwner."""
    return [namespace(owner), *_limits(owner, limits), *_network(owner), *_access(owner, node_ids)]


def namespace(owner: str, delete_after: str | None = None) -> Wanted:
    """The owner's namespace; `delete_after` (RFC 3339) marks one whose owner has no worker any more."""
    annotations = {tenancy.ANNOTATION_OWNER: owner}
    if delete_after is not None:
        annotations[tenancy.ANNOTATION_DELETE_AFTER] = delete_after
    labels = {tenancy.LABEL_TENANT: "true"}
    for mode in ("enforce", "audit", "warn"):
        labels |= {f"{_POD_SECURITY}/{mode}": "restricted", f"{_POD_SECURITY}/{mode}-version": "latest"}
    return _wanted(Namespace, tenancy.tenant_namespace(owner), None, labels=labels, annotations=annotations)


def access_name(owner: str) -> str:
    """What an owner's cluster role and its binding are called."""
    return f"k3s-daas:owner:{tenancy.short_owner(owner)}"


def _limits(owner: str, limits: Limits) -> list[Wanted]:
    home = tenancy.tenant_namespace(owner)
    container = {"type": "Container", **{name: dict(values) for name, values in limits.container.items()}}
    return [
        _wanted(ResourceQuota, "k3s-daas", home, spec={"hard": dict(limits.quota)}),
        _wanted(LimitRange, "k3s-daas", home, spec={"limits": [container]}),
    ]


def _network(owner: str) -> list[Wanted]:
    """Nothing in and nothing out but names (CoreDNS) and the namespace's own pods.

    Policies add up: an owner opens more with one of its own; what it opens to another owner's pods stays shut
    on that one's side.
    """
    home = tenancy.tenant_namespace(owner)
    dns = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    both = ["Ingress", "Egress"]
    closed = {"podSelector": {}, "policyTypes": both, "egress": [dns]}
    inside = {
        "podSelector": {},
        "policyTypes": both,
        "ingress": [{"from": [{"podSelector": {}}]}],
        "egress": [{"to": [{"podSelector": {}}]}],
    }
    return [
        _wanted(NetworkPolicy, "k3s-daas-default-deny", home, spec=closed),
        _wanted(NetworkPolicy, "k3s-daas-same-namespace", home, spec=inside),
    ]


def _access(owner: str, node_ids: Iterable[str]) -> list[Wanted]:
    home, name = tenancy.tenant_namespace(owner), access_name(owner)
    user = [{"apiGroup": _RBAC, "kind": "User", "name": owner}]
    # RBAC can't restrict a list by name: an owner gets each of its nodes, and lists none.
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"], "resourceNames": sorted(node_ids)}
    annotations = {tenancy.ANNOTATION_OWNER: owner}
    nodes = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
    edit = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": tenancy.TENANT_ROLE}
    return [
        _wanted(ClusterRole, name, None, annotations=annotations, rules=[rule]),
        _wanted(ClusterRoleBinding, name, None, annotations=annotations, roleRef=nodes, subjects=list(user)),
        _wanted(RoleBinding, "k3s-daas:owner", home, annotations=annotations, roleRef=edit, subjects=user),
    ]


def _wanted(
    kind: Kind,
    name: str,
    home: str | None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **fields: Any,
) -> Wanted:
    metadata: dict[str, Any] = {"name": name, "labels": {tenancy.LABEL_MANAGED: "true", **(labels or {})}}
    if home is not None:
        metadata["namespace"] = home
    if annotations:
        metadata["annotations"] = dict(annotations)
    return Wanted(kind, {"metadata": metadata, **fields})


def holds(found: Any, wanted: Any) -> bool:
    """Whether an object as found has everything that is wanted of it; more is fine, except in lists."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(holds(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)
