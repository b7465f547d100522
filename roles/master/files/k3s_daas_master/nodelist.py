"""The list of names that may become a Node: the ConfigMap that the admission policy k3s-daas-nodes reads.

The second line behind the node passwords: whatever certificate somebody came by, a Node is only made for a
worker that is registered and neither slashed nor leaving.
"""

from __future__ import annotations

from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from k3s_daas_master.cluster import SYSTEM, Cluster, calls
from k3s_daas_master.index import TokenIndex

NAME = "k3s-daas-nodes"
_MANAGER = "k3s-daas-nodes"


class NodeList:
    """Keeps the list as the registry is. A ConfigMap holds 1 MiB: more than 10,000 of the longest names."""

    def __init__(self, cluster: Cluster, index: TokenIndex) -> None:
        self._cluster = cluster
        self._index = index
        self._listed: set[str] = set()

    async def have(self, node_id: str) -> None:
        """Have the name on the list, if it may be, before its worker joins. Raises ClusterError."""
        if node_id not in self._listed:
            await self.reconcile()

    async def reconcile(self) -> None:
        """Have exactly the registered, live workers on it, whoever changed it. Raises ClusterError."""
        wanted = {worker.node_id for worker in self._index.workers.values() if worker.live}
        found = await self._found()
        if found != wanted:
            await self._put(wanted)
        self._listed = wanted

    async def _found(self) -> set[str] | None:
        with calls("read the list of nodes"):
            listed = await self._cluster.client.get(ConfigMap, NAME, namespace=SYSTEM)
            return set(listed.data or {})
        return None

    async def _put(self, names: set[str]) -> None:
        body = ConfigMap(
            apiVersion="v1",
            kind="ConfigMap",
            metadata=ObjectMeta(name=NAME, namespace=SYSTEM),
            data=dict.fromkeys(sorted(names), ""),
        )
        with calls("write the list of nodes"):
            await self._cluster.client.patch(
                ConfigMap,
                NAME,
                body,
                namespace=SYSTEM,
                patch_type=PatchType.APPLY,
                field_manager=_MANAGER,
                force=True,
            )
