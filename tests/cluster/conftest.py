"""A k3s server without an agent, with the role's manifests, the master's own parts beside it and two owners.

With K3S_BINARY it is that k3s; otherwise the stand-in, which knows RBAC and nothing of admission, quotas or
discovery: what needs those asks for the fixture `k3s_only` and is skipped by name. Everything listens on
loopback, lives below a temporary directory and ends with the session. Real in both cases: the token check
(`TokenReviewer` over HTTP), the master's identity and its tenants' loop. The chain is an index filled by
hand.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from cluster_kit import OWNER_A, OWNER_B, A, B, configmap, pod

from agent_kit import KUBELET, Agent
from k3s_daas import seal
from k3s_daas.join import bootstrap_token
from k3s_daas.registry import SealTokenRecord, Snapshot, Worker, WorkerStatus
from k3s_daas_master.certificates import Certificates
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.identity import issue_kubeconfig
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.nodelist import NodeList
from k3s_daas_master.nodepasswords import NodePasswordKeeper
from k3s_daas_master.operators import Operators
from k3s_daas_master.store import Store
from k3s_daas_master.tenant_cluster import TenantCluster
from k3s_daas_master.tenants import Tenants
from k3s_daas_master.tokenreview import TokenReviewer
from k3s_daas_master.webhook import Webhook, WebhookServer
from server_kit import configure

PROJECT = Path(__file__).parents[2]
STANDIN = PROJECT / "molecule/resources/standin/k3s"
START_S = 120.0
#: What the role's defaults say, and one repository more.
REGISTRIES = ["docker.io", "ghcr.io", "registry.example.com/team", "registry.example.com/one/image"]
DIGEST = "sha256:" + "5" * 64


def free_ports() -> int:
    """A port that is free, and the next one too: k3s takes that for its API server."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port


class WebhookThread:
    """The master's webhooks on their own server, in a thread: whatever the index says, this answers."""

    def __init__(self, reviewer: TokenReviewer, access: NodeAccess) -> None:
        self._reviewer = reviewer
        self._access = access
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._run()), daemon=True
        )

    async def _run(self) -> None:
        metrics = Metrics()
        reviews = Webhook(self._reviewer, metrics.token_reviews, self._access, metrics.node_accesses)
        server = WebhookServer(reviews, self._socket)
        serving = asyncio.create_task(server.serve())
        await self._stop.wait()
        server.stop()
        await serving

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)


class CapOf:
    """Who holds the OperatorCap, as a test says."""

    holder: str | None = None

    async def cap_holder(self, kind: str, cap_id: str) -> str | None:
        return self.holder


class ApiServer:
    """The server, and everything that a test may turn."""

    def __init__(self, binary: str | None, root: Path) -> None:
        self.root = root
        self.standin = binary is None
        self.command = [sys.executable, str(STANDIN)] if binary is None else [binary]
        self.environment = {**os.environ, "K3S_DATA_DIR": str(root / "data"), "K3S_STANDIN_ROOT": str(root)}
        self.clock = Clock()
        self.index, self.view = TokenIndex(), ChainView(self.clock)
        self.workers: dict[str, Worker] = {}
        self.owner_tokens: dict[str, SealTokenRecord] = {}
        self.tokens: dict[str, str] = {}
        self.cap = CapOf()
        self.operators = Operators(self.cap, "0x" + "ce" * 32, self.clock)
        (root / "state").mkdir(mode=0o700)
        self.store = Store(root / "state")
        self.certificates = Certificates(self.store)
        # Who is in the cluster, as the master's last look would say.
        self.nodes: set[str] | None = None
        self.webhook = WebhookThread(
            TokenReviewer(self.index, self.view, self.operators),
            NodeAccess(self.index, self.certificates, lambda: self.nodes, lambda node_id: False),
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_ports()
        self.url = f"https://127.0.0.1:{self.port}"
        self.tls = root / "data/server/tls"
        self.kubeconfig = root / "admin.kubeconfig"

    # -- the chain, by hand --------------------------------------------------------------------------------

    def stake(self, node_id: str, owner: str, status: WorkerStatus = WorkerStatus.ACTIVE) -> None:
        now = self.clock.now_ms()
        self.workers[node_id] = Worker(
            node_id, owner, 10**9, status, "0x5", owner, now, now, 10**9, 0, 0, 1000, 100
        )
        self.load()

    def mint(self, owner: str) -> str:
        token = seal.make()
        expires = self.clock.now_ms() + 86_400_000
        commitment, generation = seal.commitment(token), len(self.tokens) + 1
        self.owner_tokens[owner] = SealTokenRecord(
            "owner", "", owner, commitment, generation, 0, expires, False
        )
        self.tokens[owner] = token
        self.load()
        return token

    def revoke(self, owner: str) -> None:
        self.owner_tokens[owner] = replace(self.owner_tokens[owner], revoked=True)
        self.load()

    def slash(self, node_id: str) -> None:
        self.set_status(node_id, WorkerStatus.SLASHED)

    def set_status(self, node_id: str, status: WorkerStatus) -> None:
        self.workers[node_id] = replace(self.workers[node_id], status=status)
        self.load()

    def withdraw(self, node_id: str) -> None:
        """The worker has left: the registry knows it no more."""
        del self.workers[node_id]
        self.load()

    async def hand_cap_to(self, holder: str | None) -> None:
        self.cap.holder = holder
        await self.operators.refresh()

    def load(self) -> None:
        config: Any = SimpleNamespace(min_stake_mist=10**9)
        self.index.load(Snapshot(config, dict(self.workers), {}, dict(self.owner_tokens), None, 1))
        self.index.settled = True
        self.fresh()

    def fresh(self) -> None:
        self.view.seen((self.view.sequence or 0) + 1, self.clock.now_ms())

    # -- the cluster ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self.webhook.start()
        policy = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "k3s-daas-image-policy", "namespace": "kube-system"},
            "data": {"registries": "\n".join(REGISTRIES), "digests": DIGEST, "digestRequired": "false"},
        }
        ports = (free_ports(), free_ports())
        config = configure(self.root, self.port, ports, self.webhook.url, yaml.safe_dump(policy))
        with (self.root / "k3s.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, "server", "--config", str(config)],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.until(self.ready, START_S)
        issue_kubeconfig(
            self.tls / "client-ca.crt",
            self.tls / "client-ca.key",
            self.tls / "server-ca.crt",
            self.url,
            self.root / "master.kubeconfig",
        )

    def ready(self) -> bool:
        """The API answers and the manifests are applied."""
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "k3s.log").read_text()[-4000:]
        if not self.kubeconfig.exists():
            return False
        with suppress(httpx.HTTPError, OSError), self.http() as admin:
            group = "/apis/admissionregistration.k8s.io/v1"
            last = f"{group}/validatingadmissionpolicybindings/k3s-daas-master"
            return admin.get("/readyz").status_code == 200 and admin.get(last).status_code == 200
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.webhook.stop()

    def until(self, what: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        end = time.monotonic() + timeout_s
        while not (value := what()):
            assert time.monotonic() < end, f"not within {timeout_s} s; see {self.root}/k3s.log"
            time.sleep(0.1)
        return value

    def http(self, owner: str | None = None, kubeconfig: Path | None = None) -> httpx.Client:
        """The API as an owner (by its token), or as whom a kubeconfig names; as the admin without either."""
        context = ssl.create_default_context(cafile=str(self.tls / "server-ca.crt"))
        if owner is not None:
            headers = {"authorization": f"Bearer {self.tokens[owner]}"}
            return httpx.Client(
                base_url=self.url, verify=context, headers=headers, trust_env=False, timeout=30
            )
        path = kubeconfig or self.kubeconfig
        user = yaml.safe_load(path.read_text())["users"][0]["user"]
        pair = self.root / f"{path.name}.pem"
        pair.touch(0o600)
        pair.write_bytes(b"".join(base64.b64decode(user[f"client-{k}-data"]) for k in ("certificate", "key")))
        context.load_cert_chain(pair)
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=30)

    def master(self) -> httpx.Client:
        """The API as the master's own narrow identity."""
        return self.http(kubeconfig=self.root / "master.kubeconfig")

    def cluster(self) -> Cluster:
        return Cluster.from_file(self.root / "master.kubeconfig", 30.0)

    async def reconcile(self) -> Tenants:
        """One whole pass of the tenants' loop and over the list of nodes, by the master's identity."""
        cluster = self.cluster()
        try:
            self.fresh()
            tenants = Tenants(
                index=self.index,
                view=self.view,
                cluster=TenantCluster(cluster),
                clock=self.clock,
                grace_ms=0,
            )
            assert await tenants.reconcile()
            await NodeList(cluster, self.index).reconcile()
            return tenants
        finally:
            await cluster.aclose()

    def kubectl(self, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.command, "kubectl", *arguments, "--kubeconfig", str(kubeconfig)]
        environment = {**self.environment, "HOME": str(self.root)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


def populate(server: ApiServer) -> None:
    """What the owners have: a pod and a ConfigMap each, and B a Service and a Secret."""
    home_a, home_b = f"/api/v1/namespaces/{A}", f"/api/v1/namespaces/{B}"
    for owner, path, body in (
        (OWNER_A, f"{home_a}/pods", pod("steady")),
        (OWNER_A, f"{home_a}/configmaps", configmap("mine")),
        (OWNER_B, f"{home_b}/pods", pod("bs")),
        (OWNER_B, f"{home_b}/configmaps", configmap("bs")),
        (OWNER_B, f"{home_b}/services", {"metadata": {"name": "bs"}, "spec": {"ports": [{"port": 80}]}}),
        (OWNER_B, f"{home_b}/secrets", {"metadata": {"name": "bs"}, "stringData": {"key": "value of b"}}),
    ):
        with server.http(owner) as client:
            answer = client.post(path, json=body)
            assert answer.status_code == 201, answer.text


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(os.environ.get("K3S_BINARY") or None, tmp_path_factory.mktemp("k3s"))
    try:
        server.start()
        with server.http() as admin:
            for name, owner in (("worker-a", OWNER_A), ("worker-b", OWNER_B)):
                server.stake(name, owner)
                server.mint(owner)
                admin.post("/api/v1/nodes", json={"metadata": {"name": name}}).raise_for_status()
        assert asyncio.run(server.reconcile()).problems == {}
        with server.http() as admin:
            # Made by the controller manager, a moment after its namespace; no pod is let in before.
            for space in () if server.standin else (A, B):
                path = f"/api/v1/namespaces/{space}/serviceaccounts/default"
                server.until(lambda path=path: admin.get(path).status_code == 200)
        populate(server)
        yield server
    finally:
        server.stop()


@pytest.fixture
def k3s_only(server: ApiServer) -> None:
    if server.standin:
        pytest.skip("real k3s: set K3S_BINARY=/path/to/k3s to run this")


@pytest.fixture
def owner_a(server: ApiServer) -> Iterator[httpx.Client]:
    server.fresh()
    with server.http(OWNER_A) as client:
        yield client


@pytest.fixture
def owner_b(server: ApiServer) -> Iterator[httpx.Client]:
    server.fresh()
    with server.http(OWNER_B) as client:
        yield client


@pytest.fixture
def admin(server: ApiServer) -> Iterator[httpx.Client]:
    server.fresh()
    with server.http() as client:
        yield client


@pytest.fixture
def master(server: ApiServer) -> Iterator[httpx.Client]:
    server.fresh()
    with server.master() as client:
        yield client


@pytest_asyncio.fixture
async def keeper(server: ApiServer) -> AsyncIterator[NodePasswordKeeper]:
    """The master's own keeper of node passwords, on this API server."""
    cluster = server.cluster()
    yield NodePasswordKeeper(cluster, server.index, server.store, b"k" * 32)
    await cluster.aclose()


@pytest.fixture
def name(server: ApiServer) -> Iterator[str]:
    """A node name that no other test uses; workers whose names begin with it are gone after the test."""
    name = f"node-{secrets.token_hex(4)}"
    yield name
    server.workers = {k: worker for k, worker in server.workers.items() if not k.startswith(name)}
    server.load()


@pytest.fixture
def join(
    server: ApiServer, keeper: NodePasswordKeeper, tmp_path: Path
) -> Callable[[str, str], Awaitable[Agent]]:
    """`await join(name, owner)`: a worker that staked and registered, with all that the master gives it."""

    async def make(node_id: str, owner: str) -> Agent:
        server.stake(node_id, owner, WorkerStatus.PENDING)
        await keeper.cover()
        password = await keeper.ensure(server.index.workers[node_id], 1)
        assert password is not None
        token_id, secret = bootstrap_token()
        cluster = server.cluster()
        try:
            now = server.clock.now_ms()
            await NodeList(cluster, server.index).have(node_id)
            await cluster.create_bootstrap_token(node_id, token_id, secret, now, now + 600_000)
        finally:
            await cluster.aclose()
        server_ca = server.tls / "server-ca.crt"
        agent = Agent(server.url, server_ca, tmp_path, f"{token_id}.{secret}", node_id, password)
        # k3s hears of the Secrets a moment later.
        server.until(lambda: agent.ask(KUBELET).status_code == 200)
        return agent

    return make
