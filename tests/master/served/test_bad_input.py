"""What strangers send, over real TLS connections: slow, oversized, broken, repeated, far too much of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from k3s_daas import logs, seal
from k3s_daas_master.bodies import MAX_BODY_BYTES
from k3s_daas_master.connections import Connections, guarded
from k3s_daas_master.ratelimit import RateLimiter

REGISTER = "/api/v1/register-worker"
HEARTBEAT = "/api/v1/nodes/heartbeat"
BOTH = pytest.mark.parametrize("path", [REGISTER, HEARTBEAT])


async def raw(served: Any, request: bytes) -> bytes:
    """The whole answer to these bytes, until the server closes or has answered."""
    reader, writer = await served.connect()
    writer.write(request)
    try:
        return bytes(await asyncio.wait_for(reader.read(65_536), 20))
    finally:
        writer.transport.abort()


def body(served: Any, node_id: str = "worker-1", **more: Any) -> dict[str, Any]:
    return {"node_id": node_id, "timestamp_ms": served.bench.clock.ms, **more}


@BOTH
@pytest.mark.parametrize(
    "token",
    [
        b"seal_" + b"A" * 42 + b"\xff",
        "seal_ключ".encode() + b"A" * 40,
        b"seal_" + b"A \t" * 14 + b"A",
        b"seal_" + b"A" * 10_000,
        b"Bearer seal_" + b"A" * 43,
        b"%00%00",
        b"",
    ],
    ids=["latin-1", "unicode", "spaces", "10 kB", "bearer", "escaped NUL", "empty"],
)
async def test_odd_tokens_are_refused_by_name(served: Any, path: str, token: bytes) -> None:
    async with served.client() as client:
        answer = await client.post(path, json=body(served), headers=[(b"X-Seal-Token", token)])
    status, code = served.bench.refusal(answer)
    assert (status, code) in {(400, "token_malformed"), (401, "token_unknown")}
    assert not token.strip() or token.decode("latin-1") not in answer.text


@BOTH
async def test_a_nul_or_a_megabyte_in_a_header_ends_the_connection(served: Any, path: str) -> None:
    for token in (b"seal_" + b"A" * 20 + b"\0" + b"A" * 22, b"seal_" + b"A" * 2**20):
        head = f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        answer = await raw(served, head.encode() + b"X-Seal-Token: " + token + b"\r\n\r\n{}")
        # Too much is cut off: the answer may be lost on the way, no handler ever saw it.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    async with served.client() as client:
        assert (await client.get("/healthz")).status_code == 200


@BOTH
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_body_over_the_limit_is_refused_whether_announced_or_not(
    served: Any, path: str, announced: bool
) -> None:
    # A megabyte is refused by what it announces. In pieces, only the first few are read.
    large = json.dumps(body(served, filler="x" * (2**20 if announced else 20_000))).encode()

    async def chunks() -> Any:
        for start in range(0, len(large), 8192):
            yield large[start : start + 8192]

    async with served.client() as client:
        answer = await client.post(
            path, content=large if announced else chunks(), headers={"Content-Type": "application/json"}
        )
    assert served.bench.refusal(answer) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


@BOTH
async def test_a_length_that_lies_is_no_body(served: Any, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n"
    for lie in ("Content-Length: -1", "Content-Length: 1e3", "Content-Length: 5\r\nContent-Length: 6"):
        assert (await raw(served, f"{head}{lie}\r\n\r\n{{}}".encode())).startswith(b"HTTP/1.1 400 ")
    both = f"{head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert (await raw(served, both.encode())).startswith(b"HTTP/1.1 400 "), "a smuggled request is none"


@BOTH
async def test_a_body_that_never_ends_is_given_up(
    served: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k3s_daas_master.bodies.BODY_TIMEOUT_S", 0.2)
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    answer = await raw(served, head.encode() + b"{")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no whole body within 0.2 s" in answer


@BOTH
@pytest.mark.parametrize(
    "sent",
    [
        b'{"node_id": "\\ud800", "timestamp_ms": 1}',
        b'{"node_id": "w", "timestamp_ms": 1, "\\udfff": 1}',
        b'{"node_id": "\\u0000", "timestamp_ms": 1}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 16_000,
        b'{"a":' * 3000,
        b"NaN",
        b'{"node_id": "w", "timestamp_ms": NaN}',
        b'{"node_id": "w", "timestamp_ms": 1e400}',
        b'{"node_id": "w", "timestamp_ms": ' + b"9" * 5000 + b"}",
        b'{"node_id": "w", "timestamp_ms": true}',
        b'{"node_id": "../../etc", "timestamp_ms": 1}',
        b'{"node_id": "' + b"a" * 64 + b'", "timestamp_ms": 1}',
        b'"text"',
        b"null",
        b"",
    ],
)
async def test_what_is_no_request_is_refused_and_can_be_shown(served: Any, path: str, sent: bytes) -> None:
    async with served.client() as client:
        answer = await client.post(path, content=sent, headers={"Content-Type": "application/json"})
    assert served.bench.refusal(answer) == (400, "bad_request")
    assert logs.redact(answer.text) == answer.text


@pytest.mark.parametrize(
    "usage",
    [
        '{"cpu": 1e400}',
        '{"cpu": -1e400}',
        '{"\\ud800": 1}',
        '{"cpu": "\\udc00"}',
        '{"<b>": 1}',
        '{"cpu": ' + "9" * 400 + "}",
        '{"' + "k" * 33 + '": 1}',
        '{"cpu": [1]}',
    ],
)
async def test_a_heartbeat_can_report_nothing_that_others_could_not_be_shown(served: Any, usage: str) -> None:
    bench = served.bench
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    sent = f'{{"node_id": "worker-1", "timestamp_ms": {bench.clock.ms}, "resource_usage": {usage}}}'
    headers = {"Content-Type": "application/json", "X-Seal-Token": token}
    async with served.client() as client:
        answer = await client.post(HEARTBEAT, content=sent, headers=headers)
        assert bench.refusal(answer) == (400, "bad_request")
        for path in ("/api/v1/workers", "/api/v1/overview", "/metrics"):
            assert (await client.get(path)).status_code == 200


@BOTH
async def test_a_replay_counts_once_however_many_come_at_once(served: Any, path: str) -> None:
    bench = served.bench
    token = bench.chain.stake("worker-1")
    await bench.catch_up()
    async with served.client() as client:
        answers = await asyncio.gather(
            *(client.post(path, json=body(served), headers={"X-Seal-Token": token}) for _ in range(20))
        )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 19
    assert {bench.refusal(a) for a in answers if a.status_code != 200} == {(409, "timestamp_replayed")}
    if path == REGISTER:
        assert len(bench.kube.bootstrap_tokens()) == 1


async def test_one_machine_can_not_beat_for_ten_workers(served: Any) -> None:
    bench = served.bench
    own = await bench.join("worker-0")
    for i in range(1, 10):
        bench.chain.stake(f"worker-{i}")
    await bench.catch_up()
    bench.clock.advance(1)
    async with served.client() as client:
        for i in range(10):
            headers = {"X-Seal-Token": own}
            answer = await client.post(HEARTBEAT, json=body(served, f"worker-{i}"), headers=headers)
            wanted = (200, None) if i == 0 else (403, "node_mismatch")
            assert (answer.status_code, answer.json().get("error", {}).get("code")) == wanted
    assert set(bench.state.heartbeats.last_ms) == {"worker-0"}


@BOTH
async def test_a_flood_of_unknown_tokens_is_limited_and_others_behind_that_address_are_not(
    served: Any, path: str
) -> None:
    bench = served.bench
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    bench.state.stranger_limiter = RateLimiter(20, 1.0, bench.clock)
    async with served.client() as client:
        headers = [{"X-Seal-Token": seal.make()} for _ in range(40)]
        codes = [(await client.post(path, json=body(served), headers=h)).status_code for h in headers]
        assert codes == [401] * 20 + [429] * 20
        limited = await client.post(path, json=body(served), headers=headers[0])
        assert limited.headers["retry-after"] == "5"
        good = await client.post(path, json=body(served), headers={"X-Seal-Token": token})
        assert good.status_code == 200, "the same address, a known token"
        bench.clock.advance(3)
        again = [(await client.post(path, json=body(served), headers=h)).status_code for h in headers[:4]]
        assert again == [401, 401, 401, 429], "one more a second"


async def test_a_flood_is_turned_away_before_its_body_is_read(served: Any) -> None:
    served.bench.state.stranger_limiter = RateLimiter(1, 0.001, served.bench.clock)
    served.bench.state.stranger_limiter.take("127.0.0.1")
    head = f"POST {HEARTBEAT} HTTP/1.1\r\nHost: m\r\nContent-Length: 99\r\n\r\n"
    assert (await raw(served, head.encode())).startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize("path", ["/api/v1/workers", "/api/v1/overview", "/metrics"])
async def test_large_answers_are_limited_for_each_address(served: Any, path: str) -> None:
    async with served.client() as client:
        codes = [(await client.get(path)).status_code for _ in range(70)]
        assert codes == [200] * 60 + [429] * 10
        assert (await client.get("/healthz")).status_code == 200, "probes are free"
        served.bench.clock.advance(1)
        assert (await client.get(path)).status_code == 200


async def test_one_address_can_not_hold_all_connections(served: Any) -> None:
    connections = served.bench.state.connections
    connections.per_source = 5
    held = [await served.connect() for _ in range(5)]
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError, OSError, httpx.HTTPError)):
        async with served.client() as client:
            await client.get("/healthz")
    assert connections.refused >= 1
    held.pop()[1].transport.abort()
    async with served.client() as client:
        while connections.open["127.0.0.1"] > 4:
            await asyncio.sleep(0)
        assert (await client.get("/healthz")).status_code == 200
    for _, writer in held:
        writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: m\r\nX-Slow: "],
    ids=["nothing", "half a line", "half a head"],
)
async def test_a_connection_without_a_request_is_closed_in_time(sent: bytes) -> None:
    connections, served_to = Connections(10), []
    closed = await drip(connections, served_to, sent, b"a")
    assert closed
    assert served_to == []
    assert connections.timed_out == 1
    assert not connections.open


async def test_a_body_that_goes_on_after_the_answer_keeps_no_connection_open() -> None:
    connections, served_to = Connections(10), []
    head = b"POST /healthz HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000\r\n\r\n"
    assert await drip(connections, served_to, head, b"a")
    assert served_to == ["/healthz"]
    assert not connections.open


async def test_requests_one_after_another_on_one_connection_are_left_alone() -> None:
    connections, served_to = Connections(10), []
    request = b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n"
    # Two at once, too: the second waits in the buffer until the first was answered.
    assert await drip(connections, served_to, request + request, request, 2.0, for_s=4.5) is False
    assert len(served_to) > 4
    assert connections.timed_out == 0


async def drip(
    connections: Connections,
    served_to: list[str],
    first: bytes,
    then: bytes,
    patience_s: float = 0.3,
    for_s: float = 30.0,
) -> bool:
    """Send `first`, then `then` every 50 ms; whether the server closed the connection meanwhile.

    `patience_s` is the server's, both for a first request and between two.
    """
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served_to.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        app,
        http=guarded(connections, patience_s),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=patience_s,
    )
    server = uvicorn.Server(config)
    config.load()
    loop = asyncio.get_running_loop()
    server.lifespan = config.lifespan_class(config)
    listening = await loop.create_server(
        lambda: config.http_protocol_class(config=config, server_state=server.server_state, app_state={}),
        "127.0.0.1",
        0,
    )
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        writer.write(first)
        deadline = loop.time() + for_s
        while loop.time() < deadline:
            try:
                writer.write(then)
                if not await asyncio.wait_for(reader.read(65_536), 0.05):
                    return True
            except TimeoutError:
                continue
            except ConnectionError:
                return True
        return False
    finally:
        writer.transport.abort()
        listening.close()
        while connections.open:
            await asyncio.sleep(0)


def test_the_limit_is_above_what_a_request_needs() -> None:
    assert MAX_BODY_BYTES >= 4096
