"""The loopback API: what it shows, who may command, and what it does with bad input. The document is held
against the service by schemathesis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client.parser import text_string_to_metric_families

from k3s_daas.chain.errors import ChainUnreachable, InsufficientGas, MoveAbort
from k3s_daas.registry.model import WorkerStatus
from k3s_daas_watcher import alerts, api, httpserver
from k3s_daas_watcher.guard import Bucket

READS = (
    "/health",
    "/api/v1/staking",
    "/api/v1/metrics",
    "/api/v1/config",
    "/metrics",
    "/api/v1/openapi.json",
)
COMMANDS = ("/api/v1/register", "/api/v1/unstake")


@pytest.fixture
async def watcher(make_watcher, master):
    made = make_watcher()
    await made.check_chain()
    assert await made.beat()
    return made


@pytest.fixture
async def client(watcher, make_app):
    transport = httpx.ASGITransport(make_app(watcher))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:10280") as made:
        yield made


@pytest.fixture
async def served(watcher, make_app):
    """The API on a real socket, as the service runs it: (host, port)."""
    from k3s_daas_watcher import service

    server, sock = httpserver.Server(make_app(watcher)), service.bind("127.0.0.1:0")
    task = asyncio.create_task(server.serve([sock]))
    yield sock.getsockname()
    server.stop()
    await task
    sock.close()


@pytest.fixture
def command(client, token):
    """`await command(path)` as the holder of the seal token."""

    async def post(path, *, key=token, body=None, **options):
        headers = {} if key is None else {"X-Seal-Token": key}
        content = json.dumps({"node_id": "worker-1"}) if body is None else body
        return await client.post(path, headers=headers, content=content, **options)

    return post


def code(answer) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "found", "wanted", "fix"}
    return answer.status_code, error["code"]


# --- what it shows ---


async def test_staking_shows_generation_and_expiry(client, clock):
    assert (await client.get("/api/v1/staking")).json() == {
        "node_id": "worker-1",
        "network": "localnet",
        "registry_id": "0x" + "2" * 64,
        "status": "active",
        "stake_mist": "1500000000",
        "slash_proposed": False,
        "validated_at_ms": clock.now_ms(),
        "age_s": 0,
        "token": {"generation": 3, "expires_at_ms": clock.now_ms() + 90 * 86_400_000},
    }


async def test_metrics_show_the_host_and_its_pods(client, clock, pods, watcher):
    found = (await client.get("/api/v1/metrics")).json()
    assert found["host"]["cpu_percent"] == 1.0
    assert found["host"]["network_sent_bytes"] == 600
    assert found["pods"] == {"running": 4, "asked_at_ms": clock.now_ms(), "runtime": "containerd"}
    pods.running = None
    await watcher.beat()
    found = (await client.get("/api/v1/metrics")).json()
    assert found["pods"]["running"] is None, "unknown is not none"


async def test_config_shows_no_secrets(make_watcher, make_app):
    key = "an-api-key-of-a-provider"
    made = make_watcher(endpoints=[f"http://user:{key}@127.0.0.1:1/{key}?key={key}"], runtime="docker")
    transport = httpx.ASGITransport(make_app(made))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/v1/config")
    assert key not in answer.text
    assert answer.json()["endpoints"] == ["http://127.0.0.1:1"]
    assert (answer.json()["runtime"], answer.json()["heartbeat_s"]) == ("docker", 30)


async def test_prometheus_can_read_its_metrics(client, watcher, clock):
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["k3s_daas_watcher_worker_status", "active"] == 1
    assert found["k3s_daas_watcher_running_pods",] == 4
    assert found["k3s_daas_watcher_last_heartbeat_timestamp_seconds",] == clock.now_ms() / 1000
    assert found["k3s_daas_watcher_host_cpu_percent",] == 1.0
    assert found["process_resident_memory_bytes",] > 0
    assert {labels[0] for kind, *labels in found if kind == "k3s_daas_watcher_alert"} == set(alerts.NAMES)


async def test_prometheus_is_told_when_the_agents_certificates_end(make_watcher, make_app, make_ca, tmp_path):
    (tmp_path / "kubelet").mkdir()
    own = make_ca(tmp_path, "kubelet").cert_file
    own.rename(tmp_path / "kubelet" / "client-kubelet.crt")
    transport = httpx.ASGITransport(make_app(make_watcher(kubelet_credentials_dir=str(tmp_path / "kubelet"))))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        text = (await client.get("/metrics")).text
    (end,) = re.findall(r'certificate_expiry_timestamp_seconds{certificate="client-kubelet"} (\S+)', text)
    assert float(end) > time.time()


async def test_before_the_first_look_nothing_is_made_up(make_watcher, make_app):
    transport = httpx.ASGITransport(make_app(make_watcher()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        staking = (await client.get("/api/v1/staking")).json()
        assert (staking["status"], staking["stake_mist"], staking["age_s"]) == (None, None, None)
        text = (await client.get("/metrics")).text
    for absent in ("worker_status{", "running_pods", "stake_mist", "chain_agreed"):
        assert absent not in text


async def test_nothing_shows_any_of_the_token(client, token, command):
    texts = [(await client.get(path)).text for path in READS]
    texts += [(await command(path, key=token[:-1])).text for path in COMMANDS]
    texts += [(await command(path)).text for path in COMMANDS]
    for part in (token[5:15], token[-12:], hashlib.sha256(token.encode()).hexdigest()[:16]):
        assert all(part not in text for text in texts)


# --- who may command ---


@pytest.mark.parametrize("path", COMMANDS)
async def test_a_command_needs_the_seal_token(command, path, token, tmp_path, leave):
    for wrong in (None, "", "seal_", token[:-1], token + "x", token.upper(), "é" * 48, "x" * 5000):
        key = wrong if wrong is None else wrong.encode("utf-8")
        assert code(await command(path, key=key)) == (401, "token_unknown")
    assert not (tmp_path / "state" / "agent-control.json").exists()
    leave.assert_not_awaited()


async def test_wrong_tokens_are_slowed_down_and_lock_nobody_out(command, clock, token):
    for _ in range(10):
        assert code(await command("/api/v1/unstake", key="wrong"))[0] == 401
    answer = await command("/api/v1/unstake", key="wrong")
    assert code(answer) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 6
    assert (await command("/api/v1/unstake")).status_code == 200
    clock.advance(6)
    assert code(await command("/api/v1/unstake", key="wrong"))[0] == 401


async def test_the_right_token_is_limited_too(command, clock):
    for _ in range(10):
        assert (await command("/api/v1/unstake")).status_code == 200
    assert code(await command("/api/v1/unstake")) == (429, "rate_limited")
    clock.advance(6)
    assert (await command("/api/v1/unstake")).status_code == 200


def test_a_bucket_fills_no_further_than_its_size(clock):
    bucket = Bucket(2, 5.0, clock)
    clock.advance(3600)
    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 5.0]


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"node_id": "worker-2"}', (409, "other_worker")),
        ("", (400, "bad_request")),
        ("{", (400, "bad_request")),
        ("[]", (400, "bad_request")),
        ('{"node_id": 1}', (400, "bad_request")),
        ('{"node_id": "../x"}', (400, "bad_request")),
        ('{"node_id": "worker-1", "force": true}', (400, "bad_request")),
        (b"\xff\x00", (400, "bad_request")),
        ("[" * 1000, (400, "bad_request")),
        ('{"node_id": "' + "a" * 2000 + '"}', (413, "body_too_large")),
    ],
)
async def test_bad_bodies(command, path, body, wanted, leave):
    assert code(await command(path, body=body)) == wanted
    leave.assert_not_awaited()


async def test_there_is_nothing_else(client):
    assert code(await client.get("/api/v1/nothing")) == (404, "not_found")
    answer = await client.post("/health")
    assert code(answer) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_a_mistake_of_ours_tells_nothing_of_our_insides(watcher, make_app, monkeypatch, caplog):
    monkeypatch.setattr(watcher, "usage", lambda: 1 / 0)
    transport = httpx.ASGITransport(make_app(watcher), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/v1/metrics")
    assert code(answer) == (500, "internal")
    assert "division" not in answer.text


# --- register ---


def answers_as_root(watcher, tmp_path, result="done", detail="started"):
    """Root's part, done at once by whoever sleeps next."""
    request = tmp_path / "state" / "agent-control.json"

    async def sleep(seconds):
        if request.exists():
            asked = json.loads(request.read_text())
            request.unlink()
            answer = {"schema": 1, "id": asked["id"], "action": asked["action"], "finished_at_ms": 1}
            Path(watcher.config.confirmation_file).write_text(
                json.dumps(answer | {"result": result, "detail": detail})
            )

    return sleep


async def test_register_has_root_register(command, watcher, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "sleep", answers_as_root(watcher, tmp_path))
    answer = await command("/api/v1/register")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["detail"]) == ("started", "started")


async def test_register_says_what_root_says(command, watcher, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "sleep", answers_as_root(watcher, tmp_path, "failed", "it stays stopped"))
    answer = await command("/api/v1/register")
    assert code(answer) == (409, "refused")
    assert answer.json()["error"]["found"] == "it stays stopped"


async def test_a_request_that_root_has_not_taken_is_not_replaced(command, tmp_path):
    answer = await command("/api/v1/register")
    assert (answer.status_code, answer.json()["status"]) == (202, "requested")
    request = json.loads((tmp_path / "state" / "agent-control.json").read_text())
    assert (request["action"], request["reason"]) == ("register", "commanded")
    assert code(await command("/api/v1/register")) == (409, "busy")
    assert json.loads((tmp_path / "state" / "agent-control.json").read_text()) == request


async def test_register_on_a_full_disk(command, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("k3s_daas_watcher.control.write_atomic", full)
    answer = await command("/api/v1/register")
    assert code(answer) == (503, "state_unwritable")
    assert "No space left" in answer.text


# --- unstake ---


async def test_unstake_drains_and_returns_what_the_owner_signs(command, master, token, leave, clock):
    answer = await command("/api/v1/unstake")
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("fix").startswith("sign it")
    assert body == {
        "status": "drained",
        "node_id": "worker-1",
        "sender": "0x" + "a" * 64,
        "transaction": "dHJhbnNhY3Rpb24=",
        "digest": "digest",
        "gas_budget_mist": "3000000",
        "stake_mist": "1500000000",
        "unbonding_window_ms": 0,
    }
    leave.assert_awaited_once_with("worker-1", "0x" + "a" * 64)
    assert master.drains == [{"node_id": "worker-1", "timestamp_ms": clock.now_ms()}]
    assert master.tokens[-1] == token


async def test_unstake_waits_for_the_pods_for_a_while(command, master, clock):
    from starlette.responses import JSONResponse

    left = {"drained": False, "pods_left": 2, "waiting_for": ["a/b", "c/d"]}
    master.on_drain = lambda _: JSONResponse(left)
    start = clock.monotonic()
    answer = await command("/api/v1/unstake")
    assert answer.status_code == 202
    body = answer.json()
    assert (body["status"], body["pods_left"], body["waiting_for"]) == ("draining", 2, ["a/b", "c/d"])
    assert "transaction" not in body
    assert clock.monotonic() - start == 20
    sent = [drain["timestamp_ms"] for drain in master.drains]
    assert len(sent) == 11
    assert sent == sorted(set(sent)), "the master takes each time once"
    master.on_drain = None
    assert (await command("/api/v1/unstake")).status_code == 200


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (WorkerStatus.JAILED, (409, "worker_not_eligible")),
        (WorkerStatus.UNBONDING, (409, "worker_not_eligible")),
        (WorkerStatus.SLASHED, (409, "worker_slashed")),
    ],
)
async def test_who_can_not_leave_is_not_drained(command, chain, master, status, wanted):
    chain.set_status(status)
    assert code(await command("/api/v1/unstake")) == wanted
    assert master.drains == []


async def test_a_worker_that_is_not_staked_can_not_leave(command, chain, master):
    chain.sighting = type(chain.sighting)(None, None, chain.sighting.master)
    assert code(await command("/api/v1/unstake")) == (409, "worker_unknown")
    assert master.drains == []


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (InsufficientGas(1, 2, "0x1"), (409, "owner_without_gas")),
        (MoveAbort("m", "f", 1, "EWorkerJailed", "it is jailed", None), (409, "unstake_refused")),
        (ChainUnreachable({"http://key@x": "down"}), (503, "chain_unreachable")),
        (TimeoutError(), (503, "chain_unreachable")),
    ],
)
async def test_a_transaction_that_would_fail_drains_nothing(command, leave, master, error, wanted):
    leave.side_effect = error
    answer = await command("/api/v1/unstake")
    assert code(answer) == wanted
    assert "key@" not in answer.text
    assert master.drains == []


async def test_a_dark_chain_is_named(command, chain, master):
    chain.error = ChainUnreachable({})
    assert code(await command("/api/v1/unstake")) == (503, "chain_unreachable")
    assert master.drains == []


async def test_the_masters_refusal_is_passed_on(command, master, refusal):
    master.on_drain = lambda _: refusal(403, "worker_not_eligible")
    assert code(await command("/api/v1/unstake")) == (409, "worker_not_eligible")
    master.on_drain = lambda _: refusal(401, "token_revoked")
    assert code(await command("/api/v1/unstake")) == (409, "token_revoked")


async def test_an_answer_that_is_not_the_masters_is_not_believed(command, master):
    from starlette.responses import JSONResponse

    for body in ({}, {"drained": "yes", "pods_left": 0}, {"drained": True, "pods_left": -1}):
        master.on_drain = lambda _, body=body: JSONResponse(body)
        assert code(await command("/api/v1/unstake")) == (503, "master_unreachable")


async def test_one_unstake_at_a_time(command, leave):
    begun, go = asyncio.Event(), asyncio.Event()
    unsigned = leave.return_value

    async def slow(*_):
        begun.set()
        await go.wait()
        return unsigned

    leave.side_effect = slow
    first = asyncio.create_task(command("/api/v1/unstake"))
    await begun.wait()
    assert code(await command("/api/v1/unstake")) == (409, "busy")
    go.set()
    assert (await first).status_code == 200


# --- the document ---


async def test_the_document_describes_all_routes(client, watcher, make_app):
    document = (await client.get("/api/v1/openapi.json")).json()
    served = {
        (route.path, method) for route in make_app(watcher).routes for method in route.methods - {"HEAD"}
    }
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert described == served
    assert {path for path, _ in described} == {*READS, *COMMANDS}
    for path in COMMANDS:
        assert document["paths"][path]["post"]["security"] == [{"sealToken": []}]


@pytest.mark.parametrize("key", ["right", "wrong"])
async def test_schemathesis_finds_no_server_error(served, token, key, monkeypatch):
    """Generated requests for every operation, good and bad, held against the document by all its checks."""
    # Time passes with each request, so that the rate limit is not all that is tested.
    monkeypatch.setattr("k3s_daas_watcher.guard.Bucket.take", lambda _: 0.0)
    url = f"http://{served[0]}:{served[1]}/api/v1/openapi.json"
    headers = {"X-Seal-Token": token if key == "right" else "seal_" + "A" * 43}
    seen: set[tuple[str, int]] = set()

    def run() -> None:
        schema = schemathesis.openapi.from_url(url)
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=25,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def one(case) -> None:
                answer = case.call(headers=headers)
                seen.add((case.path, answer.status_code))
                case.validate_response(answer, headers=headers)

            one()
            if operation.method.upper() == "POST":
                # The one right name isn't guessed.
                case = operation.Case(body={"node_id": "worker-1"}, media_type="application/json")
                answer = case.call(headers=headers)
                seen.add((case.path, answer.status_code))
                case.validate_response(answer, headers=headers)

    await asyncio.to_thread(run)
    # Its own document is nothing that it asks for again.
    assert {path for path, _ in seen} == {*READS, *COMMANDS} - {"/api/v1/openapi.json"}
    assert not [status for _, status in seen if status >= 500]
    assert (("/api/v1/unstake", 200) in seen) == (key == "right")


# --- slow, oversized, many ---


async def talk(address, raw: bytes, *, close: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(raw)
    if close:
        writer.write_eof()
    await writer.drain()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_connection_that_says_nothing_is_closed(served, monkeypatch):
    monkeypatch.setattr(httpserver, "SILENCE_S", 0.05)
    assert await talk(served, b"") == b""
    assert await talk(served, b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""


async def test_so_is_one_that_falls_silent_after_a_request(served, monkeypatch):
    monkeypatch.setattr(httpserver, "SILENCE_S", 0.05)
    answer = await talk(served, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_that_never_ends_is_given_up(served, token, monkeypatch):
    monkeypatch.setattr(api, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(httpserver, "SILENCE_S", 0.1)
    head = f"POST /api/v1/unstake HTTP/1.1\r\nHost: x\r\nX-Seal-Token: {token}\r\nContent-Length: 30\r\n\r\n"
    answer = await talk(served, head.encode() + b'{"node')
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"no whole body within" in answer


async def test_oversized_heads_and_bodies(served, token):
    big = b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n"
    assert (await talk(served, big))[:12] in (b"HTTP/1.1 400", b"")
    head = f"POST /api/v1/unstake HTTP/1.1\r\nHost: x\r\nX-Seal-Token: {token}\r\n"
    announced = f"{head}Content-Length: {2**40}\r\n\r\nx"
    assert (await talk(served, announced.encode())).startswith(b"HTTP/1.1 413")
    chunk = "400\r\n" + "x" * 1024 + "\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
    assert (await talk(served, chunked.encode())).startswith(b"HTTP/1.1 413")


async def test_a_flood_is_bounded_and_leaves_the_watcher_working(served, watcher, monkeypatch):
    monkeypatch.setattr(httpserver, "SILENCE_S", 0.5)
    most = 2 * httpserver.MAX_CONNECTIONS
    open_ones = [await asyncio.open_connection(*served) for _ in range(most + 20)]
    try:
        # Those beyond the most are closed at once, those before them stay.
        ended = [asyncio.create_task(reader.read()) for reader, _ in open_ones[most:]]
        await asyncio.wait(ended, timeout=10)
        assert all(task.done() for task in ended)
        assert await watcher.beat(), "heartbeats go on"
    finally:
        for _, writer in open_ones:
            writer.close()
