"""The real API server under load: 500 owners with seal tokens, 1,000 requests a second.

    K3S_BINARY=/path/to/k3s python benchmarks/apiserver.py [--json FILE]

A k3s server without an agent runs with the role's own webhooks, roles and policies, and beside it the
master's service with a registry of 5,000 owners in memory (tokens.py). Each of 500 clients keeps one TLS
connection, has a token of its own and reads a ConfigMap twice a second. Requests are sent when their time
has come, whether or not earlier ones are answered, and a latency counts from that time: a server that falls
behind shows it. The API server asks the master about each token every 10 s. The same load with a client
certificate, about which nobody is asked, is the yardstick. Everything runs on this machine, the clients
included.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml
from processes import free_port, peak_rss_mb, running
from tokens import Tokens, serving_master

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "molecule/resources"))
from server_kit import configure  # noqa: E402

CLIENTS, REQUESTS_PER_S = 500, 1000
WARM_UP_S, MEASURED_S = 12, 30
LIMIT_MS = 200
SPACE = "load"
PATH = f"/api/v1/namespaces/{SPACE}/configmaps/one"
START_S = 180.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    binary = os.environ.get("K3S_BINARY")
    if not binary:
        print("apiserver: found no K3S_BINARY; wanted the path of a real k3s, whose API server is measured")
        return 1
    figures = measure(binary)
    print(json.dumps(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def measure(binary: str) -> dict[str, float | int]:
    """Requests a second, latencies in ms and errors, with seal tokens and without; k3s' peak memory in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = Tokens.make()
        tokens.write(folder)
        with serving_master(folder) as master, _api_server(binary, folder, master.url) as server:
            server.populate()
            rounds = {}
            for kind, credentials in (
                ("token", tokens.of_owners[:CLIENTS]),
                ("certificate", [None] * CLIENTS),
            ):
                rounds[kind] = asyncio.run(_load(server, credentials))
                print(f"  {kind:<12} {rounds[kind]}", flush=True)
            rss_mb = peak_rss_mb(server.process.pid)
    ours, plain = rounds["token"], rounds["certificate"]
    return {
        "clients": CLIENTS,
        "requests_per_s": round(ours.per_s),
        "p50_ms": ours.percentile(50),
        "p99_ms": ours.percentile(99),
        "max_ms": ours.percentile(100),
        "limit_ms": LIMIT_MS,
        "errors": ours.errors,
        "certificate_p50_ms": plain.percentile(50),
        "certificate_p99_ms": plain.percentile(99),
        "k3s_rss_mb": rss_mb,
    }


@dataclass
class _Round:
    """Latencies (s) of what was answered with 200, and how many were not."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def per_s(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """In ms."""
        if percent == 100:
            return round(max(self.latencies) * 1000, 1)
        return round(statistics.quantiles(self.latencies, n=100)[percent - 1] * 1000, 1)

    def __str__(self) -> str:
        figures = "  ".join(f"p{p} {self.percentile(p):.1f} ms" for p in (50, 95, 99, 100))
        return f"{self.per_s:,.0f}/s  {figures}  {self.errors} errors"


# -- the load ------------------------------------------------------------------------------------------------


async def _load(server: _Server, credentials: list[str | None]) -> _Round:
    """Everybody sends at their own times, evenly spread, first for the warm-up and then for the figures."""
    every_s = CLIENTS / REQUESTS_PER_S
    begin = time.perf_counter() + 3.0  # all are connected by then
    measured_from = begin + WARM_UP_S
    result = _Round(MEASURED_S)
    clients = (
        _client(server, token, begin + number * every_s / CLIENTS, every_s, measured_from, result)
        for number, token in enumerate(credentials)
    )
    await asyncio.gather(*clients)
    return result


async def _client(
    server: _Server, token: str | None, first: float, every_s: float, measured_from: float, result: _Round
) -> None:
    request = server.request(token)
    context = server.context(token is None)
    reader = writer = None
    count = int((WARM_UP_S + MEASURED_S) / every_s)
    for turn in range(count):
        due = first + turn * every_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        try:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
            writer.write(request)
            ok = await asyncio.wait_for(_answered(reader), 10)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            ok, writer = False, None
        if due < measured_from:
            continue
        if ok:
            result.latencies.append(time.perf_counter() - due)
        else:
            result.errors += 1
    if writer is not None:
        writer.close()


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer to its end; whether it was 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    return head.startswith(b"HTTP/1.1 200 ")


# -- the API server ------------------------------------------------------------------------------------------


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    folder: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def context(self, certified: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "data/server/tls/server-ca.crt"))
        if certified:
            user = yaml.safe_load((self.folder / "admin.kubeconfig").read_text())["users"][0]["user"]
            pair = self.folder / "admin.pem"
            pair.touch(0o600)
            pair.write_bytes(
                b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))
            )
            context.load_cert_chain(pair)
        return context

    def request(self, token: str | None) -> bytes:
        lines = [f"GET {PATH} HTTP/1.1", f"Host: {self.host}:{self.port}", "Accept: application/json"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        return "\r\n".join([*lines, "", ""]).encode()

    def admin(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.context(True), trust_env=False, timeout=30)

    def populate(self) -> None:
        """A namespace that all owners may work in, with a ConfigMap of 1 kB."""
        with self.admin() as admin:
            rbac = "/apis/rbac.authorization.k8s.io/v1"
            group = "rbac.authorization.k8s.io"
            binding = {
                "metadata": {"name": "owners"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "k3s-daas:tenant-edit"},
                "subjects": [{"apiGroup": group, "kind": "Group", "name": "k3s-daas:owners"}],
            }
            one = {"metadata": {"name": "one"}, "data": {"text": "x" * 1024}}
            for path, body in (
                ("/api/v1/namespaces", {"metadata": {"name": SPACE}}),
                (f"{rbac}/namespaces/{SPACE}/rolebindings", binding),
                (f"/api/v1/namespaces/{SPACE}/configmaps", one),
            ):
                admin.post(path, json=body).raise_for_status()


@contextmanager
def _api_server(binary: str, folder: Path, token_review_url: str) -> Iterator[_Server]:
    address = urlsplit(token_review_url)
    port = _free_pair()
    config = configure(folder, port, (free_port(), free_port()), f"http://{address.netloc}")
    command = [binary, "server", "--config", str(config)]
    log = folder / "k3s.log"
    with running(command, log, {"K3S_DATA_DIR": str(folder / "data")}) as process:
        server = _Server(process, folder, "127.0.0.1", port)
        _wait(server, log)
        yield server


def _free_pair() -> int:
    """A port that is free, and so is the next one, which k3s takes for its API server. Below those that the
    kernel gives to whoever asks for any: seconds pass before k3s binds it."""
    for port in range(20_000, 30_000, 10):
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 1))
            return port
    raise RuntimeError("found no two free ports in a row between 20,000 and 30,000 on 127.0.0.1")


def _wait(server: _Server, log: Path) -> None:
    """Until it is ready and has applied the manifests."""
    last = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/k3s-daas-master"
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and server.process.poll() is None:
        with suppress(OSError, httpx.HTTPError), server.admin() as admin:
            if all(admin.get(path).status_code == 200 for path in ("/readyz", last)):
                return
        time.sleep(0.3)
    raise RuntimeError(f"k3s didn't get ready:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
