"""A whole master in one process: real parts, an in-memory chain registry, and a Kubernetes API over HTTP.

`FakeChain` is a fake: it keeps the registry's records and gives out events shaped as the node renders them,
so the real parsing runs. `FakeKube` answers the real client library with the API's verbs, statuses and
conflicts, and records what was asked in which order.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lightkube.config.kubeconfig import KubeConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas import attestation, join, logs, seal
from k3s_daas.chain import CheckpointEvents, Event, Receipt
from k3s_daas.registry import (
    Binding,
    Deployment,
    Master,
    RegistryConfig,
    SealTokenRecord,
    SlashProposal,
    Snapshot,
    Worker,
    WorkerStatus,
)
from k3s_daas_master.assembly import assemble
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.config import Config
from k3s_daas_master.http import api_app
from k3s_daas_master.nsm import SecurityModule
from k3s_daas_master.request_rows import Scheduled
from k3s_daas_master.state import State
from k3s_daas_master.store import Store
from k3s_daas_master.webhook import Webhook

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path

PACKAGE = "0x" + "aa" * 32
REGISTRY = "0x" + "bb" * 32
ADDRESS = "0x" + "cc" * 32
OPERATOR_CAP = "0x" + "dd" * 32
OWNER_A = "0x" + "0a" * 32
OWNER_B = "0x" + "0b" * 32
START_MS = 1_790_000_000_000
DAY_MS = 86_400_000


class FakeClock(Clock):
    """Hands that the test turns."""

    def __init__(self) -> None:
        self.ms = START_MS
        self.elapsed = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.elapsed += seconds


@dataclass
class FakeEndpoint:
    """One Sui endpoint, which may be down or lag."""

    chain: FakeChain
    endpoint: str = "https://fullnode.invalid:443"
    error: Exception | None = None
    behind_ms: int = 0

    async def latest_checkpoint(self) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        tip = self.chain.log[-1]
        return tip.sequence, tip.timestamp_ms - self.behind_ms


class FakeChain:
    """The registry's records and its checkpoints, in memory. Every change is an event in a checkpoint."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.workers: dict[str, Worker] = {}
        self.worker_tokens: dict[str, SealTokenRecord] = {}
        self.owner_tokens: dict[str, SealTokenRecord] = {}
        self.master: Master | None = Master(1, ADDRESS, "", "", b"", 0)
        self.log: list[CheckpointEvents] = [CheckpointEvents(100, clock.ms, [])]
        self.moved = asyncio.Event()
        self.status_calls: list[dict[str, WorkerStatus]] = []
        self.announcements: list[tuple[str, str, bytes]] = []
        self.operator: str | None = None
        self.refuse_statuses: Callable[[Mapping[str, WorkerStatus]], Exception | None] = lambda _: None
        self.refuse_reads: Exception | None = None
        self.opened_after: list[int | None] = []
        self.balance_mist = 10**9
        self.caps: set[tuple[str, str]] = set()
        self.proposals: list[tuple[str, int, bytes]] = []
        self.refuse_proposals: Callable[[], Exception | None] = lambda: None
        self.endpoints_left = 0
        self.gas_price_mist = 750
        self.endpoints = [FakeEndpoint(self)]
        #: Base58 of 32 bytes of 1.
        self.chain_id = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"
        self.attestations: list[bytes] = []
        # What other endpoints say of the master.
        self.masters_elsewhere: list[Master | None] = []
        self.refuse_attestations: Callable[[], Exception | None] = lambda: None
        self._digests = 0

    # what the master calls

    async def latest_checkpoint(self) -> tuple[int, int]:
        self._reading()
        return self.log[-1].sequence, self.log[-1].timestamp_ms

    def all_endpoints(self) -> list[FakeEndpoint]:
        return self.endpoints

    async def reference_gas_price(self) -> int:
        self._reading()
        return self.gas_price_mist

    async def checkpoints(
        self, after: int | None, packages: Iterable[str] | None = None, digest: str | None = None
    ) -> AsyncGenerator[CheckpointEvents, None]:
        self.opened_after.append(after)
        done = self.log[-1].sequence if after is None else after
        while True:
            self.moved.clear()
            for batch in [b for b in self.log if b.sequence > done]:
                yield batch
                done = batch.sequence
            await self.moved.wait()
            self._reading()

    async def cap_holder(self, kind: str, cap_id: str) -> str | None:
        self._reading()
        assert (kind, cap_id) == ("OperatorCap", OPERATOR_CAP)
        return self.operator

    def leave_endpoint(self) -> None:
        self.endpoints_left += 1

    async def balance(self, address: str) -> int:
        self._reading()
        assert address == ADDRESS
        return self.balance_mist

    async def snapshot(self) -> Snapshot:
        self._reading()
        config = RegistryConfig(
            REGISTRY,
            f"{PACKAGE}::worker_registry::Registry",
            1,
            "test",
            True,
            frozenset(),
            10**9,
            0,
            0,
            1000,
            False,
            0,
            0,
            len(self.workers),
            "0x1",
            "0x2",
            self.master,
        )
        return Snapshot(
            config,
            dict(self.workers),
            dict(self.worker_tokens),
            dict(self.owner_tokens),
            self.master,
            self.log[-1].sequence,
        )

    async def worker(self, node_id: str) -> Worker | None:
        self._reading()
        return self.workers.get(node_id)

    async def set_statuses(self, statuses: Mapping[str, WorkerStatus]) -> Receipt:
        error = self.refuse_statuses(statuses)
        if error is not None:
            raise error
        self.status_calls.append(dict(statuses))
        for node_id, status in statuses.items():
            self.set_status(node_id, status)
        return Receipt("digest", self.log[-1].sequence, 1000, [], {})

    async def find_cap(self, kind: str, holder: str) -> str | None:
        self._reading()
        return "0xca9" if (kind, holder) in self.caps else None

    async def propose_slash(self, node_id: str, reason: int, evidence_hash: bytes) -> Receipt:
        self.proposals.append((node_id, reason, evidence_hash))
        error = self.refuse_proposals()
        if error is not None:
            raise error
        old = self.workers[node_id]
        proposal = SlashProposal(reason, evidence_hash, self.clock.ms, self.clock.ms, old.status)
        self.workers[node_id] = replace(old, proposal=proposal)
        self.set_status(node_id, WorkerStatus.JAILED)
        return Receipt("proposed", self.log[-1].sequence, 1000, [], {})

    async def announce_master(self, endpoint: str, api_server: str, ca_hash: bytes) -> Receipt:
        assert self.master is not None
        self.announcements.append((endpoint, api_server, ca_hash))
        self.master = replace(self.master, endpoint=endpoint, api_server=api_server, ca_hash=ca_hash)
        self.emit(
            "k8s_gateway::MasterAnnouncedEvent",
            epoch=str(self.master.epoch),
            endpoint=endpoint,
            api_server=api_server,
            ca_hash=b64(ca_hash),
            public_key="",
            attestation_expires_at_ms="0",
        )
        return Receipt("digest", self.log[-1].sequence, 1000, [], {})

    async def masters(self) -> list[Master | None]:
        self._reading()
        return [self.master, *self.masters_elsewhere]

    async def register_master(self, document: bytes) -> Receipt:
        """Believes every document; that the contract doesn't is tested with the contract."""
        self.attestations.append(document)
        if (error := self.refuse_attestations()) is not None:
            raise error
        said = attestation.parse(document)
        assert said.user_data is not None
        assert said.public_key is not None
        # prefix, then 32 bytes each: chain, package, registry, account, CA, configuration
        chain_id, _, _, account_, ca_hash, config = (said.user_data[18:][i * 32 :][:32] for i in range(6))
        account = "0x" + account_.hex()
        if self.master is None or (self.master.account, self.master.public_key) != (account, said.public_key):
            epoch = 1 if self.master is None else self.master.epoch + 1
            self.appoint(account, epoch)
        binding = Binding(chain_id, ca_hash, config)
        self.attest(said.public_key, said.pcr(0), said.pcr(3), said.timestamp_ms, binding)
        return Receipt("attested", self.log[-1].sequence, 1000, [], {})

    def _reading(self) -> None:
        if self.refuse_reads is not None:
            raise self.refuse_reads

    # what happens on-chain

    def emit(
        self, kind: str, registry: str = REGISTRY, package: str = PACKAGE, **fields: Any
    ) -> CheckpointEvents:
        """One event in a checkpoint of its own."""
        self._digests += 1
        event = Event(
            f"digest{self._digests}", 0, f"{package}::{kind}", {"registry": registry, **fields}, OWNER_A
        )
        return self.checkpoint([event])

    def checkpoint(self, events: list[Event] | None = None) -> CheckpointEvents:
        batch = CheckpointEvents(self.log[-1].sequence + 1, self.clock.ms, events or [])
        self.log.append(batch)
        self.moved.set()
        return batch

    def stake(self, node_id: str, owner: str = OWNER_A, status: WorkerStatus = WorkerStatus.PENDING) -> str:
        """Stake a worker and mint its token; returns the token."""
        self.workers[node_id] = Worker(
            node_id, owner, 10**9, status, "0x5", owner, self.clock.ms, self.clock.ms, 10**9, 0, 0, 1000, 100
        )
        self.emit(
            "worker_registry::WorkerRegisteredEvent",
            node_id=node_id,
            owner=owner,
            stake_amount=str(10**9),
            withdrawal_address=owner,
            timestamp_ms=str(self.clock.ms),
        )
        if status is not WorkerStatus.PENDING:
            self.set_status(node_id, status)
        return self.mint(node_id, owner)

    def mint(self, node_id: str, owner: str = OWNER_A, *, days: float = 90) -> str:
        """Create or rotate a worker's token ("" for the owner's own); returns the token."""
        token = seal.make()
        table, key = (self.worker_tokens, node_id) if node_id else (self.owner_tokens, owner)
        scope = "worker" if node_id else "owner"
        generation = table[key].generation + 1 if key in table else 1
        expires = self.clock.ms + int(days * DAY_MS)
        table[key] = SealTokenRecord(
            scope, node_id, owner, seal.commitment(token), generation, self.clock.ms, expires, False
        )
        self.emit(
            "k8s_gateway::SealTokenCreatedEvent",
            scope=scope,
            node_id=node_id,
            owner=owner,
            commitment=b64(seal.commitment(token)),
            generation=str(generation),
            expires_at_ms=str(expires),
        )
        return token

    def revoke(self, node_id: str, owner: str = OWNER_A) -> None:
        table, key = (self.worker_tokens, node_id) if node_id else (self.owner_tokens, owner)
        table[key] = replace(table[key], revoked=True)
        self.emit(
            "k8s_gateway::SealTokenRevokedEvent",
            scope="worker" if node_id else "owner",
            node_id=node_id,
            owner=owner,
            generation=str(table[key].generation),
        )

    def set_status(self, node_id: str, status: WorkerStatus) -> None:
        old = self.workers[node_id]
        self.workers[node_id] = replace(old, status=status, status_changed_at_ms=self.clock.ms)
        self.emit(
            "worker_registry::WorkerStatusChangedEvent",
            node_id=node_id,
            old_status={"@variant": old.status.value.title()},
            new_status={"@variant": status.value.title()},
            timestamp_ms=str(self.clock.ms),
        )

    def deposit(self, node_id: str, mist: int) -> None:
        old = self.workers[node_id]
        self.workers[node_id] = replace(old, stake_mist=old.stake_mist + mist)
        self.emit(
            "worker_registry::StakeDepositedEvent",
            node_id=node_id,
            owner=old.owner,
            amount=str(mist),
            stake=str(old.stake_mist + mist),
            timestamp_ms=str(self.clock.ms),
        )

    def appoint(self, account: str, epoch: int) -> None:
        """Another master takes over."""
        self.master = Master(epoch, account, "", "", b"", 0)
        self.emit("nautilus::MasterAppointedEvent", epoch=str(epoch), account=account)

    def attest(self, public_key: bytes, pcr0: bytes, pcr3: bytes, at_ms: int, binding: Binding) -> None:
        """The live master's attestation, for a day."""
        assert self.master is not None
        self.master = replace(
            self.master,
            public_key=public_key,
            pcr0=pcr0,
            pcr3=pcr3,
            attested_at_ms=at_ms,
            attestation_expires_at_ms=at_ms + DAY_MS,
            binding=binding,
        )
        self.emit(
            "nautilus::MasterAttestedEvent",
            epoch=str(self.master.epoch),
            account=self.master.account,
            public_key=b64(public_key),
            pcr0=b64(pcr0),
            pcr3=b64(pcr3),
            attested_at_ms=str(at_ms),
            expires_at_ms=str(at_ms + DAY_MS),
            **{name: b64(value) for name, value in vars(binding).items()},
        )

    def slash(self, node_id: str) -> None:
        old = self.workers[node_id]
        self.workers[node_id] = replace(
            old, status=WorkerStatus.SLASHED, stake_mist=9 * 10**8, status_changed_at_ms=self.clock.ms
        )
        self.emit(
            "slashing::WorkerSlashedEvent",
            node_id=node_id,
            owner=old.owner,
            amount=str(10**8),
            remaining=str(9 * 10**8),
            timestamp_ms=str(self.clock.ms),
        )

    def withdraw(self, node_id: str) -> None:
        """An exited worker's record goes; so does its token."""
        old = self.workers.pop(node_id)
        self.worker_tokens.pop(node_id, None)
        self.emit(
            "worker_registry::StakeWithdrawnEvent",
            node_id=node_id,
            recipient=old.owner,
            amount=str(old.stake_mist),
            timestamp_ms=str(self.clock.ms),
        )


def b64(raw: bytes | str) -> str:
    return base64.b64encode(raw.encode() if isinstance(raw, str) else raw).decode()


def make_ca(folder: Path) -> tuple[Path, Path]:
    """A CA as k3s makes it (EC key, one certificate) in `folder`: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k3s-server-ca@1790000000")])
    usage = dict.fromkeys(
        (
            "content_commitment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_encipherment=True, key_cert_sign=True, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "server-ca.crt", folder / "server-ca.key"
    cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return cert_path, key_path


@dataclass
class FakeKube:
    """The part of the Kubernetes API that the master uses."""

    clock: FakeClock
    ca_pem: bytes
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    # The names in the ConfigMap k3s-daas-nodes; None before it is made.
    node_list: list[str] | None = None
    # What becomes of an evicted pod: "gone", "stuck" (terminates for ever), "refused" (a budget forbids it).
    eviction: str = "gone"
    broken: bool = False
    # Whether what a deleted node owned goes at once, or only with `collect_garbage`; both happen.
    prompt_garbage_collection: bool = True

    def app(self) -> Starlette:
        secrets = "/api/v1/namespaces/kube-system/secrets"
        pod = "/api/v1/namespaces/{ns}/pods/{name}"
        return Starlette(
            routes=[
                Route("/cacerts", self._cacerts),
                Route("/api/v1/nodes", self._list(self.nodes, "Node")),
                Route("/api/v1/nodes/{name}", self._node, methods=["PATCH", "DELETE"]),
                Route(
                    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
                    self._list(self.leases, "Lease"),
                ),
                Route(secrets, self._secrets, methods=["GET", "POST"]),
                Route(secrets + "/{name}", self._secret, methods=["GET", "PUT", "DELETE"]),
                Route(
                    "/api/v1/namespaces/kube-system/configmaps/k3s-daas-nodes",
                    self._node_list,
                    methods=["GET", "PATCH"],
                ),
                Route("/api/v1/pods", self._list(self.pods, "Pod")),
                Route(pod, self._pod, methods=["DELETE"]),
                Route(pod + "/eviction", self._evict, methods=["POST"]),
            ]
        )

    def add_node(self, name: str, *, ready: bool = True) -> None:
        self.nodes[name] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
        }
        self.renew(name)

    def renew(self, name: str) -> None:
        """The kubelet renews its lease now."""
        seconds, ms = divmod(self.clock.ms, 1000)
        at = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms * 1000:06d}Z"
        self.leases[name] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": at},
        }

    def keep_running(self, name: str, *, deadline_ms: int, grace_s: int = 30) -> None:
        """A pod that was told to go by then, and whose kubelet says that it runs."""
        at = dt.datetime.fromtimestamp(deadline_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.pods[name]["metadata"] |= {"deletionTimestamp": at, "deletionGracePeriodSeconds": grace_s}
        self.pods[name]["metadata"]["uid"] = f"uid-{name}"
        self.pods[name]["status"] = {"phase": "Running"}

    def add_pod(self, name: str, node: str, *, owner_kind: str = "ReplicaSet", mirror: bool = False) -> None:
        self.pods[name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "annotations": {"kubernetes.io/config.mirror": "x"} if mirror else {},
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": owner_kind, "name": "o", "uid": "u", "controller": True}
                ],
            },
            "spec": {"nodeName": node, "containers": []},
        }

    def password_hash(self, node_id: str) -> str | None:
        found = self.secrets.get(f"{node_id}.node-password.k3s")
        return None if found is None else base64.b64decode(found["data"]["hash"]).decode()

    def locked(self, node_id: str) -> bool:
        found = self.secrets.get(f"{node_id}.node-password.k3s", {})
        return bool(found) and found["metadata"]["labels"].get("k3s-daas/locked") == "true"

    def bootstrap_tokens(self) -> list[dict[str, str]]:
        return [
            {k: base64.b64decode(v).decode() for k, v in s["data"].items()}
            for s in self.secrets.values()
            if s["type"] == "bootstrap.kubernetes.io/token"
        ]

    def put_immutable_password(self, node_id: str, password: str) -> None:
        """What k3s does when a node joins under a name without a password."""
        name = f"{node_id}.node-password.k3s"
        self.secrets[name] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "kube-system", "labels": {}},
            "type": join.NODE_PASSWORD_SECRET_TYPE,
            "immutable": True,
            "data": {"hash": b64(join.node_password_hash(password))},
        }

    def _own_passwords(self) -> None:
        """What k3s' controller does: a node that is there owns its password."""
        for name in self.nodes:
            if found := self.secrets.get(f"{name}.node-password.k3s"):
                found["metadata"]["ownerReferences"] = [
                    {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name}
                ]

    def collect_garbage(self) -> None:
        """Delete what nodes own that are gone."""
        for key, found in list(self.secrets.items()):
            if any(owner["name"] not in self.nodes for owner in found["metadata"].get("ownerReferences", [])):
                del self.secrets[key]

    def asked(self, *methods: str) -> list[str]:
        """The requests of these methods, in order."""
        return [f"{m} {p}" for m, p in self.requests if m in methods]

    # handlers

    def _note(self, request: Request) -> Response | None:
        self.requests.append((request.method, request.url.path))
        return status(500, "InternalError") if self.broken else None

    async def _cacerts(self, request: Request) -> Response:
        return self._note(request) or PlainTextResponse(self.ca_pem)

    def _list(self, table: dict[str, dict[str, Any]], kind: str) -> Callable[[Request], Any]:
        async def handler(request: Request) -> Response:
            if refusal := self._note(request):
                return refusal
            items = [item for item in table.values() if _selected(item, request)]
            start = int(request.query_params.get("continue", 0))
            end = start + int(request.query_params.get("limit", len(items)))
            more = {"continue": str(end)} if end < len(items) else {}
            body = {"apiVersion": "v1", "kind": f"{kind}List", "metadata": more, "items": items[start:end]}
            return JSONResponse(body)

        return handler

    async def _node(self, request: Request) -> Response:
        if refusal := self._note(request):
            return refusal
        name = request.path_params["name"]
        if name not in self.nodes:
            return status(404, "NotFound")
        if request.method == "DELETE":
            self._own_passwords()
            del self.nodes[name]
            if self.prompt_garbage_collection:
                self.collect_garbage()
            return status(200, "Success")
        assert request.headers["content-type"] == "application/merge-patch+json"
        _merge(self.nodes[name], await request.json())
        return JSONResponse(self.nodes[name])

    async def _secrets(self, request: Request) -> Response:
        if request.method == "GET":
            handler: Any = self._list(self.secrets, "Secret")
            answer: Response = await handler(request)
            return answer
        if refusal := self._note(request):
            return refusal
        body = await request.json()
        name = body["metadata"]["name"]
        if name in self.secrets:
            return status(409, "AlreadyExists")
        self.secrets[name] = _stored(body)
        return JSONResponse(self.secrets[name], 201)

    async def _secret(self, request: Request) -> Response:
        if refusal := self._note(request):
            return refusal
        name = request.path_params["name"]
        if name not in self.secrets:
            return status(404, "NotFound")
        if request.method == "GET":
            return JSONResponse(self.secrets[name])
        if request.method == "DELETE":
            del self.secrets[name]
            return status(200, "Success")
        body = await request.json()
        if self.secrets[name].get("immutable") or body["type"] != self.secrets[name]["type"]:
            return status(422, "Invalid")
        self.secrets[name] = _stored(body)
        return JSONResponse(self.secrets[name])

    async def _node_list(self, request: Request) -> Response:
        if refusal := self._note(request):
            return refusal
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/apply-patch+yaml"
            self.node_list = sorted((await request.json()).get("data") or {})
        if self.node_list is None:
            return status(404, "NotFound")
        meta = {"name": "k3s-daas-nodes", "namespace": "kube-system"}
        data = dict.fromkeys(self.node_list, "")
        return JSONResponse({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})

    async def _pod(self, request: Request) -> Response:
        if refusal := self._note(request):
            return refusal
        found = self.pods.pop(request.path_params["name"], None)
        return status(404, "NotFound") if found is None else status(200, "Success")

    async def _evict(self, request: Request) -> Response:
        if refusal := self._note(request):
            return refusal
        name = request.path_params["name"]
        body = await request.json()
        assert (body["apiVersion"], body["kind"]) == ("policy/v1", "Eviction")
        if name not in self.pods:
            return status(404, "NotFound")
        if self.eviction == "refused":
            return status(429, "TooManyRequests")
        if self.eviction == "stuck":
            self.pods[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        else:
            del self.pods[name]
        return status(201, "Success")


def status(code: int, reason: str) -> JSONResponse:
    outcome = "Success" if code < 400 else "Failure"
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": outcome,
        "code": code,
        "reason": reason,
        "message": reason,
    }
    return JSONResponse(body, code)


def _stored(body: dict[str, Any]) -> dict[str, Any]:
    body = dict(body)
    body.setdefault("apiVersion", "v1")
    body.setdefault("kind", "Secret")
    body["data"] = {
        **(body.get("data") or {}),
        **{k: b64(v) for k, v in (body.pop("stringData", None) or {}).items()},
    }
    body["metadata"].setdefault("labels", {})
    return body


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def _selected(item: dict[str, Any], request: Request) -> bool:
    selector = request.query_params.get("fieldSelector", "")
    for part in filter(None, selector.split(",")):
        path, _, wanted = part.partition("=")
        value: Any = item
        for step in path.split("."):
            value = value.get(step, {})
        if value != wanted:
            return False
    return True


@dataclass
class Bench:
    """One master with everything around it within reach."""

    state: State
    chain: FakeChain
    kube: FakeKube
    clock: FakeClock
    config: Config
    api: httpx.AsyncClient
    webhook: httpx.AsyncClient
    restart: Callable[[], Any]
    owner_a: str = OWNER_A
    owner_b: str = OWNER_B
    address: str = ADDRESS

    @staticmethod
    def refusal(response: httpx.Response) -> tuple[int, str]:
        """(HTTP status, error code) of a refusal; fails for one that lacks a field or shows a token."""
        error = response.json()["error"]
        assert set(error) == {"code", "message", "found", "wanted", "fix"}
        assert all(error[part] for part in ("message", "found", "wanted", "fix"))
        assert logs.redact(response.text) == response.text
        return response.status_code, error["code"]

    async def catch_up(self) -> None:
        """Let the running follower take in everything that is on the chain."""
        async with asyncio.timeout(10):
            index = self.state.index
            while self.state.view.sequence != self.chain.log[-1].sequence or not index.settled:
                await asyncio.sleep(0)

    async def register(self, token: str | None, node_id: str, **changes: Any) -> httpx.Response:
        body = {"node_id": node_id, "timestamp_ms": self.clock.ms, **changes}
        return await self.api.post("/api/v1/register-worker", json=body, headers=_header(token))

    async def beat(self, token: str | None, node_id: str, **changes: Any) -> httpx.Response:
        body = {
            "node_id": node_id,
            "timestamp_ms": self.clock.ms,
            "stake_status": "active",
            "stake_mist": 10**9,
            "running_pods": 3,
            "resource_usage": {"cpu_percent": 1.5},
            **changes,
        }
        return await self.api.post("/api/v1/nodes/heartbeat", json=body, headers=_header(token))

    async def signed_beat(
        self, token: str, node_id: str, key: Ed25519PrivateKey, signature: str | None = None, **changes: Any
    ) -> httpx.Response:
        """A heartbeat whose very bytes are signed with `key`, or that carries `signature` instead."""
        body = json.dumps({"node_id": node_id, "timestamp_ms": self.clock.ms, **changes}).encode()
        headers = {
            "X-Seal-Token": token,
            "Content-Type": "application/json",
            "X-Worker-Signature": b64(key.sign(body)) if signature is None else signature,
        }
        return await self.api.post("/api/v1/nodes/heartbeat", content=body, headers=headers)

    async def join_signing(self, node_id: str, owner: str = OWNER_A) -> tuple[str, Ed25519PrivateKey]:
        """A worker that registered a key and is active: (token, key)."""
        token, key = self.chain.stake(node_id, owner), Ed25519PrivateKey.generate()
        await self.catch_up()
        public = b64(key.public_key().public_bytes_raw())
        assert (await self.register(token, node_id, public_key=public)).status_code == 200
        self.clock.advance(1)
        self.kube.add_node(node_id)
        assert (await self.signed_beat(token, node_id, key)).status_code == 200
        await self.state.fleet.reconcile()
        await self.catch_up()
        assert self.state.index.workers[node_id].status is WorkerStatus.ACTIVE
        self.clock.advance(1)
        return token, key

    def end_request(self, request_id: int, node_id: str, *, missed: bool = False) -> None:
        """The store's record of a request that this master served for `node_id`, or missed."""
        rows, now = self.state.store.requests, self.clock.ms
        rows.note(Scheduled(request_id, OWNER_A, node_id, b"\x01" * 32, 0, 10**6, now + 60_000), now)
        if missed:
            rows.timed_out(request_id, True, 1, now)
            return
        result = b'{"outcome": "succeeded"}'
        rows.body(request_id, b"{}", ("list", "pods", None), now)
        assert rows.claiming(request_id, 1)
        assert rows.claimed(request_id)
        assert rows.executing(request_id, {})
        assert rows.executed(request_id, result, hashlib.sha256(result).digest(), None, now + 40)
        rows.completed(request_id, hashlib.sha256(result).digest(), 1, now + 50)

    async def review(self, token: str) -> dict[str, Any]:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        response = await self.webhook.post("/token-review", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()["status"]
        return answer

    async def join(self, node_id: str, owner: str = OWNER_A) -> str:
        """Take a worker the whole way to active; returns its token."""
        token = self.chain.stake(node_id, owner)
        await self.catch_up()
        assert (await self.register(token, node_id)).status_code == 200
        self.clock.advance(1)
        self.kube.add_node(node_id)
        assert (await self.beat(token, node_id)).status_code == 200
        await self.state.fleet.reconcile()
        await self.catch_up()
        assert self.state.index.workers[node_id].status is WorkerStatus.ACTIVE
        return token


def _header(token: str | None) -> dict[str, str]:
    return {} if token is None else {"X-Seal-Token": token}


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt with k3s' parameters takes a core 50 ms; that they are k3s' is tested with `join`."""
    monkeypatch.setattr(join, "_SCRYPT_LOG_N", 4)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        network="testnet",
        endpoints=["https://fullnode.invalid:443"],
        package_id=PACKAGE,
        registry_id=REGISTRY,
        tee_mode="simulated",
        endpoint="https://10.0.0.1:8443",
        api_server="https://10.0.0.1:6443",
        kubeconfig=tmp_path / "kubeconfig",
        key_file=tmp_path / "sui.key",
        state_dir=tmp_path,
        registration_burst=100,
        unknown_token_burst=100,
        operator_cap_id=OPERATOR_CAP,
    )


@pytest.fixture
def chain(clock: FakeClock) -> FakeChain:
    return FakeChain(clock)


@pytest.fixture(scope="session")
def make_chain() -> Callable[[], FakeChain]:
    """For property tests: a chain and clock of its own for each example."""
    return lambda: FakeChain(FakeClock())


@pytest.fixture(scope="session")
def ca_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(name="make_ca")
def _make_ca() -> Callable[[Path], tuple[Path, Path]]:
    return make_ca


@pytest.fixture
def kube(clock: FakeClock, ca_files: tuple[Path, Path]) -> FakeKube:
    return FakeKube(clock, ca_files[0].read_bytes())


@pytest.fixture
def module() -> SecurityModule | None:
    """What the master proves itself by; none, unless a test has one."""
    return None


@pytest.fixture
async def bench(
    clock: FakeClock, config: Config, chain: FakeChain, kube: FakeKube, module: SecurityModule | None
) -> AsyncIterator[Bench]:
    """A master that has read the registry and knows its cluster, following the chain."""
    running: list[Any] = []

    async def start(config: Config = config) -> State:
        for stop in running:
            await stop()
        running.clear()
        store = Store(config.state_dir)
        cluster = make_cluster(kube)
        state = assemble(
            config,
            chain=chain,
            registry=chain,
            address=ADDRESS,
            cluster=cluster,
            store=store,
            clock=clock,
            module=module,
        )
        task = asyncio.create_task(state.follower.run())

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await cluster.aclose()
            store.close()

        running.append(stop)
        return state

    state = await start()
    bench = Bench(
        state, chain, kube, clock, config, _client(api_app(state)), _webhook_client(state), lambda: None
    )

    async def restart(**changes: Any) -> None:
        bench.state = await start(config.model_copy(update=changes))
        bench.api, bench.webhook = _client(api_app(bench.state)), _webhook_client(bench.state)
        await bench.catch_up()

    bench.restart = restart
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.catch_up()
    yield bench
    for stop in running:
        await stop()


def make_cluster(kube: FakeKube) -> Cluster:
    kubeconfig = KubeConfig.from_dict(
        {
            "current-context": "default",
            "clusters": [
                {
                    "name": "default",
                    "cluster": {
                        "server": "https://127.0.0.1:6443",
                        "certificate-authority-data": b64(kube.ca_pem),
                    },
                }
            ],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
            "users": [{"name": "default", "user": {"token": "admin"}}],
        }
    )
    return Cluster(kubeconfig, transport=httpx2.ASGITransport(app=kube.app()))


def _client(app: Starlette) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("10.9.9.9", 1234))
    return httpx.AsyncClient(transport=transport, base_url="https://master")


def _webhook_client(state: State) -> httpx.AsyncClient:
    metrics = state.metrics
    app = Webhook(state.reviewer, metrics.token_reviews, state.access, metrics.node_accesses)
    return httpx.AsyncClient(transport=RsgiTransport(app), base_url="http://webhook")


class RsgiTransport(httpx.AsyncBaseTransport):
    """Hands requests to an RSGI application; test_webhook.py has the real server in between."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread())
        scope = SimpleNamespace(method=request.method, path=request.url.path, headers=request.headers)
        await self._app(scope, exchange)
        assert exchange.response is not None
        return exchange.response


class _Exchange:
    """The part of RSGI's HTTP protocol that the webhook uses."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.response: httpx.Response | None = None

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 1024):
            yield self._body[start : start + 1024]

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.response = httpx.Response(status, headers=headers, content=body)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(PACKAGE, REGISTRY)
