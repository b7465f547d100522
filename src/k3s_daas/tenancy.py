"""Who an owner is in Kubernetes: its namespace, its user and its groups.

One place for the master, the command line and the tests, because a second reading of these rules would let an
owner into another one's namespace.
"""

from __future__ import annotations

import re

#: Every owner with a live worker, and the same while the master's view of the chain is stale.
OWNERS_GROUP = "k3s-daas:owners"
READONLY_GROUP = "k3s-daas:owners-readonly"
#: Holders of the registry's OperatorCap, and the same while the view is stale.
OPERATORS_GROUP = "k3s-daas:operators"
OPERATORS_READONLY_GROUP = "k3s-daas:operators-readonly"

#: The ClusterRole that an owner has in its own namespace; roles/k3s_server installs it.
TENANT_ROLE = "k3s-daas:tenant-edit"

LABEL_TENANT = "k3s-daas/owner-namespace"
LABEL_MANAGED = "k3s-daas/managed"
ANNOTATION_OWNER = "k3s-daas/owner"
ANNOTATION_DELETE_AFTER = "k3s-daas/delete-after"

NAMESPACE_PREFIX = "owner-"
_SHOWN_DIGITS = 40
_ADDRESS = re.compile(r"0x[0-9a-f]{64}", re.ASCII)


class InvalidOwner(ValueError):
    """Not a Sui address as the chain renders it: 0x and 64 lower-case hex digits."""


def tenant_namespace(owner: str) -> str:
    """The namespace of `owner`: `owner-` and the first 40 hex digits of its address. Raises InvalidOwner.

    A name has at most 63 characters and an address 64 digits. 160 bits can't be hit on purpose; all the same
    the namespace names its owner in full in an annotation, and one that names another is never touched.
    """
    return NAMESPACE_PREFIX + short_owner(owner)


def short_owner(owner: str) -> str:
    """The first 40 hex digits of an owner's address, for names of objects. Raises InvalidOwner."""
    if _ADDRESS.fullmatch(owner) is None:
        raise InvalidOwner(f"Found owner {owner[:80]!r}, wanted an address: 0x and 64 lower-case hex digits.")
    return owner[2 : 2 + _SHOWN_DIGITS]


def groups_of(owner: str, *, stale: bool, operator: bool) -> list[str]:
    """The Kubernetes groups of the user `owner`, never one of `system:`.

    `stale`: the master's view of the chain is too old to let anybody write. RBAC can only add rights, and an
    owner's RoleBinding names the user; what takes the writing away is the admission policy
    `k3s-daas-stale-readonly`, which refuses every change by the read-only groups. Raises InvalidOwner.
    """
    short_owner(owner)
    groups = [READONLY_GROUP if stale else OWNERS_GROUP]
    if operator:
        groups.append(OPERATORS_READONLY_GROUP if stale else OPERATORS_GROUP)
    return groups
