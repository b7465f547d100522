"""What workers signed: the keys they registered, and the last heartbeats of each.

A worker that registered a key must sign. The key is bound to its stake (owner and time) and to the seal
token's generation that it registered with; that the key was the worker's is this master's word in any
evidence.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from k3s_daas import evidence
from k3s_daas.evidence import ConflictingHeartbeats, Signed
from k3s_daas.logs import get_logger
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import WorkerView
from k3s_daas_master.store import Store

_KEPT = 4
_log = get_logger("k3s_daas_master.signatures")


@dataclass(frozen=True)
class WorkerKey:
    """A registered public key (32 bytes) of one stake."""

    owner: str
    registered_at_ms: int
    generation: int
    public_key: bytes


@dataclass(frozen=True)
class _Kept:
    timestamp_ms: int
    key: WorkerKey
    signed: Signed


class Signatures:
    """Keys and the last signed heartbeats; both survive a restart (of the heartbeats, the last of each)."""

    def __init__(self, store: Store, registry_id: str) -> None:
        self._db = store.db
        self._registry_id = registry_id
        rows = self._db.execute(
            "SELECT node_id, owner, registered_at_ms, generation, public_key FROM worker_keys"
        )
        self._keys = {row[0]: WorkerKey(*row[1:]) for row in rows}
        self._kept: dict[str, deque[_Kept]] = {}
        for node_id, at_ms, body, signature in self._db.execute("SELECT * FROM signed_heartbeats"):
            if node_id in self._keys:
                self._remember(node_id, _Kept(at_ms, self._keys[node_id], Signed(body, signature)))

    def key_of(self, worker: WorkerView) -> WorkerKey | None:
        """The key of this very stake."""
        key = self._keys.get(worker.node_id)
        ours = key is not None and (key.owner, key.registered_at_ms) == (
            worker.owner,
            worker.registered_at_ms,
        )
        return key if ours else None

    def bind(self, worker: WorkerView, generation: int, public_key: bytes) -> None:
        """Its heartbeats must be signed with this key from now on. Raises sqlite3.Error."""
        key = WorkerKey(worker.owner, worker.registered_at_ms, generation, public_key)
        if self._keys.get(worker.node_id) == key:
            return
        self._db.execute(
            "INSERT OR REPLACE INTO worker_keys VALUES (?, ?, ?, ?, ?)",
            (worker.node_id, key.owner, key.registered_at_ms, generation, public_key),
        )
        self._keys[worker.node_id] = key
        _log.info("heartbeat key bound", node_id=worker.node_id, generation=generation)

    def verify(self, worker: WorkerView, body: bytes, header: str | None) -> Signed | None:
        """The signed body; None for a worker without a key. Raises ApiError."""
        key = self.key_of(worker)
        if key is None:
            return None
        try:
            signature = base64.b64decode(header or "", validate=True)
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, body)
        except (InvalidSignature, ValueError):
            raise ApiError(
                "signature_invalid",
                "The heartbeat isn't signed by the worker's key.",
                "no X-Worker-Signature header"
                if not header
                else "a signature by another key, or over other bytes",
                "X-Worker-Signature: base64 of the Ed25519 signature over the body, by the registered key",
                "If the worker's key was lost, remove its /var/lib/k3s-daas/agent-joined and restart the "
                "agent: it registers its new key.",
            ) from None
        return Signed(body, signature)

    def accepted(self, worker: WorkerView, timestamp_ms: int, signed: Signed) -> None:
        """Keep a heartbeat that was accepted. Raises sqlite3.Error."""
        key = self.key_of(worker)
        assert key is not None
        self._db.execute(
            "INSERT OR REPLACE INTO signed_heartbeats VALUES (?, ?, ?, ?)",
            (worker.node_id, timestamp_ms, signed.body, signed.signature),
        )
        self._remember(worker.node_id, _Kept(timestamp_ms, key, signed))

    def conflict(self, worker: WorkerView, timestamp_ms: int, signed: Signed) -> ConflictingHeartbeats | None:
        """Evidence, when the worker signed another body for the same moment before."""
        key = self.key_of(worker)
        for kept in self._kept.get(worker.node_id, ()):
            if kept.timestamp_ms == timestamp_ms and kept.key == key and kept.signed.body != signed.body:
                found = ConflictingHeartbeats(
                    self._registry_id, worker.node_id, key.generation, key.public_key, kept.signed, signed
                )
                # Judged as an arbiter will, before anybody is told.
                return found if evidence.judge(found).proven else None
        return None

    def _remember(self, node_id: str, kept: _Kept) -> None:
        self._kept.setdefault(node_id, deque(maxlen=_KEPT)).append(kept)


def parse_public_key(text: str) -> bytes:
    """The 32 bytes of a base64 public key. Raises ValueError."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError(f"{len(raw)} bytes, wanted 32")
    return raw
