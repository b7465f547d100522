"""The service as a process of its own: real chain (localnet), real TLS, the k3s stand-in and its agents.

Everything between the sockets is what runs on a host; only the k3s binary is the stand-in.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.resources.core_v1 import Namespace, Secret
from lightkube.resources.rbac_authorization_v1 import ClusterRole

from k3s_daas import join, seal
from k3s_daas.registry import StakeRequest, WorkerStatus
from k3s_daas.tenancy import tenant_namespace
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="session")

SUI = 1_000_000_000
DAY_MS = 86_400_000
STANDIN = Path(__file__).parents[2] / "molecule" / "resources" / "standin" / "k3s"
MANIFESTS = Path(__file__).parents[2] / "roles" / "k3s_server" / "files"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Process:
    """A notify service: `ready()` waits for its READY=1; its output is in `log`."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        name = f"k3s-daas-{uuid.uuid4()}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind("\0" + name)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "NOTIFY_SOCKET": "@" + name, **environment},
                stdout=output,
                stderr=output,
            )

    async def ready(self) -> None:
        try:
            await asyncio.to_thread(self._received, b"READY=1")
        except TimeoutError:
            raise AssertionError(f"not ready:\n{self.log.read_text()}") from None

    def _received(self, wanted: bytes) -> None:
        self._notify.settimeout(30)
        while wanted not in self._notify.recv(4096):
            pass

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """(exit code, seconds it took to end)."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = await asyncio.to_thread(self.process.wait, 20)
        return code, time.monotonic() - began

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._notify.close()


class Stage:
    """A chain with a registry, a k3s server, and a master process between them."""

    def __init__(self, root: Path, registry: Any) -> None:
        self.root = root
        self.registry = registry
        self.processes: list[Process] = []
        self.secrets: list[str] = []
        self.clients: list[Any] = []
        self.port, self.webhook_port = free_port(), free_port()

    def start(self, command: list[str], log: str, **environment: str) -> Process:
        self.processes.append(Process(command, self.root / log, **environment))
        return self.processes[-1]

    async def start_k3s(self) -> None:
        manifests = self.root / "var/lib/rancher/k3s/server/manifests"
        manifests.mkdir(parents=True, exist_ok=True)
        for name in ("rbac.yaml", "admission.yaml"):
            (manifests / name).write_text((MANIFESTS / name).read_text())
        kubeconfig = self.root / "token-review.kubeconfig"
        url = f"http://127.0.0.1:{self.webhook_port}/token-review"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "master", "cluster": {"server": url}}],
                    "users": [{"name": "api-server", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "master", "user": "api-server"}}],
                    "current-context": "c",
                }
            )
        )
        self.write_yaml(
            self.root / "etc/rancher/k3s/config.yaml",
            {
                "disable-agent": True,
                "bind-address": "127.0.0.1",
                "https-listen-port": 0,
                "kube-apiserver-arg": [
                    f"authentication-token-webhook-config-file={kubeconfig}",
                    "authentication-token-webhook-version=v1",
                    "authentication-token-webhook-cache-ttl=8s",
                ],
            },
        )
        server = self.start(
            [sys.executable, str(STANDIN), "server"], "k3s.log", K3S_STANDIN_ROOT=str(self.root)
        )
        await server.ready()
        self.kubeconfig = self.root / "etc/rancher/k3s/k3s.yaml"
        self.master_kubeconfig = self.root / "master.kubeconfig"
        self.api_server = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self.tls = self.root / "var/lib/rancher/k3s/server/tls"
        self.cluster = Cluster(KubeConfig.from_file(self.kubeconfig))
        self.clients.append(self.cluster)

    async def start_agent(self, node_id: str, answer: dict[str, Any]) -> Process:
        root = self.root / node_id
        self.write_yaml(
            root / "etc/rancher/k3s/config.yaml",
            {
                "server": answer["server"],
                "token-file": str(root / "join-token"),
                "node-name": node_id,
                "node-ip": "127.0.0.1",
                "kubelet-arg": ["node-status-update-frequency=200ms", "healthz-port=0"],
            },
        )
        (root / "join-token").write_text(answer["token"])
        (root / "etc/rancher/node").mkdir(parents=True, exist_ok=True)
        (root / "etc/rancher/node/password").write_text(answer["node_password"])
        return self.start(
            [sys.executable, str(STANDIN), "agent"], f"{node_id}.log", K3S_STANDIN_ROOT=str(root)
        )

    @staticmethod
    def write_yaml(path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))

    def write_config(self, urls: list[str]) -> Path:
        state = self.root / "state"
        state.mkdir(exist_ok=True)
        path = self.root / "master.json"
        config = {
            "network": "localnet",
            "endpoints": urls,
            "chain_id": self.registry.chain.chain_id,
            "package_id": self.registry.deployment.package_id,
            "registry_id": self.registry.deployment.registry_id,
            "tee_mode": "simulated",
            "listen": f"127.0.0.1:{self.port}",
            "webhook_listen": f"127.0.0.1:{self.webhook_port}",
            "endpoint": f"https://127.0.0.1:{self.port}",
            "api_server": self.api_server,
            "kubeconfig": str(self.master_kubeconfig),
            "key_file": str(state / "sui.key"),
            "state_dir": str(state),
            "tls_cert": str(self.root / "tls/server.crt"),
            "tls_key": str(self.root / "tls/server.key"),
            "reconcile_s": 0.2,
            "drain_timeout_s": 2.0,
        }
        path.write_text(json.dumps(config))
        return path

    async def command(self, *arguments: str) -> dict[str, Any]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "k3s_daas_master", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    async def start_master(self) -> Process:
        config = str(self.root / "master.json")
        master = self.start(
            [sys.executable, "-m", "k3s_daas_master", "serve", "--config", config], "master.log"
        )
        await master.ready()
        self.connect()
        await self.until(lambda: self.answers("/readyz", 200))
        return master

    def connect(self) -> None:
        context = ssl.create_default_context(cafile=str(self.tls / "server-ca.crt"))
        base = f"https://127.0.0.1:{self.port}"
        self.api = httpx.AsyncClient(base_url=base, verify=context, trust_env=False, timeout=10)
        self.clients.append(self.api)

    async def answers(self, path: str, status: int) -> bool:
        return (await self.api.get(path)).status_code == status

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = 30) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError((self.root / "master.log").read_text()[-6000:]) from None

    async def stake(self, node_id: str) -> str:
        token = seal.make()
        self.secrets.append(token)
        expires = await self.registry.clock_ms() + 90 * DAY_MS
        request = StakeRequest(node_id, seal.commitment(token), SUI, expires)
        await self.registry.stake([request], self.registry.chain.address)
        return token

    async def post(self, path: str, token: str, node_id: str) -> httpx.Response:
        body = {"node_id": node_id, "timestamp_ms": time.time_ns() // 1_000_000}
        return await self.api.post(path, json=body, headers={"X-Seal-Token": token})

    async def register(self, token: str, node_id: str) -> dict[str, Any]:
        async def accepted() -> bool:
            nonlocal response
            response = await self.post("/api/v1/register-worker", token, node_id)
            return response.json().get("error", {}).get("code") != "token_unknown"

        response: httpx.Response | None = None
        await self.until(accepted)
        assert response is not None
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        self.secrets += [answer["token"], answer["token"].partition("::")[2], answer["node_password"]]
        return answer

    async def status(self, node_id: str) -> WorkerStatus:
        worker = await self.registry.worker(node_id)
        assert worker is not None
        return WorkerStatus(worker.status)

    async def bring_in(self, node_id: str) -> str:
        """The whole way of one worker; returns its seal token."""
        token = await self.stake(node_id)
        answer = await self.register(token, node_id)
        agent = await self.start_agent(node_id, answer)
        await agent.ready()
        beat = await self.post("/api/v1/nodes/heartbeat", token, node_id)
        assert (beat.status_code, beat.json()) == (200, {"status": "pending"})

        async def active() -> bool:
            return await self.status(node_id) is WorkerStatus.ACTIVE

        await self.until(active)
        return token


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, new_registry: Any, live_net: Any) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path, await new_registry())
    try:
        await stage.start_k3s()
        config = stage.write_config([live_net.url])
        made = await stage.command("init-key", "--config", str(config))
        await stage.registry.appoint_master(made["address"], SUI)
        ca = ["--ca-cert", str(stage.tls / "server-ca.crt"), "--ca-key", str(stage.tls / "server-ca.key")]
        await stage.command("issue-certificate", *ca, "--out", str(tmp_path / "tls"), "--san", "127.0.0.1")
        ca = ["--ca-cert", str(stage.tls / "client-ca.crt"), "--ca-key", str(stage.tls / "client-ca.key")]
        ca += ["--server-ca", str(stage.tls / "server-ca.crt"), "--server", stage.api_server]
        await stage.command("issue-kubeconfig", *ca, "--out", str(stage.master_kubeconfig))
        yield stage
    finally:
        for process in reversed(stage.processes):
            process.kill()
        for client in stage.clients:
            await client.aclose()


async def test_a_worker_comes_and_is_slashed_while_another_stays(stage: Stage) -> None:
    master = await stage.start_master()
    announced = await stage.registry.master()
    assert announced.endpoint == f"https://127.0.0.1:{stage.port}"
    assert announced.api_server == stage.api_server
    assert announced.ca_hash == join.ca_hash((stage.tls / "server-ca.crt").read_bytes())

    stays = await stage.bring_in("worker-1")
    goes = await stage.bring_in("worker-2")

    async def no_bootstrap_token() -> bool:
        return not await stage.cluster.bootstrap_tokens()

    await stage.until(no_bootstrap_token)
    owner = stage.registry.chain.address
    admin = Client(config=KubeConfig.from_file(stage.kubeconfig))
    home = admin.get(Namespace, tenant_namespace(owner))
    assert home.metadata.annotations["k3s-daas/owner"] == owner

    async def may_read(*nodes: str) -> bool:
        role = admin.get(ClusterRole, f"k3s-daas:owner:{owner[2:42]}")
        return tuple(role.rules[0].resourceNames) == nodes

    await stage.until(lambda: may_read("worker-1", "worker-2"))
    rows = (await stage.api.get("/api/v1/workers")).json()["workers"]
    assert [(r["node_id"], r["status"], r["node_ready"]) for r in rows] == [
        ("worker-1", "active", True),
        ("worker-2", "active", True),
    ]

    await stage.registry.slash_now("worker-2", 4, bytes(32))

    async def removed() -> bool:
        refused = (await stage.post("/api/v1/nodes/heartbeat", goes, "worker-2")).status_code == 403
        password = await stage.cluster.node_password("worker-2")
        gone = "worker-2" not in await stage.cluster.nodes()
        finished = "slashed worker removed" in master.log.read_text()
        return refused and gone and finished and password is not None and password.locked

    await stage.until(removed)
    await stage.until(lambda: may_read("worker-1"))
    refused = await stage.post("/api/v1/register-worker", goes, "worker-2")
    assert refused.json()["error"]["code"] == "worker_slashed"
    kube = Client(config=KubeConfig.from_file(stage.kubeconfig), namespace="kube-system")
    lock = kube.get(Secret, join.node_password_secret_name("worker-2"))
    assert not lock.metadata.ownerReferences, "else it is collected after its node, and the name is free"
    nodes = await stage.cluster.nodes()
    assert set(nodes) == {"worker-1"}
    assert nodes["worker-1"].ready
    assert not nodes["worker-1"].unschedulable
    assert (await stage.post("/api/v1/nodes/heartbeat", stays, "worker-1")).json() == {"status": "active"}

    code, seconds = await master.end()
    assert (code, seconds < 5) == (0, True), master.log.read_text()[-3000:]
    lines = [json.loads(line) for line in master.log.read_text().splitlines()]
    assert {"serving", "worker registered", "slashed worker removed", "stopped"} <= {
        line["event"] for line in lines
    }
    key = (stage.root / "state" / "sui.key").read_text().strip()
    everything = b"".join(p.read_bytes() for p in [master.log, *(stage.root / "state").glob("master.db*")])
    for secret in [*stage.secrets, key]:
        assert secret.encode() not in everything


async def test_a_node_that_gets_ready_is_noticed_without_a_turn_of_the_clock(stage: Stage) -> None:
    path = stage.root / "master.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reconcile_s": 3600}))
    await stage.start_master()
    token = await stage.stake("worker-1")
    answer = await stage.register(token, "worker-1")
    assert (await stage.post("/api/v1/nodes/heartbeat", token, "worker-1")).status_code == 200
    await (await stage.start_agent("worker-1", answer)).ready()

    async def active() -> bool:
        return await stage.status("worker-1") is WorkerStatus.ACTIVE

    await stage.until(active)


async def test_killed_and_started_again_it_goes_on(stage: Stage) -> None:
    master = await stage.start_master()
    token = await stage.bring_in("worker-1")
    beat = {"node_id": "worker-1", "timestamp_ms": time.time_ns() // 1_000_000}
    header = {"X-Seal-Token": token}
    assert (await stage.api.post("/api/v1/nodes/heartbeat", json=beat, headers=header)).status_code == 200
    await master.end(signal.SIGKILL)
    # Slashed while nobody looks.
    await stage.registry.slash_now("worker-1", 4, bytes(32))
    await stage.stake("worker-2")
    await stage.start_master()

    async def removed() -> bool:
        return "worker-1" not in await stage.cluster.nodes()

    await stage.until(removed)
    replayed = await stage.api.post("/api/v1/nodes/heartbeat", json=beat, headers=header)
    assert replayed.status_code in (403, 409)
    assert len(await stage.registry.workers()) == 2


async def test_kubectl_with_an_owners_token_through_the_api_server(stage: Stage) -> None:
    await stage.start_master()
    worker = await stage.stake("worker-1")
    owner = seal.make()
    await stage.registry.create_owner_token(seal.commitment(owner), await stage.registry.clock_ms() + DAY_MS)
    context = ssl.create_default_context(cafile=str(stage.tls / "server-ca.crt"))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    async with httpx.AsyncClient(base_url=stage.api_server, verify=context, trust_env=False) as kube:

        async def who(token: str) -> httpx.Response:
            path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
            return await kube.post(path, json=review, headers={"Authorization": f"Bearer {token}"})

        async def known() -> bool:
            direct = {"apiVersion": review["apiVersion"], "kind": "TokenReview", "spec": {"token": owner}}
            url = f"http://127.0.0.1:{stage.webhook_port}/token-review"
            answer = await kube.post(url, json=direct)
            return bool(answer.json()["status"]["authenticated"])

        await stage.until(known)
        answer = await who(owner)
        assert answer.status_code == 201, answer.text
        user = answer.json()["status"]["userInfo"]
        assert user["username"] == stage.registry.chain.address
        assert "k3s-daas:owners" in user["groups"]
        assert not {"system:masters", "system:nodes"} & set(user["groups"])
        assert (await who(worker)).status_code == 401
        assert (await who(seal.make())).status_code == 401


async def test_answers_are_not_held_back_on_a_kept_connection(stage: Stage) -> None:
    await stage.start_master()
    times = []
    for _ in range(60):
        began = time.monotonic()
        assert (await stage.api.get("/healthz")).status_code == 200
        times.append(time.monotonic() - began)
    # Nagle's algorithm against delayed acknowledgements costs 40 ms each, once a connection is no longer new;
    # the best few are free of whatever else the machine does.
    assert sorted(times[30:])[5] < 0.035, times


async def test_an_operator_acknowledges_a_gap(stage: Stage) -> None:
    config = str(stage.root / "master.json")
    store = Store(stage.root / "state")
    store.note_gap(5, 90, 1_790_000_000_000)
    await stage.start_master()
    (alert,) = (await stage.api.get("/readyz")).json()["alerts"]
    assert "after checkpoint 5 until 90" in alert
    said = await stage.command("acknowledge-gap", "--config", config)
    assert said == {"acknowledged": [{"noticed_ms": 1_790_000_000_000, "after": 5, "until": 90}]}
    assert (await stage.api.get("/readyz")).json()["alerts"] == []
    assert await stage.command("acknowledge-gap", "--config", config) == {"acknowledged": []}
    store.close()


async def test_without_a_chain_it_waits_and_can_be_stopped(stage: Stage) -> None:
    stage.write_config([f"http://127.0.0.1:{free_port()}"])
    config = str(stage.root / "master.json")
    master = stage.start([sys.executable, "-m", "k3s_daas_master", "serve", "--config", config], "master.log")

    async def waiting() -> bool:
        return "chain unreachable" in master.log.read_text()

    await stage.until(waiting)
    assert master.process.poll() is None
    code, seconds = await master.end()
    assert (code, seconds < 5) == (0, True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("registry_id", "No object 0x9999"), ("package_id", "Check package id and registry id")],
)
async def test_another_registry_than_configured_lets_nobody_in(stage: Stage, wrong: str, said: str) -> None:
    path = stage.root / "master.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {wrong: "0x" + "9" * 64}))
    stage.connect()
    master = stage.start(
        [sys.executable, "-m", "k3s_daas_master", "serve", "--config", str(path)], "master.log"
    )
    await master.ready()

    async def named() -> bool:
        answer = await stage.api.get("/readyz")
        return answer.status_code == 503 and said in answer.text

    await stage.until(named)
    token = await stage.stake("worker-1")
    refused = await stage.post("/api/v1/register-worker", token, "worker-1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")


async def test_what_is_missing_or_wrong_is_named_without_a_traceback(stage: Stage) -> None:
    path = stage.root / "master.json"
    good = path.read_text()

    async def refused() -> str:
        command = [sys.executable, "-m", "k3s_daas_master", "serve", "--config", str(path)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    path.write_text(json.dumps(json.loads(good) | {"chain_id": "another"}))
    said = await refused()
    assert f"serves chain {stage.registry.chain.chain_id}, wanted localnet with chain another." in said
    assert "Set the network, the chain id or the endpoint" in said
    path.write_text(good)

    with socket.socket() as blocker:
        blocker.bind(("127.0.0.1", stage.port))
        assert f"Can't listen on 127.0.0.1:{stage.port}" in await refused()

    (stage.root / "tls/server.key").rename(stage.root / "server.key")
    assert "issue-certificate" in await refused()
    (stage.root / "server.key").rename(stage.root / "tls/server.key")

    stage.master_kubeconfig.rename(stage.root / "kept")
    stage.master_kubeconfig.write_text("apiVersion: v1\nusers: [{name: x, user: {token: hunter2}}]\n")
    said = await refused()
    assert "issue-kubeconfig" in said
    assert "hunter2" not in said
    (stage.root / "kept").rename(stage.master_kubeconfig)

    (stage.root / "state/sui.key").unlink()
    assert "sui.key" in await refused()


async def test_slow_and_half_open_connections_hold_up_nobody(stage: Stage) -> None:
    master = await stage.start_master()
    context = ssl.create_default_context(cafile=str(stage.tls / "server-ca.crt"))
    slow = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, ssl=context)
        writer.write(
            b"POST /api/v1/register-worker HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        )
        writer.write(b"Content-Length: 100\r\n\r\n{")
        slow.append((reader, writer))
    bare = [
        socket.create_connection(("127.0.0.1", port))
        for port in (stage.port, stage.webhook_port)
        for _ in range(20)
    ]
    head = b"POST /token-review HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for begun in (head, head + b"Content-Length: 100\r\n\r\n{"):
        bare.append(socket.create_connection(("127.0.0.1", stage.webhook_port)))
        bare[-1].sendall(begun)
    assert (await stage.api.get("/healthz")).status_code == 200
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}}
    url = f"http://127.0.0.1:{stage.webhook_port}/token-review"
    assert (await stage.api.post(url, json=review)).json()["status"] == {"authenticated": False}
    header = {"X-Seal-Token": "x" * 40_000}
    huge = await stage.api.post("/api/v1/nodes/heartbeat", content=b"x", headers=header)
    # By its size, by what it lacks, or because the twenty before it were strangers, too.
    assert huge.status_code in (400, 415, 429, 431)
    code, seconds = await master.end()
    assert (code, seconds < 5) == (0, True), "open connections don't hold up the end either"
    for sock in bare:
        sock.close()
    for _, writer in slow:
        writer.transport.abort()
