"""What an owner is in Kubernetes: its user name is its address, and this is its namespace and its groups."""

from __future__ import annotations

import re

OWNERS_GROUP = "k3s-daas:owners"
STALE_GROUP = "k3s-daas:stale"
OPERATORS_GROUP = "k3s-daas:operators"

_ADDRESS = re.compile(r"0x[0-9a-f]{64}", re.ASCII)


def tenant_namespace(owner: str) -> str:
    """The namespace of an owner's workloads. ValueError for what is no full Sui address."""
    if not _ADDRESS.fullmatch(owner):
        raise ValueError(f"Found owner {owner!r:.80}, wanted 0x and 64 lower-case hex digits.")
    return f"owner-{owner[2:42]}"


def groups_of(owner: str, stale: bool = False, operator: bool = False) -> list[str]:
    """The Kubernetes groups of an owner: never one of `system:`. ValueError as for `tenant_namespace`."""
    tenant_namespace(owner)
    groups = [STALE_GROUP if stale else OWNERS_GROUP]
    return [*groups, OPERATORS_GROUP] if operator else groups
