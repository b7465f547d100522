"""Node passwords: what ties a Kubernetes node name to the worker that staked for it.

k3s lets any holder of a bootstrap token take any node name whose password Secret doesn't exist. So the Secret
of every registered worker is there before a token is given out, is made again whenever k3s removes it, and is
a random one that nobody knows for names that may not come back.

A worker's password is derived, not stored: HMAC over who staked, when, and the seal token's generation it
registered with. A repeated registration gives the same password, and nothing secret per worker is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from k3s_daas.join import InvalidPasswordHash, node_password_hash, verify_node_password
from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.cluster import Cluster, NodePassword
from k3s_daas_master.errors import StateError
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.store import Registration, Store

_KEY_BYTES = 32
_log = get_logger("k3s_daas_master.nodepasswords")


def load_key(path: Path) -> bytes:
    """The master's random 32-byte key in `path` (0600), made on first use. Raises StateError."""
    try:
        if not path.exists():
            # Linked into place whole: a crash leaves no short key behind, and a key that exists is kept.
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StateError(f"{path} can be read by others; wanted mode 0600. Remove it; a new one is made.")
        key = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror or error}. Wanted a state directory we may write."
        ) from None
    if len(key) != _KEY_BYTES:
        raise StateError(f"{path} has {len(key)} bytes, wanted {_KEY_BYTES}. Remove it; a new one is made.")
    return key


def derive(key: bytes, worker: WorkerView, generation: int) -> str:
    """The node password (32 hex digits) of this stake of this owner at this token generation."""
    parts = ("k3s-daas node password v1", worker.node_id, worker.owner, worker.registered_at_ms, generation)
    return hmac.new(key, "\0".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()[:32]


class NodePasswordKeeper:
    """Keeps the password Secrets as the registry wants them."""

    def __init__(self, cluster: Cluster, index: TokenIndex, store: Store, key: bytes) -> None:
        self._cluster = cluster
        self._index = index
        self._store = store
        self._key = key
        # node id → a mark over the hash in the cluster and the password that it was verified with. Kept on
        # disk: at 50 ms each, a thousand workers would cost every start most of a minute.
        self._verified = store.verified_passwords()
        self._locks: dict[str, asyncio.Lock] = {}
        # scrypt takes 32 MiB and a core's time for each.
        self._hashing = asyncio.Semaphore(2)
        # Names whose Secret is known to be there, from the last look at all of them.
        self._covered: set[str] = set()

    async def ensure(self, worker: WorkerView, generation: int) -> str | None:
        """Have the worker's Secret in place for `generation` and return the password. Raises ClusterError.

        None when the worker was slashed or left in the meantime: its name stays locked.
        """
        async with self._lock(worker.node_id):
            now = self._index.workers.get(worker.node_id)
            if now is None or now.status is WorkerStatus.SLASHED:
                return None
            self._store.set_registration(
                worker.node_id, Registration(worker.owner, worker.registered_at_ms, generation)
            )
            password = derive(self._key, worker, generation)
            await self._have(worker.node_id, password, await self._cluster.node_password(worker.node_id))
            return password

    async def lock(self, node_id: str, *, afresh: bool = False) -> None:
        """Give the name a random password that nobody knows. Raises ClusterError.

        `afresh`: also when it has one. For a name whose Node is gone: k3s has made that Node the owner of the
        Secret, which is collected with it a moment later; one put anew has no owner and stays.
        """
        async with self._lock(node_id):
            found = None if afresh else await self._cluster.node_password(node_id)
            if found is None or not found.locked or not found.hash:
                await self._put_random(node_id)

    async def cover(self) -> None:
        """Have a Secret in place for every registered name; nothing to do, usually. Raises ClusterError.

        Comes before every bootstrap token: its holder could take any name that is still free.
        """
        missing = [w for w in self._index.workers.values() if w.node_id not in self._covered]
        await asyncio.gather(*(self._cover_one(worker) for worker in missing))

    async def _cover_one(self, worker: WorkerView) -> None:
        async with self._lock(worker.node_id):
            if worker.node_id not in self._covered:
                await self._settle(worker.node_id, await self._cluster.node_password(worker.node_id))

    async def reconcile(self) -> None:
        """One pass over every name: workers have theirs; those of the slashed and the gone are locked.

        Names that were never registered here are left alone: k3s' own node may hold one.
        """
        found = await self._cluster.node_passwords()
        self._covered = set(found)
        await self.cover()
        for node_id, current in found.items():
            async with self._lock(node_id):
                await self._settle(node_id, current)

    async def _settle(self, node_id: str, current: NodePassword | None) -> None:
        """Have the Secret that this name should have, going by the index now; `current` is what there is."""
        worker = self._index.workers.get(node_id)
        if worker is None:
            if current is not None and current.ours and not current.locked:
                # Its worker has left the registry.
                await self._put_random(node_id)
            return
        generation = self._generation(worker)
        if worker.status is WorkerStatus.SLASHED:
            if current is None or not current.locked:
                await self._put_random(node_id)
        elif generation is not None:
            await self._have(node_id, derive(self._key, worker, generation), current)
        elif current is None:
            # Staked without a token: nobody can register, and nobody else may take the name.
            await self._put_random(node_id)
        self._covered.add(node_id)

    def _generation(self, worker: WorkerView) -> int | None:
        """The generation the worker last registered with, else that of its token, None without either.

        A rotation alone changes nothing: the node still holds the password it joined with.
        """
        known = self._store.registration(worker.node_id)
        if known is not None and (known.owner, known.registered_at_ms) == (
            worker.owner,
            worker.registered_at_ms,
        ):
            return known.generation
        token = self._index.worker_token(worker.node_id)
        return None if token is None else token.generation

    async def _have(self, node_id: str, password: str, current: NodePassword | None) -> None:
        if current is not None and not current.locked and current.hash:
            if self._verified.get(node_id) == self._mark(current.hash, password):
                return
            try:
                async with self._hashing:
                    matches = await asyncio.to_thread(verify_node_password, current.hash, password)
            except InvalidPasswordHash:
                matches = False
            if matches:
                self._verify(node_id, self._mark(current.hash, password))
                return
            _log.warning("node password replaced", node_id=node_id, reason="it isn't the registered worker's")
        fresh = await self._hash(password)
        await self._cluster.put_node_password(node_id, fresh)
        self._verify(node_id, self._mark(fresh, password))

    async def _put_random(self, node_id: str) -> None:
        fresh = await self._hash(secrets.token_hex(32))
        await self._cluster.put_node_password(node_id, fresh, locked=True)
        self._verify(node_id, None)
        _log.info("node name locked", node_id=node_id)

    def _verify(self, node_id: str, mark: bytes | None) -> None:
        self._store.set_verified_password(node_id, mark)
        if mark is None:
            self._verified.pop(node_id, None)
        else:
            self._verified[node_id] = mark

    def _mark(self, password_hash: str, password: str) -> bytes:
        return hmac.new(self._key, f"{password_hash}\0{password}".encode(), hashlib.sha256).digest()

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(node_password_hash, password)

    def _lock(self, node_id: str) -> asyncio.Lock:
        return self._locks.setdefault(node_id, asyncio.Lock())
