"""register-worker: a seal token against a bootstrap token and a node password."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from k3s_daas.join import bootstrap_token, full_token
from k3s_daas.logs import get_logger
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.authenticate import check_timestamp, worker_of
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.index import TokenIndex, WorkerView
from k3s_daas_master.nodelist import NodeList
from k3s_daas_master.nodepasswords import NodePasswordKeeper
from k3s_daas_master.signatures import Signatures
from k3s_daas_master.store import Store

_ELIGIBLE = frozenset({WorkerStatus.PENDING, WorkerStatus.ACTIVE, WorkerStatus.BUSY, WorkerStatus.OFFLINE})
_log = get_logger("k3s_daas_master.registration")


@dataclass
class ClusterCa:
    """The k3s server's CA as it serves it, once known: its PEM bytes and k3s' hash of them."""

    pem: bytes = b""
    hash: bytes = b""


class Registrar:
    """Lets eligible workers join."""

    def __init__(
        self,
        *,
        index: TokenIndex,
        view: ChainView,
        store: Store,
        cluster: Cluster,
        passwords: NodePasswordKeeper,
        node_list: NodeList,
        ca: ClusterCa,
        signatures: Signatures,
        api_server: str,
        bootstrap_ttl_ms: int,
        clock: Clock,
    ) -> None:
        self._index = index
        self._view = view
        self._store = store
        self._cluster = cluster
        self._passwords = passwords
        self._node_list = node_list
        self._ca = ca
        self._signatures = signatures
        self._api_server = api_server
        self._bootstrap_ttl_ms = bootstrap_ttl_ms
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    async def register(
        self, header: str | None, node_id: str, timestamp_ms: int, public_key: bytes | None = None
    ) -> dict[str, str | int]:
        """The answer to a registration; it holds secrets. Raises ApiError.

        With `public_key` the worker's heartbeats must be signed from now on.
        """
        self._check_ready()
        token, worker = worker_of(self._index, header, node_id)
        if token.expires_at_ms <= self._view.now_ms():
            raise ApiError(
                "token_expired",
                "The seal token has expired.",
                f"generation {token.generation}, expired at {token.expires_at_ms} ms",
                "a token that is still good",
                "Rotate the worker's token and register again.",
            )
        if worker.status not in _ELIGIBLE:
            raise ApiError(
                "worker_not_eligible",
                "The worker may not join now.",
                f"status {worker.status} on-chain",
                "pending, active, busy or offline",
                "A jailed worker waits until its slash is cancelled or executed. One that left stakes anew.",
            )
        async with self._locks.setdefault(node_id, asyncio.Lock()):
            now = check_timestamp(self._store, self._clock, "register", node_id, timestamp_ms)
            expires_ms = now + self._bootstrap_ttl_ms
            token_id, secret = bootstrap_token()
            try:
                # First the passwords, everybody's, then the token: its holder finds no name free.
                await self._passwords.cover()
                password = await self._passwords.ensure(worker, token.generation)
                if password is None:
                    raise _status_changed()
                await self._node_list.have(node_id)
                await self._cluster.create_bootstrap_token(node_id, token_id, secret, now, expires_ms)
                for older in await self._cluster.bootstrap_tokens(node_id):
                    if older.token_id != token_id:
                        await self._cluster.delete_bootstrap_token(older.token_id)
                if not self._still_eligible(worker):
                    await self._cluster.delete_bootstrap_token(token_id)
                    raise _status_changed()
                if public_key is not None:
                    self._signatures.bind(worker, token.generation, public_key)
            except ClusterError as error:
                _log.error("registration failed", node_id=node_id, error=str(error))
                raise _cluster_unavailable() from None
        _log.info("worker registered", node_id=node_id, owner=worker.owner, generation=token.generation)
        return {
            "node_id": node_id,
            "server": self._api_server,
            "token": full_token(self._ca.hash, token_id, secret),
            "expires_at_ms": expires_ms,
            "node_password": password,
            "ca_pem": self._ca.pem.decode("ascii"),
        }

    def _still_eligible(self, worker: WorkerView) -> bool:
        """Events go on coming in while we wait for the cluster."""
        now = self._index.workers.get(worker.node_id)
        same = now is not None and (now.owner, now.registered_at_ms) == (
            worker.owner,
            worker.registered_at_ms,
        )
        return same and now is not None and now.status in _ELIGIBLE

    def _check_ready(self) -> None:
        if not self._index.loaded or not self._index.settled or not self._view.fresh():
            age = self._view.age_ms()
            found = "no checkpoint yet" if age is None else f"a view of {age // 1000} s"
            raise ApiError(
                "not_ready",
                "The master's view of the chain isn't good enough to let anybody in.",
                found if self._index.settled else f"{found}, not all of it read yet",
                f"at most {STALE_MS // 1000} s, all of it read",
                "Try again in a few seconds; if it lasts, check the master's Sui endpoints and clock.",
            )
        if not self._ca.hash:
            raise _cluster_unavailable()


def _status_changed() -> ApiError:
    return ApiError(
        "worker_not_eligible",
        "The worker's status changed while it registered.",
        "a worker that may no longer join",
        "pending, active, busy or offline",
        "Look at the worker's status on-chain.",
    )


def _cluster_unavailable() -> ApiError:
    return ApiError(
        "not_ready",
        "The master can't reach its Kubernetes API.",
        "no answer from the k3s server",
        "a running k3s server",
        "Try again in a few seconds; if it lasts, check k3s.service on the master.",
    )
