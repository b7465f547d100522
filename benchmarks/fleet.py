"""A master with 1,000 workers: registrations a second, heartbeats' 99th percentile, memory.

    python benchmarks/fleet.py [--json FILE] [--workers 1000] [--seconds 60]

Real: the master (a process of its own, as its unit starts it), TLS, and the chain, a localnet with our
contracts on which every worker is staked. A fake: the Kubernetes API (fake_kube.py). The workers are this
process: each registers once, one after another; then each keeps a connection of its own and sends a heartbeat
every 30 s, spread evenly, for as long as is asked. One machine has one address, so the limit of registrations
per address is lifted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import forget_peak, free_port, peak_rss_mb, running, self_signed

from k3s_daas import seal
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import (
    CompiledPackage,
    Registry,
    RegistryParams,
    StakeRequest,
    create_registry,
    publish,
)
from k3s_daas.registry.client import MAX_STAKE_BATCH

HERE = Path(__file__).parent
MOVE = HERE.parent / "move" / "k3s_daas"
WORKERS = 1_000
HEARTBEAT_S = 30
SECONDS = 60
SUI = 1_000_000_000
DAY_MS = 86_400_000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long heartbeats are sent")
    options = parser.parse_args()
    figures = measure(options.workers, options.seconds)
    print(json.dumps(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def measure(workers: int = WORKERS, seconds: int = SECONDS) -> dict[str, float | int]:
    """master_rss_mb_1000_workers (its peak while heartbeats come), heartbeat_p99_ms and registrations_per_s.

    Raises RuntimeError when anything was refused.
    """
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), workers, seconds))


async def _measure(folder: Path, count: int, seconds: int) -> dict[str, float | int]:
    workers = [_Worker(f"worker-{n}", seal.make()) for n in range(1, count + 1)]
    python = sys.executable
    certificate, _ = self_signed(folder)
    kube = free_port()
    localnet = [python, "-m", "k3s_daas_localnet", "--listen=127.0.0.1:0", "--faucet-listen=127.0.0.1:0"]
    with (
        running(localnet, folder / "localnet.log") as chain_process,
        running([python, str(HERE / "fake_kube.py"), str(kube), str(certificate)], folder / "kube.log"),
    ):
        net = await _said(folder / "localnet.log", chain_process)
        config = _write_config(folder, net["rpc"], net["chain_id"], kube)
        registry = await _create_registry(net)
        config |= {
            "package_id": registry.deployment.package_id,
            "registry_id": registry.deployment.registry_id,
        }
        (folder / "master.json").write_text(json.dumps(config))
        print(f"  staking {count} workers", flush=True)
        await _stake(registry, workers)
        master = [python, "-m", "k3s_daas_master"]
        settings = ["--config", str(folder / "master.json")]
        made = subprocess.run([*master, "init-key", *settings], check=True, capture_output=True)
        await registry.appoint_master(json.loads(made.stdout)["address"], 10 * SUI)
        with running([*master, "serve", *settings], folder / "master.log") as process:
            fleet = _Fleet(config["listen"], certificate, workers)
            # A node password, 50 ms of scrypt, for each name that is new to the master.
            print("  waiting until the master has a node password for each", flush=True)
            await _until(lambda: _passwords(kube) == count, process, folder, 60 + count)
            await _until(fleet.ready, process, folder, 60)
            registrations_per_s = await fleet.register()
            print(f"  registered, {registrations_per_s:.1f}/s; heartbeats for {seconds} s", flush=True)
            # Each new password took 32 MB of scrypt; what is measured is a fleet that has joined.
            forget_peak(process.pid)
            latencies = sorted(await fleet.beat(seconds))
            rss_mb = peak_rss_mb(process.pid)
            active = sum(w.status.value == "active" for w in await registry.workers())
            print(
                f"  {len(latencies)} heartbeats, p50 {latencies[len(latencies) // 2]:.1f} ms, "
                f"slowest {latencies[-1]:.1f} ms; {active} workers active on-chain"
            )
        await registry.chain.close()
    if active != count:
        raise RuntimeError(f"{active} of {count} workers are active on-chain, wanted all")
    return {
        "master_rss_mb_1000_workers": rss_mb,
        "heartbeat_p99_ms": round(latencies[int(len(latencies) * 0.99)], 1),
        "registrations_per_s": round(registrations_per_s, 1),
    }


# -- the chain ---------------------------------------------------------------------------------------------


async def _said(log: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What the localnet says once it is ready."""
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and "listening" in line:
                ready: dict[str, str] = json.loads(line)
                return ready
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the localnet didn't start:\n{log.read_text()[-2000:]}")


async def _create_registry(net: dict[str, str]) -> Registry:
    build = [sys.executable, "-m", "k3s_daas_localnet", "build", str(MOVE)]
    built = json.loads(
        subprocess.run(build, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    modules = tuple(base64.b64decode(module) for module in built["modules"])
    compiled = CompiledPackage(modules, tuple(built["dependencies"]), bytes(built["digest"]))
    key = Key.generate()
    gift = {"FixedAmountRequest": {"recipient": key.address, "amount": 100_000 * SUI}}
    request = urllib.request.Request(  # noqa: S310 - the localnet's own address
        f"{net['faucet']}/v2/gas", json.dumps(gift).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request).close()  # noqa: S310
    chain = await SuiClient.connect([net["rpc"]], "localnet", key, timeout_s=60.0)
    package_id, _ = await publish(chain, compiled)
    deployment, _ = await create_registry(
        chain, package_id, RegistryParams("benchmark", True, SUI, 0, 0, 5000, False)
    )
    return Registry(chain, deployment)


async def _stake(registry: Registry, workers: list[_Worker]) -> None:
    expires_ms = await registry.clock_ms() + 90 * DAY_MS
    requests = [StakeRequest(w.node_id, seal.commitment(w.token), SUI, expires_ms) for w in workers]
    for start in range(0, len(requests), MAX_STAKE_BATCH):
        await registry.stake(requests[start : start + MAX_STAKE_BATCH], registry.chain.require_address())


# -- the master --------------------------------------------------------------------------------------------


def _write_config(folder: Path, rpc: str, chain_id: str, kube: int) -> dict[str, Any]:
    ca = base64.b64encode((folder / "server.crt").read_bytes()).decode()
    cluster = {"server": f"http://127.0.0.1:{kube}", "certificate-authority-data": ca}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": cluster}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "admin"}}],
        "users": [{"name": "admin", "user": {}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    (folder / "state").mkdir()
    listen = f"127.0.0.1:{free_port()}"
    return {
        "network": "localnet",
        "endpoints": [rpc],
        "chain_id": chain_id,
        "tee_mode": "simulated",
        "listen": listen,
        "webhook_listen": f"127.0.0.1:{free_port()}",
        "endpoint": f"https://{listen}",
        "api_server": "https://127.0.0.1:6443",
        "kubeconfig": str(folder / "kubeconfig"),
        "key_file": str(folder / "state" / "sui.key"),
        "state_dir": str(folder / "state"),
        "tls_cert": str(folder / "server.crt"),
        "tls_key": str(folder / "server.key"),
        # All workers here have one address.
        "registration_burst": 10_000,
        "registration_per_s": 10_000.0,
    }


def _passwords(kube: int) -> int:
    path = "/api/v1/namespaces/kube-system/secrets?fieldSelector=type=k3s.cattle.io/node-password"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{kube}{path}") as answer:
            return len(json.loads(answer.read())["items"])
    except OSError:
        return 0


async def _until(condition: Any, process: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and process.poll() is None:
        done = condition()
        if await done if asyncio.iscoroutine(done) else done:
            return
        await asyncio.sleep(0.5)
    raise RuntimeError(f"it took too long; the master said:\n{(folder / 'master.log').read_text()[-4000:]}")


# -- the workers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Worker:
    node_id: str
    token: str


class _Fleet:
    """All workers. HTTP is spoken by hand: a client for each would need more than the master does."""

    def __init__(self, listen: str, certificate: Path, workers: list[_Worker]) -> None:
        self._host, _, port = listen.partition(":")
        self._port = int(port)
        self._tls = ssl.create_default_context(cafile=str(certificate))
        self._workers = workers

    async def ready(self) -> bool:
        try:
            connection = await self._connect()
        except OSError:
            return False
        status, _ = await connection.ask("GET", "/readyz")
        connection.close()
        return status == 200

    async def register(self) -> float:
        """Every worker, one after another, each over a connection of its own; how many a second."""
        began = time.monotonic()
        for worker in self._workers:
            connection = await self._connect()
            body = {"node_id": worker.node_id, "timestamp_ms": _now_ms()}
            status, answer = await connection.ask("POST", "/api/v1/register-worker", body, worker.token)
            connection.close()
            if status != 200:
                raise RuntimeError(f"{worker.node_id}'s registration: {status} {answer!r}")
        return len(self._workers) / (time.monotonic() - began)

    async def beat(self, seconds: int) -> list[float]:
        """Heartbeats of all workers for so long; how long each took, in ms, from the request on."""
        taken: list[float] = []
        spread = HEARTBEAT_S / len(self._workers)
        ends = time.monotonic() + seconds

        async def work(worker: _Worker, offset_s: float) -> None:
            await asyncio.sleep(offset_s)
            connection = await self._connect()
            while (began := time.monotonic()) < ends:
                body = _heartbeat(worker)
                status, answer = await connection.ask("POST", "/api/v1/nodes/heartbeat", body, worker.token)
                taken.append((time.monotonic() - began) * 1000)
                if status != 200:
                    raise RuntimeError(f"{worker.node_id}'s heartbeat: {status} {answer!r}")
                await asyncio.sleep(began + HEARTBEAT_S - time.monotonic())
            connection.close()

        await asyncio.gather(*(work(worker, n * spread) for n, worker in enumerate(self._workers)))
        return taken

    async def _connect(self) -> _Connection:
        return _Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, bytes]:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: master\r\nContent-Type: application/json\r\n"
            f"X-Seal-Token: {token}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in answer[1:] if line)
        found = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(answer[0].split()[1]), found

    def close(self) -> None:
        self._writer.close()


def _heartbeat(worker: _Worker) -> dict[str, Any]:
    """As a watcher sends it."""
    usage = {"cpu_percent": 12.5, "memory_percent": 40.1, "disk_percent": 55.0}
    return {
        "node_id": worker.node_id,
        "timestamp_ms": _now_ms(),
        "stake_status": "active",
        "stake_mist": SUI,
        "running_pods": 7,
        "resource_usage": usage,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main())
