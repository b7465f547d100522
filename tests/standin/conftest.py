"""A stand-in cluster on loopback: every path below a temporary directory, every port ephemeral."""

import base64
import datetime as dt
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret

from k3s_daas import join

K3S = Path(__file__).parents[2] / "molecule" / "resources" / "standin" / "k3s"


class Process:
    """One `k3s …` process; its output goes to a file and start() waits for its READY=1."""

    def __init__(self, root: Path, log: Path, arguments: list[str]) -> None:
        self.log = log
        address = f"standin-{uuid.uuid4()}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind("\0" + address)
        environment = {**os.environ, "K3S_STANDIN_ROOT": str(root), "NOTIFY_SOCKET": "@" + address}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(K3S), *arguments], env=environment, stdout=output, stderr=output
            )

    def ready(self, timeout_s: float = 20) -> None:
        self._notify.settimeout(timeout_s)
        assert self._notify.recv(100) == b"READY=1"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._notify.close()


class Cluster:
    """A server and the agents a test starts; stop() ends them all."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.running: list[Process] = []
        self.options = {"disable-agent": True, "bind-address": "127.0.0.1", "https-listen-port": 0, **options}
        self.start_server()

    def start_server(self) -> Process:
        config = self.root / "etc/rancher/k3s/config.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(self.options))
        server = self.start(self.root, "server.log", ["server"])
        server.ready()
        self.kubeconfig = self.root / "etc/rancher/k3s/k3s.yaml"
        self.url: str = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self.options["https-listen-port"] = int(self.url.rsplit(":", 1)[1])
        self.ca_path = self.root / "var/lib/rancher/k3s/server/tls/server-ca.crt"
        self.ca_hash = join.ca_hash(self.ca_path.read_bytes())
        self.server = server
        return server

    def start(self, root: Path, log: str, arguments: list[str]) -> Process:
        process = Process(root, self.root / log, arguments)
        self.running.append(process)
        return process

    def agent_root(self, name: str) -> Path:
        return self.root / name

    def start_agent(self, name: str, token: str, *, password: str | None = None, **options: Any) -> Process:
        root = self.agent_root(name)
        config = {
            "server": self.url,
            "token-file": str(root / "join-token"),
            "node-name": name,
            "node-ip": "127.0.0.1",
            "kubelet-arg": ["node-status-update-frequency=200ms", "healthz-port=0", "fail-swap-on=false"],
            **options,
        }
        for path, text in (("etc/rancher/k3s/config.yaml", yaml.safe_dump(config)), ("join-token", token)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        if password:
            file = root / "etc/rancher/node/password"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(password + "\n")
        return self.start(root, f"{name}.log", ["agent"])

    def kube(self) -> Client:
        return Client(config=KubeConfig.from_file(self.kubeconfig), namespace="kube-system")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "K3S_STANDIN_ROOT": str(self.root)}
        command = [sys.executable, str(K3S), *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    def http(self, token: str | None = None, cert: tuple[str, str] | None = None) -> httpx.Client:
        import ssl

        context = ssl.create_default_context(cafile=str(self.ca_path))
        if cert:
            context.load_cert_chain(*cert)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, verify=context, headers=headers, trust_env=False)

    def node_certificate(self, name: str) -> tuple[str, str]:
        agent = self.agent_root(name) / "var/lib/rancher/k3s/agent"
        return str(agent / "client-kubelet.crt"), str(agent / "client-kubelet.key")

    def add_password(self, name: str, password: str) -> None:
        secret_hash = base64.b64encode(join.node_password_hash(password).encode()).decode()
        self.kube().create(
            Secret(
                metadata=ObjectMeta(name=join.node_password_secret_name(name), namespace="kube-system"),
                type=join.NODE_PASSWORD_SECRET_TYPE,
                immutable=True,
                data={"hash": secret_hash},
            )
        )

    def add_token(self, lifetime_s: float = 600, **changes: str | None) -> str:
        """Put a bootstrap token in place as the master does; return `id.secret`."""
        token_id, secret = join.bootstrap_token()
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=lifetime_s)
        data = {
            "token-id": token_id,
            "token-secret": secret,
            "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": join.BOOTSTRAP_GROUP,
            **changes,
        }
        self.kube().create(
            Secret(
                metadata=ObjectMeta(name=f"bootstrap-token-{token_id}", namespace="kube-system"),
                type=join.BOOTSTRAP_TOKEN_SECRET_TYPE,
                stringData={key: value for key, value in data.items() if value is not None},
            )
        )
        return f"{token_id}.{secret}"

    def full(self, token: str) -> str:
        return join.full_token(self.ca_hash, *token.split("."))

    def stop(self) -> None:
        for process in self.running:
            if process.process.poll() is None:
                process.stop()


def eventually(what: Callable[[], Any], timeout_s: float = 15) -> Any:
    """Return what() once it is truthy."""
    end = time.monotonic() + timeout_s
    while not (value := what()):
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return value


@pytest.fixture
def wait() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    started: list[Cluster] = []

    def start(**options: Any) -> Cluster:
        started.append(Cluster(tmp_path / f"cluster-{len(started)}", **options))
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture
def cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    return start_cluster()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server for tests that add nothing the others would notice."""
    cluster = Cluster(tmp_path_factory.mktemp("shared"))
    yield cluster
    cluster.stop()
