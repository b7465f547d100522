"""`k3s-daas-watcher serve`: two loops, one loopback API, one word to systemd, one exit code."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence

from starlette.applications import Starlette

from k3s_daas import listening, logs, systemd

from .clock import Clock
from .errors import Exit, Refusal
from .httpserver import Server
from .watcher import Slashed, Watcher

log = logs.get_logger(__name__)

# Longest a chain check or a heartbeat with everything that may follow it takes; all have own time-outs.
STEP_LIMIT_S = 45.0
# How soon a heartbeat goes out that has something new to tell.
LOOK_S = 1.0


Served = Sequence[tuple[Starlette, socket.socket]]


async def serve(watcher: Watcher, served: Served, clock: Clock, stop: asyncio.Event) -> Exit:
    """Run until `stop` is set or the worker is slashed; serve each application on its socket meanwhile.

    Closes the sockets.
    """
    try:
        if watcher.store.slashed:
            return await _shut_down(watcher, stop)
        # Before READY: a worker slashed while this host was down must not look started.
        await watcher.check_chain()
        return await _run(watcher, served, clock, stop)
    except Slashed:
        return await _shut_down(watcher, stop)
    finally:
        for _, sock in served:
            sock.close()
        await watcher.close()


async def _shut_down(watcher: Watcher, stop: asyncio.Event) -> Exit:
    """Stop the agent, unless this service itself is told to stop: then root finds the request alone."""
    task = asyncio.create_task(watcher.shut_down_agent())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return Exit.STOP_UNCONFIRMED


async def _run(watcher: Watcher, served: Served, clock: Clock, stop: asyncio.Event) -> Exit:
    config = watcher.config
    servers = [(Server(app), sock) for app, sock in served]
    loops = {
        asyncio.create_task(
            _every(watcher, clock, "chain", watcher.check_chain, config.chain_poll_s, wait_first=True),
            name="chain",
        ),
        asyncio.create_task(
            _every(
                watcher,
                clock,
                "heartbeat",
                watcher.beat,
                config.heartbeat_s,
                spread=config.heartbeat_s / 20,
                pause=lambda seconds: _unless_untold(watcher, clock, seconds),
            ),
            name="heartbeat",
        ),
    }
    http = {asyncio.create_task(server.serve(sockets=[sock]), name="http") for server, sock in servers}
    # Ends at once where no watchdog watches, so nobody waits for it.
    watchdog = asyncio.create_task(systemd.watchdog(lambda: alive(watcher, clock)))
    stopped = asyncio.create_task(stop.wait())
    systemd.ready(f"watching {config.node_id} on {config.network}")
    log.info("watching", node_id=config.node_id, network=config.network, listen=config.listen)
    try:
        done, _ = await asyncio.wait({*loops, *http, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            # A loop never ends by itself: this raises Slashed, or what it died of. Not called stopping yet:
            # from that word on systemd allows TimeoutStopSec, and root may need longer to stop an agent.
            task.result()
            log.error("a part of the service ended by itself", part=task.get_name())
            return Exit.FAILED
        systemd.stopping()
        return Exit.OK
    finally:
        for server, _ in servers:
            server.stop()
        rest = {*loops, watchdog, stopped}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await _finish(http)


async def _every(
    watcher: Watcher,
    clock: Clock,
    name: str,
    step: Callable[[], Awaitable[object]],
    seconds: float,
    *,
    spread: float = 0.0,
    wait_first: bool = False,
    pause: Callable[[float], Awaitable[None]] | None = None,
) -> None:
    pause = pause or clock.sleep
    watcher.live.progress[name] = clock.monotonic()
    if wait_first:
        await clock.sleep(seconds)
    while True:
        await step()
        watcher.live.progress[name] = clock.monotonic()
        await pause(max(0.1, seconds + clock.jitter(spread)))


async def _unless_untold(watcher: Watcher, clock: Clock, seconds: float) -> None:
    """Until the next heartbeat is due, or there is something new to tell, for which a new agent waits."""
    end = clock.monotonic() + seconds
    while (left := end - clock.monotonic()) > 0 and not watcher.untold():
        await clock.sleep(min(left, LOOK_S))


def alive(watcher: Watcher, clock: Clock) -> bool:
    """Whether both loops moved lately; what systemd's watchdog is told."""
    config, now = watcher.config, clock.monotonic()
    limits = {"chain": config.chain_poll_s, "heartbeat": config.heartbeat_s * 1.05}
    return all(
        now - watcher.live.progress.get(name, now) <= seconds + STEP_LIMIT_S
        for name, seconds in limits.items()
    )


async def _finish(http: Collection[asyncio.Task[None]]) -> None:
    try:
        async with asyncio.timeout(3):
            await asyncio.gather(*http)
    except TimeoutError:
        log.warning("the API did not close in time")


def bind(listen: str) -> socket.socket:
    """The listening socket. Raises Refusal when the address is taken."""
    try:
        bound = listening.bind(listen)
        bound.listen(64)
    except OSError as error:
        raise Refusal(
            "listen_failed",
            "the API's address can't be had",
            found=f"{listen}: {error.strerror}",
            wanted="a free address of this host",
            fix="stop what listens there (`ss -ltnp`), or set another watcher_listen (or _metrics_listen)",
            exit_code=Exit.CONFIG,
        ) from None
    return bound


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT end the service in order."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
