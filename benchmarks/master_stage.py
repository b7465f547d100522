"""A chain with a registry, a k3s server (the stand-in) and a master's configuration, for benchmarks of the
master.

Everything is a process of its own on loopback and ends with the stage.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from lightkube.config.kubeconfig import KubeConfig
from processes import free_port, running

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

ROOT = Path(__file__).parents[1]
STANDIN = ROOT / "molecule" / "resources" / "standin" / "k3s"
SUI = 1_000_000_000
DAY_MS = 86_400_000


class Stage:
    """What a benchmark reaches for."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.registry = registry
        self.port = free_port()
        self.log = folder / "master.log"
        self.serve = [
            sys.executable,
            "-m",
            "k3s_daas_master",
            "serve",
            "--config",
            str(folder / "master.json"),
        ]
        self.api: httpx.AsyncClient
        self.kube = KubeConfig.from_file(folder / "etc/rancher/k3s/k3s.yaml")

    async def stake(self, node_ids: list[str]) -> dict[str, str]:
        """Stakes for them all; returns their seal tokens."""
        tokens = {node_id: seal.make() for node_id in node_ids}
        expires = await self.registry.clock_ms() + 90 * DAY_MS
        requests = [StakeRequest(n, seal.commitment(t), SUI, expires) for n, t in tokens.items()]
        await self.registry.stake(requests, self.registry.chain.require_address())
        return tokens

    async def post(self, path: str, token: str, node_id: str, timestamp_ms: int = 0) -> httpx.Response:
        body = {"node_id": node_id, "timestamp_ms": timestamp_ms or time.time_ns() // 1_000_000}
        return await self.api.post(path, json=body, headers={"X-Seal-Token": token})

    async def ready(self) -> bool:
        """Whether the master says it is."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self.api.get("/readyz")).status_code == httpx.codes.OK
        return False

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
        """Raises RuntimeError, with what the master said last, when it doesn't come true."""
        ends = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > ends:
                raise RuntimeError(f"it took too long; the master said:\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def stage(folder: Path, **config: Any) -> AsyncIterator[Stage]:
    """A stage whose master is appointed and not running yet; `config` is added to its configuration."""
    python = sys.executable
    (folder / "etc/rancher/k3s").mkdir(parents=True)
    server = {"disable-agent": True, "bind-address": "127.0.0.1", "https-listen-port": 0}
    (folder / "etc/rancher/k3s/config.yaml").write_text(yaml.safe_dump(server))
    localnet = [python, "-m", "k3s_daas_localnet", "--listen=127.0.0.1:0", "--faucet-listen=127.0.0.1:0"]
    with (
        running(localnet, folder / "localnet.log") as chain_process,
        running(
            [python, str(STANDIN), "server"], folder / "k3s.log", {"K3S_STANDIN_ROOT": str(folder)}
        ) as k3s,
    ):
        net = await _said(folder / "localnet.log", chain_process)
        kubeconfig = folder / "etc/rancher/k3s/k3s.yaml"
        while not kubeconfig.exists() or not kubeconfig.read_text().strip():
            if k3s.poll() is not None:
                raise RuntimeError(f"the k3s stand-in ended:\n{(folder / 'k3s.log').read_text()[-2000:]}")
            await asyncio.sleep(0.05)
        chain, registry = await _registry(net)
        async with chain:
            made = Stage(folder, registry)
            await _install(made, net, config)
            async with made.api:
                yield made


async def _said(log: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What the localnet says once it is ready."""
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and "listening" in line:
                ready: dict[str, str] = json.loads(line)
                return ready
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the localnet didn't start:\n{log.read_text()[-2000:]}")


async def _registry(net: dict[str, str]) -> tuple[SuiClient, Registry]:
    build = [sys.executable, "-m", "k3s_daas_localnet", "build", str(ROOT / "move" / "k3s_daas")]
    done = subprocess.run(build, check=True, capture_output=True, text=True)
    built = json.loads(done.stdout.splitlines()[-1])
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
    terms = RegistryParams("benchmark", True, SUI, 0, 0, 5000, False)
    deployment, _ = await create_registry(chain, package_id, terms)
    return chain, Registry(chain, deployment)


async def _install(made: Stage, net: dict[str, str], more: dict[str, Any]) -> None:
    folder, registry = made.folder, made.registry
    (folder / "state").mkdir()
    kubeconfig = yaml.safe_load((folder / "etc/rancher/k3s/k3s.yaml").read_text())
    config = {
        "network": "localnet",
        "endpoints": [net["rpc"]],
        "chain_id": registry.chain.chain_id,
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
        "tee_mode": "simulated",
        "listen": f"127.0.0.1:{made.port}",
        "webhook_listen": f"127.0.0.1:{free_port()}",
        "endpoint": f"https://127.0.0.1:{made.port}",
        "api_server": kubeconfig["clusters"][0]["cluster"]["server"],
        "kubeconfig": str(folder / "etc/rancher/k3s/k3s.yaml"),
        "key_file": str(folder / "state/sui.key"),
        "state_dir": str(folder / "state"),
        "tls_cert": str(folder / "tls/server.crt"),
        "tls_key": str(folder / "tls/server.key"),
        # All workers here have one address.
        "registration_burst": 1000,
        **more,
    }
    (folder / "master.json").write_text(json.dumps(config))
    tls = folder / "var/lib/rancher/k3s/server/tls"
    command: list[str | Path] = [sys.executable, "-m", "k3s_daas_master"]
    init = [*command, "init-key", "--config", str(folder / "master.json")]
    done = await asyncio.to_thread(subprocess.run, init, check=True, capture_output=True)
    issue = [
        *command,
        "issue-certificate",
        "--ca-cert",
        tls / "server-ca.crt",
        "--ca-key",
        tls / "server-ca.key",
    ]
    issue += ["--out", folder / "tls", "--san", "127.0.0.1"]
    await asyncio.to_thread(subprocess.run, issue, check=True, capture_output=True)
    await registry.appoint_master(json.loads(done.stdout)["address"], 10 * SUI)
    context = ssl.create_default_context(cafile=str(tls / "server-ca.crt"))
    base = f"https://127.0.0.1:{made.port}"
    made.api = httpx.AsyncClient(base_url=base, verify=context, trust_env=False, timeout=10)
