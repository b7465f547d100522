#!/usr/bin/env python3
"""What a watcher at rest costs its host: memory, and the share of a core.

    python benchmarks/watcher.py [--json FILE] [--seconds 120]

The watcher is a process of its own with the role's defaults: it looks at the chain every 10 s, sends a
heartbeat and counts its pods every 30 s; Prometheus scrapes it as often. The chain is a localnet with
our contracts. The master and the API server are a double: TLS, and an answer to each request.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas import join, listening, seal
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import (
    CompiledPackage,
    Registry,
    RegistryParams,
    StakeRequest,
    create_registry,
    publish,
)
from k3s_daas_localnet import Localnet
from k3s_daas_watcher import signing

ROOT = Path(__file__).resolve().parents[1]
SUI = 1_000_000_000
HEARTBEAT_S, CHAIN_POLL_S = 30, 10
SECONDS = 4 * HEARTBEAT_S
READS = ("health", "metrics", "api/v1/staking", "api/v1/metrics", "api/v1/config")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it is watched")
    options = parser.parse_args()
    figures = measure(options.seconds)
    print(
        f"watcher at rest, {options.seconds:g} s: {figures['watcher_rss_mb']} MB resident (MB = 2^20 bytes),"
    )
    print(f"  {figures['watcher_cpu_percent']} % of a core")
    if options.json:
        options.json.write_text(json.dumps(figures))
    print(json.dumps(figures))
    return 0


def measure(seconds: float = SECONDS) -> dict[str, float | int]:
    """`watcher_rss_mb` (2^20 bytes, rounded up) and `watcher_cpu_percent` of one core, both at rest."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), seconds))


async def _measure(folder: Path, seconds: float) -> dict[str, float | int]:
    ca_pem = _make_ca(folder)
    token = seal.make()
    beats: list[float] = []
    async with Localnet.start() as net, _double(folder, ca_pem, beats) as url:
        print("staking on a localnet", flush=True)
        ids = await _staked(net, url, join.ca_hash(ca_pem), token)
        port = _free_port()
        config = _configure(folder, net.url, ids, port, token)
        async with _watcher(folder, config) as process, httpx.AsyncClient() as client:
            base = f"http://127.0.0.1:{port}"
            await _until_well(client, base, process, folder)
            for path in READS:
                (await client.get(f"{base}/{path}")).raise_for_status()
            print(f"watching it for {seconds:g} s", flush=True)
            start, before, beaten = time.monotonic(), _cpu_s(process.pid), len(beats)
            while (left := start + seconds - time.monotonic()) > 0:
                await asyncio.sleep(min(HEARTBEAT_S, left))
                (await client.get(f"{base}/metrics")).raise_for_status()
            used = (_cpu_s(process.pid) - before) / (time.monotonic() - start)
            if len(beats) - beaten < seconds // HEARTBEAT_S - 1:
                raise RuntimeError(
                    f"{len(beats) - beaten} heartbeats in {seconds:g} s: that was no watcher at rest"
                )
            return {
                "watcher_rss_mb": -(-_rss_kb(process.pid) // 1024),
                "watcher_cpu_percent": round(100 * used, 2),
            }


# -- the chain ---------------------------------------------------------------------------------------------


async def _staked(net: Localnet, url: str, ca_hash: bytes, token: str) -> dict[str, str]:
    """A registry with worker-1 and the master at `url`; returns the ids for watcher.json."""
    command = [sys.executable, "-m", "k3s_daas_localnet", "build", str(ROOT / "move" / "k3s_daas")]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=120, check=True
    )
    built = json.loads(done.stdout.splitlines()[-1])
    modules = tuple(base64.b64decode(module) for module in built["modules"])
    compiled = CompiledPackage(modules, tuple(built["dependencies"]), bytes(built["digest"]))
    key = Key.generate()
    await net.faucet(key.address, 1_000 * SUI)
    async with await SuiClient.connect([net.url], "localnet", key) as chain:
        package_id, _ = await publish(chain, compiled)
        terms = RegistryParams("benchmark", True, SUI, 0, 0, 5000, False)
        deployment, _ = await create_registry(chain, package_id, terms)
        registry = Registry(chain, deployment)
        await registry.appoint_master(key.address, 0)
        await registry.announce_master(url, url, ca_hash)
        expires = time.time_ns() // 1_000_000 + 90 * 86_400_000
        await registry.stake([StakeRequest("worker-1", seal.commitment(token), SUI, expires)], key.address)
    return {"package_id": deployment.package_id, "registry_id": deployment.registry_id}


# -- the double of master and API server -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _double(folder: Path, ca_pem: bytes, beats: list[float]) -> AsyncIterator[str]:
    async def cacerts(_: Request) -> Response:
        return PlainTextResponse(ca_pem)

    async def heartbeat(request: Request) -> Response:
        await request.json()
        beats.append(time.monotonic())
        return JSONResponse({"status": "active"})

    async def pods(_: Request) -> Response:
        return JSONResponse(
            {"kind": "Table", "rows": [{"cells": [f"pod-{n}", "Running"]} for n in range(30)]}
        )

    app = Starlette(
        routes=[
            Route("/cacerts", cacerts),
            Route("/api/v1/nodes/heartbeat", heartbeat, methods=["POST"]),
            Route("/api/v1/pods", pods),
        ]
    )
    sock = listening.bind("127.0.0.1:0")
    certificate, key = str(folder / "tls.crt"), str(folder / "tls.key")
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_keep_alive=45,
        )
    )
    serving = asyncio.create_task(server._serve([sock]))
    try:
        yield f"https://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        sock.close()


def _make_ca(folder: Path) -> bytes:
    """A throw-away CA and one certificate of it, for the double and as the kubelet's."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    base = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    ca = (
        base.subject_name(name)
        .public_key(ca_key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(usage, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = (
        base.subject_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(address, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for names in (("tls.crt", "tls.key"), ("client-kubelet.crt", "client-kubelet.key")):
        for file, content in zip(names, (leaf.public_bytes(pem), private), strict=True):
            (folder / file).write_bytes(content)
    return ca.public_bytes(pem)


# -- the watcher -------------------------------------------------------------------------------------------


def _configure(folder: Path, endpoint: str, ids: dict[str, str], port: int, token: str) -> Path:
    for name in ("state", "run", "root"):
        (folder / name).mkdir(mode=0o700)
    secret = folder / "seal-token"
    secret.touch(mode=0o600)
    secret.write_text(token)
    signing.create(folder / "heartbeat.key")
    config: dict[str, Any] = {
        "network": "localnet",
        "endpoints": [endpoint],
        "node_id": "worker-1",
        "tee_mode": "simulated",
        "accept_simulated": True,
        "heartbeat_s": HEARTBEAT_S,
        "chain_poll_s": CHAIN_POLL_S,
        "listen": f"127.0.0.1:{port}",
        "state_dir": str(folder / "state"),
        "confirmation_file": str(folder / "run" / "done"),
        "stop_marker": str(folder / "root" / "stopped"),
        "kubelet_credentials_dir": str(folder),
    }
    path = folder / "watcher.json"
    path.write_text(json.dumps(config | ids))
    return path


@contextlib.asynccontextmanager
async def _watcher(folder: Path, config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ["-m", "k3s_daas_watcher", "serve", f"--config={config}"]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            f"--seal-token-file={folder / 'seal-token'}",
            f"--heartbeat-key-file={folder / 'heartbeat.key'}",
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def _until_well(
    client: httpx.AsyncClient, base: str, process: asyncio.subprocess.Process, folder: Path
) -> None:
    for _ in range(300):
        await asyncio.sleep(0.1)
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get(f"{base}/health")).status_code == httpx.codes.OK:
                return
        if process.returncode is not None:
            break
    raise RuntimeError(f"the watcher is not well:\n{(folder / 'log').read_text()[-2000:]}")


def _free_port() -> int:
    with listening.bind("127.0.0.1:0") as sock:
        port: int = sock.getsockname()[1]
        return port


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _rss_kb(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
