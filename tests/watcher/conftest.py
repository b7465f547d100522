"""A master, a chain and a clock for the watcher's tests. Each says of itself that it is a fake.

The master speaks real TLS on loopback with a certificate of a throw-away CA, because what the watcher
trusts is the very thing under test; the chain is a dictionary in memory, and the clock stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas import join, listening, seal
from k3s_daas.chain.model import Unsigned
from k3s_daas.registry.attested import Basis
from k3s_daas.registry.mastery import Image
from k3s_daas.registry.model import Master, SealTokenRecord, Worker, WorkerStatus
from k3s_daas_watcher.agent import AgentReport, AgentState
from k3s_daas_watcher.api import Api, application
from k3s_daas_watcher.chainview import Sighting
from k3s_daas_watcher.config import WatcherConfig
from k3s_daas_watcher.control import Control
from k3s_daas_watcher.guard import Guard
from k3s_daas_watcher.hostusage import HostUsage
from k3s_daas_watcher.signing import HeartbeatKey
from k3s_daas_watcher.state import StateStore
from k3s_daas_watcher.unstake import Unstaker
from k3s_daas_watcher.watcher import Watcher

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


class FakeClock:
    """Stands still but for `advance` and for what is slept, which passes at once."""

    def __init__(self) -> None:
        self.wall_ms = NOW_MS
        self.seconds = 1000.0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1000)
        self.seconds += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)

    def jitter(self, spread: float) -> float:
        return spread


@dataclass(frozen=True)
class Ca:
    """A throw-away CA and one server certificate for 127.0.0.1."""

    pem: bytes
    cert_file: Path
    key_file: Path

    @property
    def hash(self) -> bytes:
        return join.ca_hash(self.pem)


def make_ca(directory: Path, name: str) -> Ca:
    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"throw-away {name}")])
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    base = x509.CertificateBuilder().not_valid_before(now - dt.timedelta(hours=1))
    ca = (
        base.not_valid_after(now + dt.timedelta(days=1))
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        base.not_valid_after(now + dt.timedelta(days=1))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]))
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    cert_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    cert_file.write_bytes(leaf.public_bytes(pem))
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Ca(ca.public_bytes(pem), cert_file, key_file)


@pytest.fixture(autouse=True)
def commands_log_for_themselves(own_logging: None) -> None:
    """Many tests here run one of the watcher's commands in this process."""


@pytest.fixture(name="make_ca", scope="session")
def _make_ca() -> Callable[[Path, str], Ca]:
    return make_ca


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return make_ca(tmp_path, "ca")


Answer = Callable[[dict[str, Any]], Response | None]


@dataclass
class FakeMaster:
    """A master and API server in one: /cacerts, registration, heartbeat, drain. FAKE: believes every token.

    `on_register`, `on_heartbeat` and `on_drain` may answer instead (an error, a delay); None means the good
    answer.
    """

    ca: Ca
    served_ca: bytes
    url: str = ""
    registrations: list[dict[str, Any]] = field(default_factory=list)
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    # The bodies of heartbeats as they came, each with its signature.
    signed: list[tuple[bytes, str | None]] = field(default_factory=list)
    on_register: Answer | None = None
    on_heartbeat: Answer | None = None
    on_drain: Answer | None = None
    # What it answers to a nonce; None is what a simulated master says.
    on_attest: Callable[[str], Response] | None = None
    nonces: list[str] = field(default_factory=list)
    drains: list[dict[str, Any]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    overview: dict[str, Any] = field(default_factory=dict)
    secret: str = "abcdef.0123456789abcdef"  # noqa: S105 - a made-up one
    password: str = "f" * 32

    def app(self) -> Starlette:
        async def cacerts(_request: Request) -> Response:
            return PlainTextResponse(self.served_ca)

        async def register(request: Request) -> Response:
            body = await request.json()
            self.registrations.append(body)
            self.tokens.append(request.headers.get("x-seal-token"))
            other = self.on_register(body) if self.on_register else None
            token_id, _, secret = self.secret.partition(".")
            good = {
                "node_id": body["node_id"],
                "server": self.url,
                "token": join.full_token(self.ca.hash, token_id, secret),
                "expires_at_ms": NOW_MS + 600_000,
                "node_password": self.password,
                "ca_pem": self.ca.pem.decode(),
            }
            return other or JSONResponse(good | self.changes)

        async def heartbeat(request: Request) -> Response:
            body = await request.json()
            self.heartbeats.append(body)
            self.signed.append((await request.body(), request.headers.get("x-worker-signature")))
            self.tokens.append(request.headers.get("x-seal-token"))
            other = self.on_heartbeat(body) if self.on_heartbeat else None
            return other or JSONResponse({"status": "active"})

        async def drain(request: Request) -> Response:
            body = await request.json()
            self.drains.append(body)
            self.tokens.append(request.headers.get("x-seal-token"))
            other = self.on_drain(body) if self.on_drain else None
            return other or JSONResponse({"drained": True, "pods_left": 0, "waiting_for": []})

        async def overview(_request: Request) -> Response:
            return JSONResponse(self.overview)

        async def attestation(request: Request) -> Response:
            nonce = request.query_params["nonce"]
            self.nonces.append(nonce)
            self.tokens += [value for name, value in request.headers.items() if name == "x-seal-token"]
            return self.on_attest(nonce) if self.on_attest else refusal(404, "not_attested")

        return Starlette(
            routes=[
                Route("/cacerts", cacerts),
                Route("/api/v1/register-worker", register, methods=["POST"]),
                Route("/api/v1/nodes/heartbeat", heartbeat, methods=["POST"]),
                Route("/api/v1/nodes/drain", drain, methods=["POST"]),
                Route("/api/v1/overview", overview),
                Route("/api/v1/attestation", attestation),
            ]
        )


def refusal(status: int, code: str, **fields: str) -> Response:
    """An error answer as the master gives it."""
    error = {"code": code, "message": f"refused: {code}", "found": "F", "wanted": "W", "fix": "X"} | fields
    return JSONResponse({"error": error}, status)


@contextlib.asynccontextmanager
async def serving(app: Any, ca: Ca | None) -> AsyncIterator[str]:
    """`app` on an ephemeral loopback port, with TLS when there is a CA."""

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    sock = listening.bind("127.0.0.1:0")
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        ssl_certfile=str(ca.cert_file) if ca else None,
        ssl_keyfile=str(ca.key_file) if ca else None,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield f"{'https' if ca else 'http'}://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        # Not by should_exit: an orderly end takes uvicorn up to 0.3 s, hundreds of times.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        sock.close()


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Return as soon as `condition()` is true; fail after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def master(ca: Ca) -> AsyncIterator[FakeMaster]:
    fake = FakeMaster(ca, ca.pem)
    async with serving(fake.app(), ca) as url:
        fake.url = url
        yield fake


@pytest.fixture
def token() -> str:
    return seal.make()


@dataclass
class FakeChain:
    """One endpoint of a FAKE chain: a record in memory, which a test may change or break."""

    sighting: Sighting
    name: str = "fake://chain"
    error: Exception | None = None
    hang: bool = False
    reads: int = 0
    closed: bool = False
    images: frozenset[Image] = frozenset()
    time_ms: int = NOW_MS
    #: Base58 of 32 bytes of 1.
    chain_id: str = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"

    async def read(self, node_id: str) -> Sighting:
        self.reads += 1
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.sighting

    async def basis(self) -> Basis:
        if self.error is not None:
            raise self.error
        return Basis(self.chain_id, self.sighting.master, self.images, self.time_ms)

    async def close(self) -> None:
        self.closed = True

    def set_status(self, status: WorkerStatus) -> None:
        assert self.sighting.worker is not None
        self.sighting = replace(self.sighting, worker=replace(self.sighting.worker, status=status))

    def set_token(self, **changes: Any) -> None:
        assert self.sighting.token is not None
        self.sighting = replace(self.sighting, token=replace(self.sighting.token, **changes))

    def set_master(self, **changes: Any) -> None:
        assert self.sighting.master is not None
        self.sighting = replace(self.sighting, master=replace(self.sighting.master, **changes))


def make_sighting(master_url: str, ca_hash: bytes, token: str) -> Sighting:
    worker = Worker(
        node_id="worker-1",
        owner="0x" + "a" * 64,
        stake_mist=1_500_000_000,
        status=WorkerStatus.ACTIVE,
        proof_id="0x" + "b" * 64,
        withdrawal_address="0x" + "a" * 64,
        registered_at_ms=NOW_MS - DAY_MS,
        status_changed_at_ms=NOW_MS - DAY_MS,
        min_stake_mist=1_000_000_000,
        slash_window_ms=0,
        unbonding_window_ms=0,
        slash_share_bps=5000,
        reputation=100,
    )
    record = SealTokenRecord(
        scope="worker",
        node_id="worker-1",
        owner=worker.owner,
        commitment=hashlib.sha256(token.encode()).digest(),
        generation=3,
        issued_at_ms=NOW_MS - DAY_MS,
        expires_at_ms=NOW_MS + 90 * DAY_MS,
        revoked=False,
    )
    announced = Master(
        epoch=1,
        account="0x" + "c" * 64,
        endpoint=master_url,
        api_server=master_url,
        ca_hash=ca_hash,
        announced_at_ms=NOW_MS - DAY_MS,
    )
    return Sighting(worker, record, announced)


@pytest.fixture
def chain(master: FakeMaster, token: str) -> FakeChain:
    return FakeChain(make_sighting(master.url, master.ca.hash, token))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A good watcher.json as a dictionary."""
    return {
        "network": "localnet",
        "endpoints": ["http://127.0.0.1:1"],
        "chain_id": None,
        "package_id": "0x" + "1" * 64,
        "registry_id": "0x" + "2" * 64,
        "node_id": "worker-1",
        "tee_mode": "simulated",
        "accept_simulated": True,
        "listen": "127.0.0.1:0",
        "state_dir": str(tmp_path / "state"),
        "confirmation_file": str(tmp_path / "run" / "agent-control.done"),
        "stop_marker": str(tmp_path / "root" / "agent-stopped"),
    } | changes


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., WatcherConfig]:
    def make(**changes: Any) -> WatcherConfig:
        for name, mode in (("state", 0o700), ("run", 0o755), ("root", 0o755)):
            (tmp_path / name).mkdir(mode=mode, exist_ok=True)
        return WatcherConfig.model_validate_json(json.dumps(settings(tmp_path, **changes)))

    return make


@dataclass
class FakeProbe:
    """An agent that is as well as the test says."""

    state: AgentState = AgentState.HEALTHY
    looks: int = 0

    async def look(self) -> AgentReport:
        self.looks += 1
        return AgentReport(self.state, f"fake agent, {self.state.value}")


@pytest.fixture
def probe() -> FakeProbe:
    return FakeProbe()


HOST = HostUsage(1.0, 2.0, 20, 1000, 3.0, 30, 1000, 500, 600)


@dataclass
class FakePods:
    """A FAKE count of pods; None is "nobody can say"."""

    running: int | None = 4
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def count(self, api_server: str, ca_pem: str) -> int | None:
        self.asked.append((api_server, ca_pem))
        return self.running

    async def close(self) -> None:
        return


@pytest.fixture
def pods() -> FakePods:
    return FakePods()


MakeWatcher = Callable[..., Watcher]


@pytest.fixture
def make_root(tmp_path: Path) -> Callable[..., Control]:
    """The way to root; tests are not always root, so its answers belong to who runs them."""

    def make(config: WatcherConfig, root_uid: int | None = None) -> Control:
        return Control(
            Path(config.state_dir),
            Path(config.confirmation_file),
            config.node_id,
            root_uid=tmp_path.stat().st_uid if root_uid is None else root_uid,
        )

    return make


@pytest.fixture
def certificates() -> list[str]:
    """Fingerprints of the node's shared certificates, for a test to change."""
    return []


@pytest.fixture
async def make_watcher(
    make_config: Callable[..., WatcherConfig],
    token: str,
    chain: FakeChain,
    clock: FakeClock,
    probe: FakeProbe,
    pods: FakePods,
    certificates: list[str],
    make_root: Callable[..., Control],
) -> AsyncIterator[MakeWatcher]:
    """Watchers on one state directory; made twice, the second is the first after a restart."""
    made: list[Watcher] = []

    def make(chains: list[FakeChain] | None = None, root_uid: int | None = None, **changes: Any) -> Watcher:
        config = make_config(**changes)
        state_dir = Path(config.state_dir)
        watcher = Watcher(
            config,
            token,
            chains or [chain],
            StateStore(state_dir, config.node_id),
            make_root(config, root_uid),
            probe,
            clock,
            key=HeartbeatKey(bytes(range(32))),
            usage=lambda: HOST,
            pods=pods,
            certificates=lambda: list(certificates),
        )
        made.append(watcher)
        return watcher

    yield make
    for watcher in made:
        await watcher.close()


@pytest.fixture
def leave() -> AsyncMock:
    """Stands for the chain's part in writing an unstake transaction."""
    sender = "0x" + "a" * 64
    return AsyncMock(return_value=Unsigned(sender, b"transaction", "digest", 3_000_000))


@pytest.fixture
def make_app(
    token: str, clock: FakeClock, leave: AsyncMock, make_root: Callable[..., Control]
) -> Callable[..., Starlette]:
    """The API of a watcher, or the part of it that others may reach: `make(watcher, metrics_application)`."""

    def make(watcher: Watcher, part: Callable[[Api], Starlette] = application) -> Starlette:
        guard, root = Guard(token, clock), make_root(watcher.config)
        return part(Api(watcher, clock, guard, root, Unstaker(watcher, clock, leave)))

    return make


# Plain functions as fixtures, because test modules can't import from here.


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture(name="refusal")
def refusal_fixture() -> Callable[..., Response]:
    return refusal


@pytest.fixture
def new_ca(tmp_path: Path) -> Callable[[str], Ca]:
    return lambda name: make_ca(tmp_path, name)


@pytest.fixture
def master_class() -> type[FakeMaster]:
    return FakeMaster


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[..., contextlib.AbstractAsyncContextManager[str]]:
    return serving


@pytest.fixture
def write_config(tmp_path: Path, make_config: Callable[..., WatcherConfig]) -> Callable[..., Path]:
    """A watcher.json on disk, with its directories."""

    def write(**changes: Any) -> Path:
        make_config(**changes)
        path = tmp_path / "watcher.json"
        path.write_text(json.dumps(settings(tmp_path, **changes)))
        return path

    return write
