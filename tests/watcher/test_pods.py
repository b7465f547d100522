"""Running pods, asked with the kubelet's own certificate over real TLS; and the host's figures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k3s_daas_watcher import hostusage, pods
from k3s_daas_watcher.hostusage import HostMeter
from k3s_daas_watcher.pods import KubeletPods

TABLE = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [{"cells": ["a"]}, {"cells": ["b"]}]}


@dataclass
class FakeApiServer:
    """A FAKE API server: it lets in whoever shows a certificate of `ca`, and answers `body` to everything."""

    url: str
    body: bytes = json.dumps(TABLE).encode()
    status: int = 200
    asked: list[str] = field(default_factory=list)
    connections: int = 0


@contextlib.asynccontextmanager
async def serving(ca, clients) -> AsyncIterator[FakeApiServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.cert_file, ca.key_file)
    context.load_verify_locations(cadata=clients.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    async def handle(reader, writer) -> None:
        fake.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fake.asked.append(head)
                length = f"content-length: {len(fake.body)}"
                writer.write(f"HTTP/1.1 {fake.status} X\r\n{length}\r\n\r\n".encode() + fake.body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    fake = FakeApiServer(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield fake
    finally:
        server.close()


def install(authority, folder: Path) -> None:
    """Root's oneshot: the kubelet's certificate and key where the watcher reads them."""
    folder.mkdir(exist_ok=True)
    for source, name in ((authority.cert_file, pods.CERTIFICATE), (authority.key_file, pods.KEY)):
        new = folder / f".{name}"
        shutil.copy(source, new)
        new.replace(folder / name)


@pytest.fixture
async def server(ca, new_ca):
    kubelets = new_ca("kubelets")
    async with serving(ca, kubelets) as fake:
        fake.kubelets = kubelets
        yield fake


@pytest.fixture
async def counter(tmp_path):
    made = KubeletPods("worker-1", tmp_path / "credentials")
    yield made
    await made.close()


async def test_it_asks_for_this_nodes_running_pods_over_one_connection(server, counter, ca, tmp_path):
    install(server.kubelets, tmp_path / "credentials")
    assert [await counter.count(server.url, ca.pem.decode()) for _ in range(3)] == [2, 2, 2]
    assert server.connections == 1
    line, *headers = server.asked[0].split("\r\n")
    assert line == (
        "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dworker-1%2Cstatus.phase%3DRunning&includeObject=None "
        "HTTP/1.1"
    )
    assert f"Accept: {pods.ACCEPT}" in headers


async def test_a_server_without_tables_sends_the_pods(server, counter, ca, tmp_path):
    install(server.kubelets, tmp_path / "credentials")
    server.body = b'{"kind": "PodList", "items": [{}, {}, {}]}'
    assert await counter.count(server.url, ca.pem.decode()) == 3
    server.body = b'{"kind": "PodList", "items": []}'
    assert await counter.count(server.url, ca.pem.decode()) == 0


async def test_without_credentials_it_is_unknown_and_not_none(server, counter, ca, tmp_path):
    assert await counter.count(server.url, ca.pem.decode()) is None
    install(server.kubelets, tmp_path / "credentials")
    assert await counter.count(server.url, ca.pem.decode()) == 2
    (tmp_path / "credentials" / pods.KEY).unlink()
    assert await counter.count(server.url, ca.pem.decode()) is None


async def test_new_credentials_are_used_without_a_restart(server, counter, ca, tmp_path, new_ca):
    folder = tmp_path / "credentials"
    install(new_ca("of an earlier cluster"), folder)
    assert await counter.count(server.url, ca.pem.decode()) is None
    install(server.kubelets, folder)
    assert await counter.count(server.url, ca.pem.decode()) == 2


async def test_half_new_credentials_are_unknown_until_the_other_half_is_there(
    server, counter, ca, tmp_path, new_ca
):
    folder, new = tmp_path / "credentials", new_ca("renewed")
    install(server.kubelets, folder)
    shutil.copy(new.cert_file, folder / pods.CERTIFICATE)
    os.utime(folder / pods.CERTIFICATE, ns=(1, 1))
    assert await counter.count(server.url, ca.pem.decode()) is None
    install(server.kubelets, folder)
    assert await counter.count(server.url, ca.pem.decode()) == 2


async def test_a_server_of_another_ca_gets_nothing(server, counter, tmp_path, new_ca):
    install(server.kubelets, tmp_path / "credentials")
    assert await counter.count(server.url, new_ca("other").pem.decode()) is None
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b'{"kind": "Status"}'),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"kind": "PodList"}'),
        (200, b'{"kind": "Table", "rows": 7}'),
        (200, b"[" * 100_000),
        (200, b" " * (pods.MAX_ANSWER_BYTES + 1)),
    ],
)
async def test_an_answer_that_is_none(server, counter, ca, tmp_path, status, body):
    install(server.kubelets, tmp_path / "credentials")
    server.status, server.body = status, body
    assert await counter.count(server.url, ca.pem.decode()) is None
    server.status, server.body = 200, json.dumps(TABLE).encode()
    assert await counter.count(server.url, ca.pem.decode()) == 2


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "nonsense", "https://[::", ""])
async def test_a_server_that_is_not_there(counter, ca, tmp_path, url):
    install(ca, tmp_path / "credentials")
    assert await counter.count(url, ca.pem.decode()) is None


# --- the host ---


@pytest.fixture
def cpu(monkeypatch):
    """The processors' (busy, idle) seconds, as the test says."""
    times = [0.0, 0.0]
    monkeypatch.setattr(hostusage, "_busy_idle", lambda: (times[0], times[1]))
    return times


def test_the_processors_share_is_that_since_the_last_look(cpu, clock):
    meter = HostMeter(clock.monotonic)
    assert meter.look().cpu_percent is None, "nothing was watched yet"
    clock.advance(10)
    cpu[:] = [5.0, 15.0]
    assert meter.look().cpu_percent == 25.0
    cpu[:] = [5.5, 15.0]
    clock.advance(0.5)
    assert meter.look().cpu_percent == 25.0, "half a second is noise"
    clock.advance(0.5)
    cpu[:] = [6.0, 15.0]
    assert meter.look().cpu_percent == 100.0


def test_counters_that_stand_still_or_go_back_are_no_share(cpu, clock):
    meter = HostMeter(clock.monotonic)
    clock.advance(10)
    assert meter.look().cpu_percent is None
    cpu[:] = [-5.0, 10.0]
    clock.advance(10)
    assert meter.look().cpu_percent == 0.0


def test_the_real_host_has_figures(clock):
    meter = HostMeter(clock.monotonic)
    found = meter.look()
    assert 0 < found.memory_used_bytes <= found.memory_total_bytes
    assert 0 < found.disk_used_bytes <= found.disk_total_bytes
    assert 0 <= found.memory_percent <= 100
    assert found.network_received_bytes >= 0
    assert set(found.summary()) == {
        "cpu_percent",
        "memory_percent",
        "disk_percent",
        "network_received_bytes",
        "network_sent_bytes",
    }
    busy, idle = hostusage._busy_idle()
    assert busy > 0
    assert idle > 0
