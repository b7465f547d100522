"""A master's real parts on a real chain (localnet), over real TLS, with a fake Kubernetes API behind it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx2
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lightkube.config.kubeconfig import KubeConfig
from request_fakes import OwnersKube, b64
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from k3s_daas.join import ca_hash
from k3s_daas.registry import Registry
from k3s_daas_master.assembly import assemble
from k3s_daas_master.certificate import issue
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.config import Config
from k3s_daas_master.service import api_server, bind
from k3s_daas_master.store import Store

SUI = 1_000_000_000


def make_ca(folder: Path) -> tuple[Path, Path]:
    """A CA's certificate and key as k3s has them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k3s-server-ca@1790000000")])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(True, False, True, False, False, True, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server-ca.crt", folder / "server-ca.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return paths


class LiveMaster:
    """One registry's master. `stop()` and `start()` as often as a test likes: the state directory stays."""

    def __init__(self, folder: Path, registry: Registry, chain: Any, url: str) -> None:
        self.folder, self.registry, self.chain, self.url = folder, registry, chain, url
        self.kube = OwnersKube()
        self.cert, self.key = make_ca(folder)
        self.sock = bind("127.0.0.1:0")
        self.endpoint = f"https://127.0.0.1:{self.sock.getsockname()[1]}"
        issue(self.cert, self.key, folder / "tls", ["127.0.0.1"])
        self._tasks: list[asyncio.Task[Any]] = []

    def config(self, **changes: Any) -> Config:
        deployment = self.registry.deployment
        return Config(
            network="localnet",
            endpoints=[self.url],
            package_id=deployment.package_id,
            registry_id=deployment.registry_id,
            tee_mode="simulated",
            endpoint=self.endpoint,
            api_server=self.endpoint,
            kubeconfig=self.folder / "kubeconfig",
            key_file=self.folder / "sui.key",
            state_dir=self.folder,
            tls_cert=self.folder / "tls/server.crt",
            tls_key=self.folder / "tls/server.key",
            **changes,
        )

    async def announce(self) -> None:
        """Become the master, on-chain, and say where it is."""
        await self.registry.appoint_master(self.chain.address, 0)
        ours = Registry(self.chain, self.registry.deployment)
        await ours.announce_master(self.endpoint, self.endpoint, ca_hash(self.cert.read_bytes()))

    async def start(self, **changes: Any) -> None:
        """Follow the chain, serve the API and the requests."""
        # An Ansible module's stdout is its result.
        structlog.reset_defaults()
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
        self.store = Store(self.folder)
        kubeconfig = KubeConfig.from_dict(
            {
                "current-context": "c",
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {
                            "server": "https://kube",
                            "certificate-authority-data": b64(self.cert.read_bytes()),
                        },
                    }
                ],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
                "users": [{"name": "c", "user": {"token": "admin"}}],
            }
        )
        self.cluster = Cluster(kubeconfig, transport=httpx2.ASGITransport(app=self.kube.app()))
        self.state = assemble(
            self.config(**changes),
            chain=self.chain,
            registry=Registry(self.chain, self.registry.deployment),
            address=self.chain.address,
            cluster=self.cluster,
            store=self.store,
            clock=Clock(),
        )
        self.server = api_server(self.state)
        cacerts = Route("/cacerts", lambda _: PlainTextResponse(self.cert.read_bytes()))
        cast(Starlette, self.server.config.app).router.routes.insert(0, cacerts)
        loops = (self.state.follower.run(), self.state.requests.run(), self.server.serve([self.sock.dup()]))
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        await self.server.up.wait()

    async def stop(self) -> None:
        """End at once, wherever it is."""
        self.server.should_exit = True
        for task in self._tasks[:2]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.cluster.aclose()
        self.store.close()
        structlog.reset_defaults()


@contextlib.asynccontextmanager
async def live_master(folder: Path, registry: Registry, chain: Any, url: str) -> AsyncIterator[LiveMaster]:
    """`registry` is the operator's, `chain` the master's own funded wallet."""
    master = LiveMaster(folder, registry, chain, url)
    await master.announce()
    await master.start()
    try:
        yield master
    finally:
        await master.stop()
        master.sock.close()
