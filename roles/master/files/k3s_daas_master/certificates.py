"""Which of the certificates that all nodes share a worker uses: its claims, made with its heartbeats.

k3s gives each node, beside the kubelet's own certificate, two whose users are the same on every node
(`system:kube-proxy`, `system:k3s-controller`). Nothing in them says whose they are, and k3s tells nobody to
whom it gave them. So each worker says which it uses, by SHA-256, and one that no worker of the fleet claims
opens nothing (nodeaccess.py). A claim belongs to one stake: who stakes the name anew doesn't take it over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k3s_daas_master.index import WorkerView
from k3s_daas_master.store import Store

#: One stake of one owner: (node id, owner, registered_at_ms).
Stake = tuple[str, str, int]


class Certificates:
    """The claims, durable: a master that starts must not shut out what has long been joined."""

    def __init__(self, store: Store) -> None:
        self._db = store.db
        self._claims: dict[str, tuple[Stake, frozenset[str]]] = {}
        self._holders: dict[str, set[str]] = {}
        rows = self._db.execute("SELECT node_id, owner, registered_at_ms, sha256s FROM certificates")
        for node_id, owner, registered_at_ms, sha256s in rows:
            self._put((node_id, owner, registered_at_ms), frozenset(sha256s.split()))

    def claim(self, worker: WorkerView, sha256s: Sequence[str]) -> None:
        """From now on the worker uses these (hex) and no others. Raises sqlite3.Error."""
        stake, wanted = stake_of(worker), frozenset(sha256s)
        if self._claims.get(worker.node_id, (stake, frozenset())) == (stake, wanted):
            return
        self._db.execute(
            "INSERT OR REPLACE INTO certificates VALUES (?, ?, ?, ?)", (*stake, " ".join(sorted(wanted)))
        )
        self._put(stake, wanted)

    def holders(self, sha256: str) -> Iterator[Stake]:
        """The stakes that claim it."""
        for node_id in self._holders.get(sha256, ()):
            yield self._claims[node_id][0]

    def _put(self, stake: Stake, sha256s: frozenset[str]) -> None:
        node_id = stake[0]
        for old in self._claims.get(node_id, (stake, frozenset()))[1]:
            self._holders[old].discard(node_id)
            if not self._holders[old]:
                del self._holders[old]
        self._claims[node_id] = (stake, sha256s)
        for new in sha256s:
            self._holders.setdefault(new, set()).add(node_id)


def stake_of(worker: WorkerView) -> Stake:
    return worker.node_id, worker.owner, worker.registered_at_ms
