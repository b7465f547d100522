"""The daemon as a whole: loops, /health, sd_notify, exit codes, graceful stop."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas.registry.model import WorkerStatus
from k3s_daas_watcher import service
from k3s_daas_watcher.agent import AgentState, KubeletProbe
from k3s_daas_watcher.api import metrics_application
from k3s_daas_watcher.clock import SystemClock
from k3s_daas_watcher.errors import Exit, Refusal
from k3s_daas_watcher.views import report


class SteppedClock:
    """Sleepers wake when the test says so; wall and monotonic time move together."""

    def __init__(self, wall_ms: int) -> None:
        self.wall_ms, self.seconds = wall_ms, 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.seconds

    def jitter(self, spread: float) -> float:
        return spread

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + seconds, future))
        await future

    def sleepers(self) -> int:
        return sum(1 for _, future in self._sleepers if not future.done())

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall_ms += int(seconds * 1000)
        for due, future in self._sleepers:
            if due <= self.seconds and not future.done():
                future.set_result(None)


@pytest.fixture
def clock():
    return SteppedClock(1_800_000_000_000)


@pytest.fixture
async def running(make_watcher, make_app, clock, until):
    """A served watcher: (watcher, url, stop event, task)."""
    tasks: list[asyncio.Task[Exit]] = []

    async def start(**changes):
        watcher, stop = make_watcher(**changes), asyncio.Event()
        listening = service.bind("127.0.0.1:0")
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        task = asyncio.create_task(service.serve(watcher, [(make_app(watcher), listening)], clock, stop))
        tasks.append(task)
        return watcher, url, stop, task

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_beats_every_30_s_and_looks_every_10(running, master, chain, clock, until):
    _, _, stop, task = await running()
    # One look before the service is ready, one beat as soon as it is.
    await until(lambda: len(master.heartbeats) == 1 and clock.sleepers() == 2)
    assert chain.reads == 1
    for step in range(1, 10):
        clock.advance(10)
        await until(lambda step=step: chain.reads == 1 + step and clock.sleepers() == 2)
    # 90 s with a jitter of 5 %: due at 31.5 and 63 s, seen at 40 and 80 s.
    await until(lambda: len(master.heartbeats) == 3)
    stop.set()
    assert await task == Exit.OK


async def test_a_slash_ends_the_service_with_64(running, master, chain, clock, until, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("k3s_daas.systemd.notify", lambda *lines: bool(said.extend(lines)))
    watcher, _, _, task = await running()
    await until(lambda: master.heartbeats and clock.sleepers() == 2)
    chain.set_status(WorkerStatus.SLASHED)
    clock.advance(10)
    request = tmp_path / "state" / "agent-control.json"
    await until(request.exists)
    assert "STOPPING=1" not in said, "systemd would kill us before root is done"
    confirm(request, Path(watcher.config.confirmation_file))
    while not task.done():
        clock.advance(0.2)
        await asyncio.sleep(0)
    assert await task == Exit.SLASHED
    assert clock.seconds - 1000 < 35


@pytest.mark.parametrize("known_by", ["chain", "marker"])
async def test_started_on_a_slashed_worker_it_stops_the_agent_and_exits_64(
    running, chain, clock, until, tmp_path, known_by, master, monkeypatch
):
    said: list[str] = []
    monkeypatch.setattr("k3s_daas.systemd.notify", lambda *lines: bool(said.extend(lines)))
    if known_by == "chain":
        chain.set_status(WorkerStatus.SLASHED)
    else:
        (tmp_path / "state").mkdir(mode=0o700)
        (tmp_path / "state" / "slashed").write_text('{"node_id": "worker-1", "seen_at_ms": 1}')
        chain.error = ChainUnreachable({})
    watcher, _, _, task = await running()
    request = tmp_path / "state" / "agent-control.json"
    await until(request.exists)
    assert json.loads(request.read_text())["action"] == "stop"
    confirm(request, Path(watcher.config.confirmation_file))
    while not task.done():
        clock.advance(0.2)
        await asyncio.sleep(0)
    assert await task == Exit.SLASHED
    assert not any(line.startswith("READY") for line in said), "it must not look started"
    assert master.heartbeats == []


def confirm(request: Path, confirmation: Path) -> None:
    """Root's answer."""
    asked = json.loads(request.read_text())
    confirmation.write_text(
        json.dumps(
            {
                "schema": 1,
                "id": asked["id"],
                "action": "stop",
                "result": "done",
                "detail": "",
                "finished_at_ms": 1,
            }
        )
    )


async def test_the_second_address_answers_metrics_and_nothing_else(make_watcher, make_app, clock, token):
    watcher, stop = make_watcher(), asyncio.Event()
    sockets = service.bind("127.0.0.1:0"), service.bind("127.0.0.1:0")
    apps = make_app(watcher), make_app(watcher, metrics_application)
    task = asyncio.create_task(service.serve(watcher, list(zip(apps, sockets, strict=True)), clock, stop))
    own, others = (f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in sockets)
    async with httpx.AsyncClient(trust_env=False, headers={"X-Seal-Token": token}) as client:
        assert (await client.get(f"{own}/api/v1/staking")).status_code == 200
        assert "k3s_daas_watcher_alert" in (await client.get(f"{others}/metrics")).text
        document = (await client.get(f"{own}/api/v1/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method in methods if path != "/metrics" else ():
                answer = await client.request(method, others + path, json={"node_id": "worker-1"})
                assert answer.status_code == 404, path
        assert (await client.post(f"{others}/metrics")).status_code == 405
    stop.set()
    assert await task == Exit.OK
    assert [sock.fileno() for sock in sockets] == [-1, -1]


async def test_an_unreachable_chain_does_not_keep_it_from_starting(running, chain, clock, until):
    chain.error = ChainUnreachable({})
    watcher, _, stop, task = await running()
    await until(lambda: watcher.store.state.consecutive_failures == 1)
    chain.error = None
    clock.advance(10)
    await until(lambda: watcher.store.state.status == "active")
    stop.set()
    assert await task == Exit.OK


async def test_it_tells_systemd(running, master, until, monkeypatch, tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        said: list[str] = []

        def heard(word: str) -> bool:
            try:
                while True:
                    said.append(manager.recv(4096).decode())
            except BlockingIOError:
                return any(word in line for line in said)

        _, _, stop, task = await running()
        await until(lambda: heard("READY=1"))
        await until(lambda: heard("WATCHDOG=1"))
        stop.set()
        assert await task == Exit.OK
        assert heard("STOPPING=1")


async def test_a_loop_that_hangs_is_not_called_alive(running, master, clock, until, chain):
    watcher, _, _, _ = await running()
    await until(lambda: clock.sleepers() == 2)
    assert service.alive(watcher, clock)
    chain.hang = True
    clock.advance(20)
    assert service.alive(watcher, clock)
    clock.seconds += 60
    assert not service.alive(watcher, clock)


async def test_a_loop_that_dies_ends_the_service_with_its_error(running, master, clock, until, monkeypatch):
    watcher, _, _, task = await running()
    await until(lambda: clock.sleepers() == 2)

    async def broken():
        raise RuntimeError("a bug")

    monkeypatch.setattr(watcher, "beat", broken)
    monkeypatch.setattr(watcher, "_record", lambda _: (_ for _ in ()).throw(RuntimeError("a bug")))
    clock.advance(10)
    with pytest.raises(RuntimeError, match="a bug"):
        await task


async def test_it_stops_within_5_s_in_the_middle_of_a_heartbeat(running, master, until, clock):
    arrived = asyncio.Event()

    def slow(_body):
        arrived.set()
        time.sleep(0.01)
        return

    master.on_heartbeat = slow
    _, url, stop, task = await running()
    await arrived.wait()
    # A client that keeps its connection open must not hold the service up.
    async with httpx.AsyncClient() as client:
        await client.get(f"{url}/health")
        start = time.monotonic()
        stop.set()
        assert await task == Exit.OK
        assert time.monotonic() - start < 5


async def test_it_stops_within_5_s_whatever_its_clients_do(running, master, until, clock, leave, token):
    hanging = asyncio.Event()

    async def hang(*_):
        hanging.set()
        await asyncio.Event().wait()

    leave.side_effect = hang
    _, url, stop, task = await running()
    await until(lambda: master.heartbeats)
    port = int(url.rpartition(":")[2])
    _, silent = await asyncio.open_connection("127.0.0.1", port)
    _, half = await asyncio.open_connection("127.0.0.1", port)
    half.write(b"GET /health HTTP/1.1\r\n")
    async with httpx.AsyncClient() as client:
        body, headers = {"node_id": "worker-1"}, {"X-Seal-Token": token}
        asked = asyncio.create_task(client.post(f"{url}/api/v1/unstake", json=body, headers=headers))
        await hanging.wait()
        start = time.monotonic()
        stop.set()
        assert await task == Exit.OK
        assert time.monotonic() - start < 5
        await asyncio.gather(asked, return_exceptions=True)
    silent.close()
    half.close()


async def test_a_stop_while_waiting_for_root_is_graceful_too(running, chain, until, tmp_path):
    chain.set_status(WorkerStatus.SLASHED)
    _, _, stop, task = await running()
    await until((tmp_path / "state" / "agent-control.json").exists)
    stop.set()
    assert await asyncio.wait_for(task, 5) == Exit.STOP_UNCONFIRMED


def test_an_address_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refusal, match="listen_failed"):
            service.bind(f"127.0.0.1:{taken.getsockname()[1]}")


def test_its_answers_are_not_held_back():
    # asyncio switches Nagle's algorithm off only for sockets that say that they are TCP.
    with service.bind("127.0.0.1:0") as bound:
        assert bound.proto == socket.IPPROTO_TCP


# --- /health ---


async def test_health_of_a_well_worker(running, master, until, clock, token):
    _, url, _, _ = await running()
    await until(lambda: master.heartbeats and clock.sleepers() == 2)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/health")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["problems"]) == ("ok", [])
    assert (body["node_id"], body["network"], body["tee"]) == ("worker-1", "localnet", "SIMULATED")
    assert body["heartbeat"]["age_s"] == 0
    assert body["chain"]["status"] == "active"
    assert body["chain"]["stake_mist"] == "1500000000"
    assert body["token"] == {"generation": 3, "expires_at_ms": clock.now_ms() + 90 * 86_400_000}
    assert set(body) == {
        "status",
        "problems",
        "alerts",
        "node_id",
        "network",
        "tee",
        "heartbeat",
        "chain",
        "token",
        "master",
        "agent",
    }


async def test_health_never_shows_any_of_the_token(running, master, until, token, refusal, clock):
    master.on_heartbeat = lambda _: refusal(401, "token_unknown", found=token, message=token)
    watcher, url, _, _ = await running()
    await until(lambda: watcher.store.state.consecutive_failures == 1)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/health")
    text = answer.text
    import hashlib

    assert answer.status_code == 503, "no heartbeat was ever taken"

    assert "token_unknown" in text
    for part in (token[5:15], token[-12:], hashlib.sha256(token.encode()).hexdigest()[:16]):
        assert part not in text


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        ("chain", "chain_unreachable"),
        ("jailed", "worker_jailed"),
        ("gone", "worker_not_registered"),
        ("refused", "token_revoked"),
        ("old", "no_recent_heartbeat"),
    ],
)
async def test_what_is_wrong_turns_health_red_and_is_named(
    make_watcher, master, chain, clock, refusal, break_it, problem
):
    watcher = make_watcher()
    await watcher.check_chain()
    await watcher.beat()
    assert report(watcher, clock).status == "ok"
    if break_it == "chain":
        chain.error = ChainUnreachable({})
    if break_it == "jailed":
        chain.set_status(WorkerStatus.JAILED)
    if break_it == "gone":
        chain.sighting = type(chain.sighting)(None, None, chain.sighting.master)
    if break_it == "refused":
        master.on_heartbeat = lambda _: refusal(401, "token_revoked")
        for _ in range(3):
            await watcher.beat()
    if break_it == "old":
        clock.advance(106)
    await watcher.check_chain()
    found = report(watcher, clock)
    assert (found.status, found.problems) == ("degraded", [problem])


# --- the agent's probe ---


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A `systemctl` that answers what the test says."""

    def install(text: str, code: int = 0) -> None:
        script = tmp_path / "bin" / "systemctl"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")

    return install


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("activating", AgentState.STARTING),
        ("deactivating", AgentState.STARTING),
        ("failed", AgentState.UNHEALTHY),
        ("inactive", AgentState.UNHEALTHY),
        ("", AgentState.UNKNOWN),
    ],
)
async def test_the_units_state_comes_first(systemctl, unit, wanted):
    systemctl(unit)
    found = await KubeletProbe("k3s-agent.service", "http://127.0.0.1:1/healthz").look()
    assert found.state is wanted


@pytest.mark.parametrize(("status", "wanted"), [(200, AgentState.HEALTHY), (500, AgentState.UNHEALTHY)])
async def test_an_active_unit_is_as_well_as_its_kubelet(systemctl, serving, status, wanted):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    systemctl("active")
    app = Starlette(routes=[Route("/healthz", lambda _: PlainTextResponse("ok", status))])
    async with serving(app, None) as url:
        found = await KubeletProbe("k3s-agent.service", f"{url}/healthz").look()
    assert found.state is wanted


async def test_an_active_unit_with_a_silent_kubelet_is_ill(systemctl):
    systemctl("active")
    found = await KubeletProbe("k3s-agent.service", "http://127.0.0.1:1/healthz").look()
    assert found.state is AgentState.UNHEALTHY
    assert "kubelet" in found.detail


async def test_no_systemctl_at_all_is_no_reason_to_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = await KubeletProbe("k3s-agent.service", "http://127.0.0.1:1/healthz").look()
    assert found.state is AgentState.UNKNOWN


def test_jitter_stays_in_its_bounds():
    clock = SystemClock()
    assert all(-1.5 <= clock.jitter(1.5) <= 1.5 for _ in range(1000))
