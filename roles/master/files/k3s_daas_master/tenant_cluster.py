"""What the tenants' loop asks of the Kubernetes API: list, apply and delete its own objects."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

from lightkube.core.resource import NamespacedResource
from lightkube.types import PatchType

from k3s_daas import tenancy
from k3s_daas_master.cluster import Cluster, ClusterError, calls
from k3s_daas_master.tenant_objects import Kind, Wanted

FIELD_MANAGER = "k3s-daas-tenants"
_PAGE = 500


@dataclass(frozen=True)
class Found:
    """An object as the API server has it."""

    body: dict[str, Any]

    @property
    def version(self) -> str:
        return str(self._meta.get("resourceVersion", ""))

    @property
    def terminating(self) -> bool:
        return "deletionTimestamp" in self._meta

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._meta.get("labels") or {})

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self._meta.get("annotations") or {})

    @property
    def name(self) -> str:
        return str(self._meta.get("name", ""))

    @property
    def namespace(self) -> str | None:
        value = self._meta.get("namespace")
        return None if value is None else str(value)

    @property
    def _meta(self) -> dict[str, Any]:
        return dict(self.body.get("metadata") or {})


class TenantApi(Protocol):
    """The four things; raises ClusterError."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Found | None: ...

    async def managed(self, kind: Kind) -> dict[tuple[str, str, str], Found]: ...

    async def apply(self, wanted: Wanted) -> Found: ...

    async def delete(self, kind: Kind, name: str, namespace: str | None = None) -> None: ...


class TenantCluster:
    """`TenantApi` over the master's connection."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def _client(self) -> Any:
        # Its overloads tell kinds with a namespace from those without, which a kind in a variable can't.
        return self._cluster.client

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Found | None:
        """One object, None when there is none."""
        with calls(f"read {kind.__name__} {name}"):
            found = await self._client.get(kind, name, **_in(namespace))
            return Found(found.to_dict())
        return None

    async def managed(self, kind: Kind) -> dict[tuple[str, str, str], Found]:
        """Every object of a kind that carries our label, by (kind, namespace, name)."""
        everywhere = {} if not _namespaced(kind) else {"namespace": "*"}
        result = {}
        with calls(f"list {kind.__name__} of tenants"):
            listed = self._client.list(
                kind, labels={tenancy.LABEL_MANAGED: "true"}, chunk_size=_PAGE, **everywhere
            )
            async for item in listed:
                found = Found(item.to_dict())
                result[(kind.__name__, found.namespace or "", found.name)] = found
        return result

    async def apply(self, wanted: Wanted) -> Found:
        """Server-side apply under our own field manager; what others changed of it is taken back.

        A binding's role can't be changed: one that names another role is made anew.
        """
        try:
            return await self._apply(wanted)
        except ClusterError as error:
            if error.status != 422 or "Binding" not in wanted.kind.__name__:
                raise
        await self.delete(wanted.kind, wanted.name, wanted.namespace)
        return await self._apply(wanted)

    async def _apply(self, wanted: Wanted) -> Found:
        with calls(f"apply {wanted.kind.__name__} {wanted.name}") as outcome:
            kind: Any = wanted.kind
            body = kind.from_dict(copy.deepcopy(wanted.body))
            done = await self._client.patch(
                wanted.kind,
                wanted.name,
                body,
                patch_type=PatchType.APPLY,
                field_manager=FIELD_MANAGER,
                force=True,
                **_in(wanted.namespace),
            )
            return Found(done.to_dict())
        assert outcome.missing
        raise ClusterError(f"apply {wanted.kind.__name__} {wanted.name}: its namespace is gone", 404)

    async def delete(self, kind: Kind, name: str, namespace: str | None = None) -> None:
        """Delete it; that it isn't there is fine."""
        with calls(f"delete {kind.__name__} {name}"):
            await self._client.delete(kind, name, **_in(namespace))


def _in(namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {"namespace": namespace}


def _namespaced(kind: Kind) -> bool:
    return issubclass(kind, NamespacedResource)
