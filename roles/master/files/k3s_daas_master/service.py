"""The running service: its parts put together, its loops, its sockets, its end."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Protocol

import uvicorn

from k3s_daas import listening, systemd
from k3s_daas.chain import ChainUnreachable, Key, SuiClient
from k3s_daas.logs import get_logger
from k3s_daas.registry import AgreedRegistry
from k3s_daas.requests import policy as request_policy
from k3s_daas_master import nsm
from k3s_daas_master.attester import Attester, RegistersMaster
from k3s_daas_master.bodies import MAX_BODY_BYTES
from k3s_daas_master.certificates import Certificates
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError
from k3s_daas_master.config import Config
from k3s_daas_master.connections import Connections, guarded
from k3s_daas_master.cut import CutRequest
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.doubts import Doubts
from k3s_daas_master.drain import Drainer
from k3s_daas_master.drains import DrainWatch
from k3s_daas_master.errors import StateError
from k3s_daas_master.executor import Executor
from k3s_daas_master.fleet import Fleet, WritesRegistry
from k3s_daas_master.follower import Follower, FollowsChain, ReadsRegistry
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch, ReadsBalance
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.http import api_app
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.nodelist import NodeList
from k3s_daas_master.nodepasswords import NodePasswordKeeper, load_key
from k3s_daas_master.nodewatch import NodeWatch
from k3s_daas_master.operators import Operators, ReadsCap
from k3s_daas_master.owner_api import OwnerApi
from k3s_daas_master.policy import Policy, Proposes
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.readytime import ReadyTime, ReportsReady
from k3s_daas_master.registration import ClusterCa, Registrar
from k3s_daas_master.removal import ReadsWorkers, Remover
from k3s_daas_master.request_intake import RequestIntake
from k3s_daas_master.requests import Requests, ServesRequests
from k3s_daas_master.signatures import Signatures
from k3s_daas_master.state import State
from k3s_daas_master.store import Store
from k3s_daas_master.tenant_cluster import TenantCluster
from k3s_daas_master.tenant_objects import Limits
from k3s_daas_master.tenants import Tenants
from k3s_daas_master.tokenreview import TokenReviewer
from k3s_daas_master.vitals import Vitals, WatchesChain
from k3s_daas_master.webhook import Webhook, WebhookServer

_log = get_logger("k3s_daas_master.service")

# Requests under way get this long at the end; the unit's limit is 5 s.
_DRAIN_S = 2
# Heartbeats come every 30 s; a connection kept a little longer spares each its TLS handshake.
_KEEP_ALIVE_S = 45
# What asyncio sets aside for each TLS connection to read into. Its default, 256 KiB, would make 256 MB of a
# fleet of 1,000 workers; a TLS record has at most 16 KiB, and our requests fit into one.
_TLS_BUFFER_BYTES = 16 * 1024
# How many refusals of one address are logged: a flood must not fill the journal.
_REFUSALS_BURST, _REFUSALS_PER_S = 20, 1.0
# Large answers that one address may ask for: its status pages ask every 3 s each.
_READS_BURST, _READS_PER_S = 60, 4.0
# Open connections: all of them, and of one address. 1,000 workers behind one NAT have their place.
_CONNECTIONS, _CONNECTIONS_OF_ONE = 4000, 1500
# A pass over the fleet that takes longer than this is stuck.
_STUCK_S = 120.0
_CONNECT_RETRY_S = 2.0
# How often a renewed kubeconfig is looked for.
_KUBECONFIG_S = 60.0


class RegistryAccess(
    ReadsRegistry,
    ReadsWorkers,
    ReadsCap,
    WritesRegistry,
    ServesRequests,
    Proposes,
    ReportsReady,
    RegistersMaster,
    Protocol,
):
    """All that the parts ask of the on-chain registry."""


class ChainAccess(FollowsChain, ReadsBalance, WatchesChain, Protocol):
    """All that the parts ask of the chain itself."""

    @property
    def chain_id(self) -> str: ...


def assemble(
    config: Config,
    *,
    chain: ChainAccess,
    registry: RegistryAccess,
    address: str,
    cluster: Cluster,
    store: Store,
    clock: Clock,
    module: nsm.SecurityModule | None = None,
) -> State:
    """The parts of a master with the wallet `address`, on one chain and one cluster, with the security module
    that it proves itself by. Raises StateError."""
    index, ca = TokenIndex(), ClusterCa()
    view = ChainView(clock, chain_may_lead=config.network == "localnet")
    passwords = NodePasswordKeeper(cluster, index, store, load_key(config.state_dir / "node-password.key"))
    signatures = Signatures(store, config.registry_id)
    certificates = Certificates(store)
    heartbeats = Heartbeats(
        index,
        store,
        clock,
        signatures,
        certificates,
        on_offence=lambda node_id, found: policy.find(node_id, found),
    )
    access = NodeAccess(index, certificates, lambda: fleet.nodes if fleet.looked else None, store.was_removed)
    node_list = NodeList(cluster, index)
    disruption = Disruption(index, heartbeats.last_ms, clock)
    cut = CutRequest(config.state_dir)
    remover = Remover(
        registry=registry,
        cluster=cluster,
        passwords=passwords,
        cut=cut,
        store=store,
        clock=clock,
        drain_timeout_s=config.drain_timeout_s,
    )

    tenants = Tenants(
        index=index,
        view=view,
        cluster=TenantCluster(cluster),
        clock=clock,
        limits=Limits(config.tenant_quota, {str(k): v for k, v in config.tenant_container.items()}),
        grace_ms=int(config.tenant_grace_s * 1000),
    )

    allowed = request_policy.Policy(config.request_methods, config.request_resources)
    requests = Requests(
        registry=registry,
        index=index,
        view=view,
        store=store,
        executor=Executor(OwnerApi(cluster.plain, config.request_timeout_s)),
        policy=allowed,
        address=address,
        clock=clock,
        keep_ms=int(config.request_results_keep_s * 1000),
        keep_bytes=config.request_results_max_mb * 1024 * 1024,
    )

    def on_change() -> None:
        remover.wake()
        requests.wake()
        fleet.wake()
        tenants.wake()

    follower = Follower(
        chain=chain,
        registry=registry,
        deployment=config.deployment,
        index=index,
        view=view,
        store=store,
        clock=clock,
        on_change=on_change,
        on_event=requests.note,
    )
    policy = Policy(
        mode=config.slashing,
        index=index,
        registry=registry,
        store=store,
        doubts=Doubts(index, view, follower, disruption),
        address=address,
        separate=config.network != "localnet",
        evidence_dir=config.state_dir / "evidence",
        clock=clock,
    )
    gas = GasWatch(chain, view, address, config.gas_low_mist, config.gas_reserve_mist, clock)
    fleet = Fleet(
        index=index,
        view=view,
        store=store,
        cluster=cluster,
        registry=registry,
        passwords=passwords,
        heartbeats=heartbeats,
        remover=remover,
        ca=ca,
        gas=gas,
        disruption=disruption,
        drains=DrainWatch(index, cluster, config.registry_id, clock),
        policy=policy,
        access=access,
        node_list=node_list,
        cut=cut,
        address=address,
        endpoint=config.endpoint,
        api_server=config.api_server,
        offline_after_ms=int(config.offline_after_s * 1000),
        clock=clock,
    )

    registrar = Registrar(
        index=index,
        view=view,
        store=store,
        cluster=cluster,
        passwords=passwords,
        node_list=node_list,
        ca=ca,
        signatures=signatures,
        api_server=config.api_server,
        bootstrap_ttl_ms=int(config.bootstrap_ttl_s * 1000),
        clock=clock,
    )
    operators = Operators(registry, config.operator_cap_id, clock)
    node_watch = NodeWatch(cluster, fleet.wake)
    metrics = Metrics()
    state = State(
        config=config,
        index=index,
        view=view,
        store=store,
        ca=ca,
        follower=follower,
        fleet=fleet,
        tenants=tenants,
        cluster=cluster,
        remover=remover,
        node_watch=node_watch,
        registrar=registrar,
        drainer=Drainer(index=index, view=view, store=store, cluster=cluster, clock=clock),
        heartbeats=heartbeats,
        operators=operators,
        gas=gas,
        ready_time=ReadyTime(
            index=index,
            view=view,
            registry=registry,
            rows=store.ready_time,
            gas=gas,
            nodes=fleet.seen_nodes,
            address=address,
            report_ms=int(config.ready_report_s * 1000),
            clock=clock,
        ),
        disruption=disruption,
        policy=policy,
        reviewer=TokenReviewer(index, view, operators),
        access=access,
        limiter=RateLimiter(config.registration_burst, config.registration_per_s, clock),
        stranger_limiter=RateLimiter(config.unknown_token_burst, config.unknown_token_per_s, clock),
        refusal_log=RateLimiter(_REFUSALS_BURST, _REFUSALS_PER_S, clock),
        requests=requests,
        request_intake=RequestIntake(
            index=index, view=view, rows=store.requests, policy=allowed, clock=clock, on_body=requests.wake
        ),
        metrics=metrics,
        clock=clock,
        vitals=Vitals(chain, clock, lambda: metrics.checks().all, lambda: metrics.checks().refused),
        reads=RateLimiter(_READS_BURST, _READS_PER_S, clock),
        connections=Connections(_CONNECTIONS_OF_ONE),
        attester=Attester(
            module=module,
            required=config.tee_mode == "nitro",
            index=index,
            view=view,
            registry=registry,
            chain_id=chain.chain_id,
            deployment=config.deployment,
            address=address,
            ca=ca,
            key_file=config.state_dir / "attestation.key",
            clock=clock,
        ),
        attestations=RateLimiter(config.registration_burst, config.registration_per_s, clock),
    )
    state.metrics.watch(state)
    return state


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: two servers and the loops end together, on our word."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def api_server(state: State) -> Server:
    """The API's server, over TLS and with its limits on connections. Raises StateError."""
    files = (str(state.config.tls_cert), str(state.config.tls_key))
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    settings = uvicorn.Config(
        api_app(state),
        http=guarded(state.connections),
        log_config=None,
        # Below that it has a line for every connection that isn't HTTP: a flood must not fill the journal.
        log_level=logging.ERROR,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_BODY_BYTES,
        ws="none",
        # The address of the peer itself: nobody stands in front of us, and a header can say anything.
        proxy_headers=False,
        ssl_certfile=files[0],
        ssl_keyfile=files[1],
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise StateError(
            f"TLS files {', '.join(files)}: {error}. Wanted a certificate and its key, readable by the "
            "service; the unit makes them with `k3s-daas-master issue-certificate`."
        ) from None
    return Server(settings)


def bind(listen: str) -> socket.socket:
    """A bound socket for "address:port". Raises StateError."""
    try:
        return listening.bind(listen)
    except OSError as error:
        raise StateError(
            f"Can't listen on {listen}: {error.strerror}. Is another service on that port? (ss -tlnp)"
        ) from None


async def _up(signs: list[asyncio.Event], serving: list[asyncio.Task[None]]) -> None:
    """Wait until all servers accept connections, or one of them has ended."""

    async def all_up() -> None:
        for up in signs:
            await up.wait()

    waiting = asyncio.create_task(all_up())
    await asyncio.wait([waiting, *serving], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


@contextlib.asynccontextmanager
async def _running(work: dict[str, Coroutine[Any, Any, None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve_state(
    state: State, api: socket.socket, webhook: socket.socket, stop: asyncio.Event, clock: Clock
) -> None:
    """Serve until `stop` is set; then finish requests under way (at most 2 s) and end.

    Raises whatever broke a loop that should never end.
    """
    config = state.config
    server = api_server(state)
    metrics = state.metrics
    reviews = Webhook(state.reviewer, metrics.token_reviews, state.access, metrics.node_accesses)
    webhook_server = WebhookServer(reviews, webhook)
    progress = [state.fleet.passes, clock.monotonic()]

    def alive() -> bool:
        if state.fleet.passes != progress[0]:
            progress[:] = [state.fleet.passes, clock.monotonic()]
        return clock.monotonic() - progress[1] < _STUCK_S

    async def watchdog() -> None:
        await systemd.watchdog(alive)
        await asyncio.Event().wait()

    async def stopped() -> None:
        await stop.wait()

    loops = {
        "follower": state.follower.run(),
        "fleet": state.fleet.run(config.reconcile_s),
        "removals": state.remover.run(),
        "operators": state.operators.run(),
        "tenants": state.tenants.run(config.tenant_check_s),
        "credentials": _follow_kubeconfig(state.cluster),
        "nodes": state.node_watch.run(),
        "ready_time": state.ready_time.run(),
        "slashing": state.policy.run(),
        "requests": state.requests.run(),
        "vitals": state.vitals.run(),
        "attester": state.attester.run(),
        "watchdog": watchdog(),
        "stop": stopped(),
    }
    async with _running(loops) as tasks:
        serving = [
            asyncio.create_task(server.serve([api]), name="http"),
            asyncio.create_task(webhook_server.serve(), name="webhook"),
        ]
        try:
            await _up([server.up, webhook_server.up], serving)
            # What is loaded by now stays: without this, the collector looks through all of it every few
            # seconds under load, and each time every token check waits a tenth of a second.
            gc.collect()
            gc.freeze()
            systemd.ready(f"serving {config.endpoint} ({config.network}, TEE {config.tee_mode})")
            _log.info(
                "serving",
                listen=config.listen,
                webhook=config.webhook_listen,
                network=config.network,
                registry_id=config.registry_id,
                tee="SIMULATED: nothing is attested" if config.tee_mode == "simulated" else "nitro",
            )
            done, _ = await asyncio.wait([*tasks, *serving], return_when=asyncio.FIRST_COMPLETED)
            systemd.stopping()
        finally:
            server.should_exit = True
            webhook_server.stop()
            await asyncio.wait(serving, timeout=_DRAIN_S + 1)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
    for task in done:
        if task.get_name() != "stop":
            # A loop that ends, ends the service: systemd starts it anew from a clean state.
            task.result()
            raise RuntimeError(f"{task.get_name()} ended unexpectedly")
    _log.info("stopped")


async def serve(config: Config, clock: Clock | None = None) -> None:
    """Run the service until SIGTERM or SIGINT. Raises StateError, ClusterError, ChainError."""
    clock = clock or Clock()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as stack:
        store = Store(config.state_dir)
        stack.callback(store.close)
        api, webhook = (
            stack.enter_context(bind(listen)) for listen in (config.listen, config.webhook_listen)
        )
        key = await asyncio.to_thread(Key.load, config.key_file)
        cluster = Cluster.from_file(config.kubeconfig)
        try:
            chain = await _connected(config, key, stop)
            if chain is None:
                return
            async with chain:
                state = assemble(
                    config,
                    chain=chain,
                    registry=AgreedRegistry(chain, config.deployment),
                    address=key.address,
                    cluster=cluster,
                    store=store,
                    clock=clock,
                    module=security_module(config),
                )
                await serve_state(state, api, webhook, stop, clock)
        finally:
            await cluster.aclose()


def security_module(config: Config) -> nsm.SecurityModule | None:
    """What this master proves itself by; None when it is simulated without an emulator."""
    if config.tee_mode == "nitro":
        return nsm.device()
    return None if config.nsm_socket is None else nsm.simulated(config.nsm_socket)


async def _follow_kubeconfig(cluster: Cluster) -> None:
    """Use a renewed client certificate without a restart."""
    while True:
        await asyncio.sleep(_KUBECONFIG_S)
        try:
            if await cluster.reload():
                _log.info("kubeconfig read anew")
        except ClusterError as error:
            # The old certificate serves as long as it is valid.
            _log.error("kubeconfig not read anew", error=str(error))


async def _connected(config: Config, key: Key, stop: asyncio.Event) -> SuiClient | None:
    """A client of the configured chain; None when told to stop before one answered."""
    while not stop.is_set():
        try:
            return await SuiClient.connect(config.endpoints, config.network, key, config.chain_id)
        except ChainUnreachable as error:
            systemd.status("waiting for the chain")
            _log.warning("chain unreachable", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _CONNECT_RETRY_S)
    return None
