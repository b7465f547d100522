"""The Kubernetes API, as far as the master needs it, in the master's own words.

Names of nodes come off the chain, where anybody may write; they are RFC 1123 labels by then (checked where
they are parsed), so they can be put into paths and selectors.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import msgspec
from lightkube import AsyncClient
from lightkube.config.client_adapter import AsyncClient as AsyncHttpClient
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.client import FieldSelector, LabelSelector
from lightkube.core.exceptions import ApiError as KubeApiError
from lightkube.core.exceptions import ConfigError as KubeConfigError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node, Pod, Secret
from lightkube.types import PatchType

from k3s_daas.join import (
    BOOTSTRAP_GROUP,
    BOOTSTRAP_TOKEN_SECRET_TYPE,
    NODE_PASSWORD_SECRET_TYPE,
    node_password_secret_name,
)

# The API server ends a watch after so many seconds, and the client goes on with a new one.
_WATCH_S = 240
# Longer than any kubelet is silent about its node.
_SILENT_S = 900.0

SYSTEM = "kube-system"
LEASES = "kube-node-lease"
LABEL_NODE = "k3s-daas/node"
LABEL_LOCKED = "k3s-daas/locked"
FINALIZER = "k3s-daas/node-password"
ANNOTATION_CREATED_MS = "k3s-daas/created-ms"
# Items that one answer of a list may hold: the whole of a large fleet at once would take tens of MB, and hold
# up everything else while it is parsed. And a freed answer is too small for a TLS buffer (memory.py).
_PAGE = 20
ANNOTATION_CORDONED = "k3s-daas/cordoned"
ANNOTATION_LEAVING = "k3s-daas/leaving"


class ClusterError(Exception):
    """The Kubernetes API didn't do it. `status` is its HTTP status, None when it didn't answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class NodeView:
    """A node. `lease_renewed_ms` is when its kubelet last renewed its lease (ms), None without a lease;
    `version` is the kubelet's, "" before it said so."""

    name: str
    ready: bool
    unschedulable: bool
    lease_renewed_ms: int | None
    cordoned_by_us: bool = False
    version: str = ""


@dataclass(frozen=True)
class NodePassword:
    """A node's password Secret. `ours`: made here, not by k3s. `locked`: it is random and nobody has it."""

    node_id: str
    hash: str
    locked: bool
    ours: bool = True


@dataclass(frozen=True)
class BootstrapToken:
    """A bootstrap token made by this service; its secret part isn't read back."""

    token_id: str
    node_id: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True)
class PodView:
    namespace: str
    name: str
    terminating: bool


@dataclass(frozen=True)
class OverduePod:
    """A pod that still runs after it should have gone; ms since 1970."""

    uid: str
    requested_ms: int
    deadline_ms: int


class Cluster:
    """One connection to the API server. Every method raises ClusterError and nothing else."""

    def __init__(
        self,
        config: KubeConfig,
        timeout_s: float = 5.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._transport = transport
        self._file: Path | None = None
        self._read_from: tuple[int, int] | None = None
        self._old: AsyncClient | None = None
        self._plain: httpx2.AsyncClient | None = None
        self._old_plain: httpx2.AsyncClient | None = None
        self._single, self._client = self._open(config)

    def _open(self, config: KubeConfig) -> tuple[SingleConfig, AsyncClient]:
        try:
            single = config.get()
            if single is None:
                raise KubeConfigError("it names no current context")
            # trust_env off: a proxy of the environment has no business between us and the API server.
            client = AsyncClient(
                single,
                timeout=httpx2.Timeout(self._timeout_s),
                trust_env=False,
                field_manager="k3s-daas-master",
                transport=self._transport,
            )
        except (KubeConfigError, KeyError, AssertionError, ValueError, OSError, ssl.SSLError) as error:
            raise ClusterError(
                f"The kubeconfig can't be used: {error}. Wanted that of `k3s-daas-master issue-kubeconfig`."
            ) from None
        return single, client

    @classmethod
    def from_file(cls, kubeconfig: Path, timeout_s: float = 5.0) -> Cluster:
        stamp = _stamp(kubeconfig)
        cluster = cls(_load(kubeconfig), timeout_s)
        cluster._file, cluster._read_from = kubeconfig, stamp
        return cluster

    async def reload(self) -> bool:
        """Use the kubeconfig anew if its file was replaced, as it is when its certificate is renewed.

        Whether it did. Requests under way end on the old connection, which is closed with the next change.
        """
        if self._file is None or _stamp(self._file) == self._read_from:
            return False
        stamp, config = _stamp(self._file), _load(self._file)
        opened = self._open(config)
        past = (self._old, self._old_plain)
        self._old, self._old_plain, self._plain = self._client, self._plain, None
        self._single, self._client = opened
        self._read_from = stamp
        for client in past:
            if client is not None:
                await client.aclose()
        return True

    @property
    def client(self) -> AsyncClient:
        """The connection, for the modules beside this one. Ask for it with each call: it may be replaced."""
        return self._client

    async def aclose(self) -> None:
        for client in (self._old, self._client, self._old_plain, self._plain):
            if client is not None:
                await client.aclose()

    def plain(self) -> httpx2.AsyncClient:
        """An HTTP client with this connection's TLS and identity, for calls with headers of their own.

        Ask for it with each call, like `client`.
        """
        if self._plain is None:
            settings = ConnectionParams(
                timeout=httpx2.Timeout(self._timeout_s), trust_env=False, transport=cast(Any, self._transport)
            )
            self._plain = AsyncHttpClient(self._single, settings)
        return self._plain

    async def cacerts(self) -> bytes:
        """The CA bundle as served at /cacerts, over TLS that the kubeconfig's CA verifies."""
        server = self._single.cluster
        data, file = server.certificate_auth_data, server.certificate_auth
        try:
            pem = base64.b64decode(data) if data else Path(file or "").read_bytes()
            context = ssl.create_default_context(cadata=pem.decode("ascii"))
            async with httpx2.AsyncClient(
                verify=context, timeout=self._timeout_s, trust_env=False, transport=self._transport
            ) as client:
                response = await client.get(f"{server.server.rstrip('/')}/cacerts")
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise ClusterError(
                f"GET /cacerts: {error or type(error).__name__}. Is the k3s server up?"
            ) from None
        if response.status_code != httpx2.codes.OK:
            raise ClusterError(f"GET /cacerts answered {response.status_code}", response.status_code)
        return response.content

    # -- nodes --------------------------------------------------------------------------------------------

    async def nodes(self) -> dict[str, NodeView]:
        """Every node by name, each with its lease."""
        with calls("list nodes"):
            renewed = {
                lease.metadata.name: _ms(lease.spec.renewTime)
                async for lease in self._client.list(Lease, namespace=LEASES, chunk_size=_PAGE)
                if lease.metadata and lease.spec
            }
            return {
                view.name: view
                async for node in self._client.list(Node, chunk_size=_PAGE)
                if (view := _node_view(node, renewed))
            }
        return {}

    async def watch_nodes(self) -> AsyncIterator[tuple[str, bool]]:
        """(name, Ready) of every node that is there, then of each that changes; a deleted one isn't Ready.

        Ends by raising ClusterError: when the API server goes, refuses, or says nothing for 15 minutes.
        """
        with calls("watch nodes") as outcome:
            events: Any = self._client.watch(Node, server_timeout=_WATCH_S)
            async with contextlib.aclosing(events):
                while (change := await asyncio.wait_for(anext(events, None), _SILENT_S)) is not None:
                    event, node = change
                    view = _node_view(node, {})
                    if view is not None:
                        yield view.name, view.ready and event != "DELETED"
        raise ClusterError(f"watch nodes: {'there is no such resource' if outcome.missing else 'it ended'}")

    async def cordon(self, node_id: str) -> bool:
        """Make the node take no new pods; False when there is no such node."""
        return await self._schedulable(node_id, False)

    async def uncordon(self, node_id: str) -> bool:
        """Undo `cordon`; False when there is no such node."""
        return await self._schedulable(node_id, True)

    async def cordon_for_leave(self, node_id: str) -> bool:
        """Like `cordon`, but not taken back when the worker isn't jailed: its owner wants it so."""
        return await self._schedulable(node_id, False, ANNOTATION_LEAVING)

    async def _schedulable(self, node_id: str, on: bool, annotation: str = ANNOTATION_CORDONED) -> bool:
        patch = {
            "metadata": {"annotations": {annotation: None if on else "true"}},
            "spec": {"unschedulable": None if on else True},
        }
        with calls(f"cordon {node_id}") as outcome:
            await self._client.patch(Node, node_id, patch, patch_type=PatchType.MERGE)
        return not outcome.missing

    async def delete_node(self, node_id: str) -> None:
        """Delete the node; no such node is fine."""
        with calls(f"delete node {node_id}"):
            await self._client.delete(Node, node_id)

    # -- pods ---------------------------------------------------------------------------------------------

    async def pods_to_drain(self, node_id: str) -> list[PodView]:
        """The pods that a drain must move: all but those of DaemonSets and the node's own static ones."""
        with calls(f"list pods of {node_id}"):
            return [
                PodView(
                    pod.metadata.namespace or "default",
                    pod.metadata.name or "",
                    bool(pod.metadata.deletionTimestamp),
                )
                async for pod in self._client.list(Pod, namespace="*", fields={"spec.nodeName": node_id})
                if pod.metadata and pod.spec and pod.spec.nodeName == node_id and _drained(pod)
            ]
        return []

    async def overdue_pods(self, node_id: str, before_ms: int) -> list[OverduePod]:
        """The node's pods that run although they should have gone before `before_ms`."""
        with calls(f"list pods of {node_id}"):
            return [
                found
                async for pod in self._client.list(Pod, namespace="*", fields={"spec.nodeName": node_id})
                if (found := _overdue(pod)) and found.deadline_ms < before_ms
            ]
        return []

    async def evict(self, pod: PodView) -> bool:
        """Ask the pod to go; False when a disruption budget forbids it now."""
        eviction = Pod.Eviction(metadata=ObjectMeta(name=pod.name, namespace=pod.namespace))
        try:
            with calls(f"evict {pod.namespace}/{pod.name}"):
                await self._client.create(eviction, pod.name, namespace=pod.namespace)
        except ClusterError as error:
            if error.status == 429:
                return False
            raise
        return True

    async def delete_pod(self, pod: PodView) -> None:
        """Delete the pod without waiting for its kubelet, which may be gone."""
        with calls(f"delete pod {pod.namespace}/{pod.name}"):
            await self._client.delete(Pod, pod.name, namespace=pod.namespace, grace_period=0)

    # -- node passwords -----------------------------------------------------------------------------------

    async def node_password(self, node_id: str) -> NodePassword | None:
        with calls(f"read node password of {node_id}"):
            return _node_password(
                await self._client.get(Secret, node_password_secret_name(node_id), namespace=SYSTEM)
            )
        return None

    async def node_passwords(self) -> dict[str, NodePassword]:
        """Every node password there is, k3s' own included, by node."""
        fields: FieldSelector = {"type": NODE_PASSWORD_SECRET_TYPE}
        with calls("list node passwords"):
            return {
                found.node_id: found
                async for secret in self._client.list(
                    Secret, namespace=SYSTEM, fields=fields, chunk_size=_PAGE
                )
                if (found := _node_password(secret))
            }
        return {}

    async def put_node_password(self, node_id: str, password_hash: str, *, locked: bool = False) -> None:
        """Set the password of `node_id`, whatever it was.

        Not immutable, unlike those that k3s makes, and with a finalizer that nobody takes off: k3s deletes a
        password with its Node, and when it is 10 minutes old without one. An update in place and a deletion
        that stays a mark leave no moment without a password, in which k3s would let anybody with a bootstrap
        token take the name.
        """
        secret = Secret(
            metadata=ObjectMeta(
                name=node_password_secret_name(node_id),
                namespace=SYSTEM,
                labels={LABEL_NODE: node_id, **({LABEL_LOCKED: "true"} if locked else {})},
                finalizers=[FINALIZER],
            ),
            type=NODE_PASSWORD_SECRET_TYPE,
            data={"hash": base64.b64encode(password_hash.encode()).decode()},
        )
        name = node_password_secret_name(node_id)
        try:
            with calls(f"set node password of {node_id}"):
                await self._client.create(secret)
            return
        except ClusterError as error:
            if error.status != 409:
                raise
        try:
            with calls(f"set node password of {node_id}") as outcome:
                await self._client.replace(secret)
            if not outcome.missing:
                return
        except ClusterError as error:
            # 422: immutable, made by k3s.
            if error.status != 422:
                raise
            with calls(f"delete node password of {node_id}"):
                await self._client.delete(Secret, name, namespace=SYSTEM)
        with calls(f"set node password of {node_id}"):
            await self._client.create(secret)

    # -- bootstrap tokens ---------------------------------------------------------------------------------

    async def create_bootstrap_token(
        self, node_id: str, token_id: str, secret: str, created_ms: int, expires_ms: int
    ) -> None:
        """Let the holder of `token_id.secret` join agents until `expires_ms`."""
        expires = dt.datetime.fromtimestamp(expires_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = Secret(
            metadata=ObjectMeta(
                name=f"bootstrap-token-{token_id}",
                namespace=SYSTEM,
                labels={LABEL_NODE: node_id},
                annotations={ANNOTATION_CREATED_MS: str(created_ms)},
            ),
            type=BOOTSTRAP_TOKEN_SECRET_TYPE,
            stringData={
                "token-id": token_id,
                "token-secret": secret,
                "expiration": expires,
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": BOOTSTRAP_GROUP,
                "description": f"k3s-daas: worker {node_id}",
            },
        )
        with calls(f"create bootstrap token for {node_id}"):
            await self._client.create(body)

    async def bootstrap_tokens(self, node_id: str | None = None) -> list[BootstrapToken]:
        """The bootstrap tokens that this service made, of one node if named; others are not its business."""
        fields: FieldSelector = {"type": BOOTSTRAP_TOKEN_SECRET_TYPE}
        labels: LabelSelector = {} if node_id is None else {LABEL_NODE: node_id}
        with calls("list bootstrap tokens"):
            return [
                found
                async for secret in self._client.list(
                    Secret, namespace=SYSTEM, fields=fields, labels=labels, chunk_size=_PAGE
                )
                if (found := _bootstrap_token(secret)) and node_id in (None, found.node_id)
            ]
        return []

    async def delete_bootstrap_token(self, token_id: str) -> None:
        with calls(f"delete bootstrap token {token_id}"):
            await self._client.delete(Secret, f"bootstrap-token-{token_id}", namespace=SYSTEM)


def _load(kubeconfig: Path) -> KubeConfig:
    try:
        kubeconfig.open("rb").close()
        return KubeConfig.from_file(kubeconfig)
    except Exception as error:
        # Any other error's text may quote the file, and the file holds a key.
        found = error.strerror if isinstance(error, OSError) else "no kubeconfig in it"
        raise ClusterError(
            f"The kubeconfig {kubeconfig} can't be read: {found}. Wanted that of "
            "`k3s-daas-master issue-kubeconfig`, which the unit runs as root; is k3s running?"
        ) from None


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns)


@dataclass
class _Outcome:
    missing: bool = False


@contextmanager
def calls(what: str) -> Iterator[_Outcome]:
    """Turn the client's errors into ClusterError; an object that isn't there only sets `missing`."""
    outcome = _Outcome()
    try:
        yield outcome
    except KubeApiError as error:
        status = error.status.code
        if status == 404:
            outcome.missing = True
            return
        raise ClusterError(
            f"{what}: the API server answered {status}: {error.status.message}", status
        ) from None
    except (KeyError, msgspec.MsgspecError) as error:
        # The client trips over answers without a content type or with a body that isn't what it asked for.
        raise ClusterError(f"{what}: unusable answer ({type(error).__name__}: {error})") from None
    except (httpx2.HTTPError, OSError) as error:
        code = error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
        if code == 404:
            outcome.missing = True
            return
        raise ClusterError(f"{what}: {error or type(error).__name__}. Is the k3s server up?", code) from None


def _node_view(node: Node, renewed: dict[str | None, int | None]) -> NodeView | None:
    if node.metadata is None or not node.metadata.name:
        return None
    conditions = (node.status.conditions if node.status else None) or []
    return NodeView(
        name=node.metadata.name,
        ready=any(c.type == "Ready" and c.status == "True" for c in conditions),
        unschedulable=bool(node.spec and node.spec.unschedulable),
        lease_renewed_ms=renewed.get(node.metadata.name),
        cordoned_by_us=ANNOTATION_CORDONED in (node.metadata.annotations or {}),
        version=(node.status.nodeInfo.kubeletVersion if node.status and node.status.nodeInfo else None) or "",
    )


def _drained(pod: Pod) -> bool:
    metadata = pod.metadata
    if metadata is None or "kubernetes.io/config.mirror" in (metadata.annotations or {}):
        return False
    return not any(o.kind == "DaemonSet" and o.controller for o in metadata.ownerReferences or [])


def _overdue(pod: Pod) -> OverduePod | None:
    metadata = pod.metadata
    if metadata is None or not metadata.uid or not pod.status or pod.status.phase != "Running":
        return None
    deadline_ms = _ms(metadata.deletionTimestamp)
    if deadline_ms is None:
        return None
    return OverduePod(
        metadata.uid, deadline_ms - 1000 * (metadata.deletionGracePeriodSeconds or 0), deadline_ms
    )


def _node_password(secret: Secret) -> NodePassword | None:
    suffix = node_password_secret_name("")
    metadata = secret.metadata
    if metadata is None or not metadata.name or not metadata.name.endswith(suffix):
        return None
    data = (secret.data or {}) if secret.type == NODE_PASSWORD_SECRET_TYPE else {}
    labels = metadata.labels or {}
    return NodePassword(
        metadata.name.removesuffix(suffix),
        _text(data.get("hash")),
        locked=labels.get(LABEL_LOCKED) == "true",
        ours=LABEL_NODE in labels,
    )


def _bootstrap_token(secret: Secret) -> BootstrapToken | None:
    metadata = secret.metadata
    if metadata is None or not (metadata.labels or {}).get(LABEL_NODE):
        return None
    data = secret.data or {}
    created = (metadata.annotations or {}).get(ANNOTATION_CREATED_MS, "")
    try:
        expires = dt.datetime.fromisoformat(_text(data.get("expiration")))
    except ValueError:
        expires = dt.datetime.fromtimestamp(0, dt.UTC)
    return BootstrapToken(
        token_id=_text(data.get("token-id")),
        node_id=(metadata.labels or {})[LABEL_NODE],
        created_ms=int(created) if created.isdigit() else 0,
        expires_ms=_ms(expires) or 0,
    )


def _text(encoded: str | None) -> str:
    """A Secret's value as text; "" for what is missing or isn't text (then it matches nothing)."""
    try:
        return base64.b64decode(encoded or "", validate=True).decode("ascii")
    except ValueError:
        return ""


def _ms(time: dt.datetime | None) -> int | None:
    return None if time is None else int(time.timestamp() * 1000)
