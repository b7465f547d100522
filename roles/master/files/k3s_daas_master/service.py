"""The running service: its loops, its sockets, its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import uvicorn

from k3s_daas import listening, systemd
from k3s_daas.chain import ChainUnreachable, Key, SuiClient
from k3s_daas.logs import get_logger
from k3s_daas.registry import AgreedRegistry
from k3s_daas.registry.snapshots import Anchors
from k3s_daas_master import nsm
from k3s_daas_master.assembly import assemble
from k3s_daas_master.bodies import MAX_BODY_BYTES
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster, ClusterError
from k3s_daas_master.config import Config
from k3s_daas_master.connections import guarded
from k3s_daas_master.errors import StateError
from k3s_daas_master.http import api_app
from k3s_daas_master.state import State
from k3s_daas_master.store import Store
from k3s_daas_master.webhook import Webhook, WebhookServer

_log = get_logger("k3s_daas_master.service")

# Requests under way get this long at the end; the unit's limit is 5 s.
_DRAIN_S = 2
# Heartbeats come every 30 s; a connection kept a little longer spares each its TLS handshake.
_KEEP_ALIVE_S = 45
# Open connections, all of them.
_CONNECTIONS = 4000
# A pass over the fleet that takes longer than this is stuck.
_STUCK_S = 120.0
_CONNECT_RETRY_S = 2.0
# The last snapshot at the end; the unit's limit is 30 s then.
_LAST_SNAPSHOT_S = 20.0
# How often a renewed kubeconfig is looked for.
_KUBECONFIG_S = 60.0


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
        "sealer": state.sealer.run(),
        "fence": state.fence.run(),
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
    with contextlib.suppress(TimeoutError):
        # Nobody is answered any more, so that nothing happens after it.
        await asyncio.wait_for(state.sealer.last(), _LAST_SNAPSHOT_S)
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
                registry = AgreedRegistry(chain, config.deployment)
                state = assemble(
                    config,
                    chain=chain,
                    registry=registry,
                    address=key.address,
                    cluster=cluster,
                    store=store,
                    clock=clock,
                    module=nsm.of(config.tee_mode, config.nsm_socket),
                    anchors=Anchors(registry) if config.seals else None,
                )
                await serve_state(state, api, webhook, stop, clock)
        finally:
            await cluster.aclose()


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
