"""The webhook on its real server: what the API server sends and gets, and what anybody else may try."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from k3s_daas import listening, seal
from k3s_daas_master import webhook as module
from k3s_daas_master.errors import ApiError
from k3s_daas_master.tokenreview import API_VERSION, TokenReviewer
from k3s_daas_master.webhook import PATH, Webhook, WebhookServer

JSON = {"Content-Type": "application/json"}
REFUSED = {"apiVersion": API_VERSION, "kind": "TokenReview", "status": {"authenticated": False}}


class Served:
    """A webhook that is being served on loopback."""

    def __init__(self, port: int, server: WebhookServer, client: httpx.AsyncClient) -> None:
        self.port = port
        self.server = server
        self.client = client

    async def post(self, content: Any, **headers: str) -> httpx.Response:
        return await self.client.post(PATH, content=content, headers=JSON | headers)

    async def review(self, token: str) -> dict[str, Any]:
        answer = await self.post(json.dumps(review(token)))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return reader, writer


def review(token: Any) -> dict[str, Any]:
    """As k3s 1.34's API server sends it."""
    return {
        "kind": "TokenReview",
        "apiVersion": API_VERSION,
        "metadata": {"creationTimestamp": None},
        "spec": {"token": token, "audiences": ["https://kubernetes.default.svc.cluster.local", "k3s"]},
        "status": {"user": {}},
    }


def _app(state: Any, reviewer: Any = None) -> Webhook:
    metrics = state.metrics
    return Webhook(reviewer or state.reviewer, metrics.token_reviews, state.access, metrics.node_accesses)


@pytest_asyncio.fixture
async def serve(bench: Any) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """`await serve()`: the bench's webhook; `await serve(reviewer)`: one that asks another reviewer."""
    running: list[tuple[Served, asyncio.Task[None], socket.socket]] = []

    async def start(reviewer: Any = None) -> Served:
        sock = listening.bind("127.0.0.1:0")
        port = sock.getsockname()[1]
        app = _app(bench.state, reviewer)
        server = WebhookServer(app, sock)
        task = asyncio.create_task(server.serve())
        await server.up.wait()
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)
        running.append((Served(port, server, client), task, sock))
        return running[-1][0]

    yield start
    for served, task, sock in running:
        await served.client.aclose()
        served.server.stop()
        await asyncio.wait_for(task, 10)
        sock.close()


async def test_what_the_api_server_gets(bench: Any, serve: Any) -> None:
    served = await serve()
    worker = bench.chain.stake("worker-1", bench.owner_a)
    owner = bench.chain.mint("", bench.owner_a)
    await bench.catch_up()
    answer = await served.client.post(f"{PATH}?timeout=30s", json=review(owner))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "apiVersion": API_VERSION,
        "kind": "TokenReview",
        "status": {
            "authenticated": True,
            "user": {
                "username": bench.owner_a,
                "uid": seal.commitment(owner).hex()[:32],
                "groups": ["k3s-daas:owners"],
            },
        },
    }
    for other in (worker, seal.make(), owner[:-1], owner + "\n", "", "\0", "ключ" * 20):
        assert await served.review(other) == REFUSED
    bench.chain.revoke("", bench.owner_a)
    await bench.catch_up()
    assert await served.review(owner) == REFUSED
    rendered = bench.state.metrics.render().decode()
    assert 'k3s_daas_token_reviews_total{outcome="authenticated"} 1.0' in rendered
    assert 'k3s_daas_token_reviews_total{outcome="refused"} 8.0' in rendered


async def test_many_at_once_on_kept_connections(bench: Any, serve: Any) -> None:
    served = await serve()
    tokens = {}
    for number in range(20):
        bench.chain.stake(f"worker-{number}", f"0x{number + 1:064x}")
        tokens[bench.chain.mint("", f"0x{number + 1:064x}")] = f"0x{number + 1:064x}"
    await bench.catch_up()

    async def ask(token: str) -> None:
        status = (await served.review(token))["status"]
        assert status["user"]["username"] == tokens[token]

    await asyncio.gather(*(ask(token) for token in [*tokens] * 10))


async def test_a_body_without_an_announced_length(bench: Any, serve: Any) -> None:
    served = await serve()
    bench.chain.stake("worker-1", bench.owner_a)
    owner = bench.chain.mint("", bench.owner_a)
    await bench.catch_up()

    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    answer = await served.post(chunks(json.dumps(review(owner)).encode()))
    assert answer.json()["status"]["authenticated"] is True
    large = await served.post(chunks(json.dumps(review("x" * 20_000)).encode()))
    assert bench.refusal(large) == (413, "body_too_large")


@pytest.mark.parametrize("size", [17_000, 1_000_000, 5_000_000])
async def test_a_token_of_megabytes_is_refused_and_its_sender_hears_so(
    bench: Any, serve: Any, size: int
) -> None:
    served = await serve()
    answer = await served.post(json.dumps(review("x" * size)))
    assert bench.refusal(answer) == (413, "body_too_large")
    assert await served.review("x") == REFUSED, "and the next one is served"


async def test_an_endless_body_is_cut_off(serve: Any) -> None:
    served = await serve()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    try:
        answer = await served.post(endless())
    except httpx.TransportError:
        pass  # it closed while we were still sending
    else:
        assert answer.status_code == 413
    assert await served.review("x") == REFUSED


@pytest.mark.parametrize(
    ("method", "path", "headers", "wanted"),
    [
        ("POST", "/", JSON, (404, "not_found")),
        ("POST", "/token-review/", JSON, (404, "not_found")),
        ("GET", "/metrics", {}, (404, "not_found")),
        ("GET", PATH, {}, (405, "method_not_allowed")),
        ("PUT", PATH, JSON, (405, "method_not_allowed")),
        ("POST", PATH, {}, (415, "wrong_content_type")),
        ("POST", PATH, {"Content-Type": "application/x-www-form-urlencoded"}, (415, "wrong_content_type")),
        ("POST", PATH, JSON, (400, "bad_request")),
    ],
)
async def test_anything_else_is_refused_by_name(
    bench: Any, serve: Any, method: str, path: str, headers: dict[str, str], wanted: tuple[int, str]
) -> None:
    served = await serve()
    answer = await served.client.request(method, path, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == wanted
    assert all(error.values())
    if wanted[0] == 405:
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xa5",  # TLS
        b"BLAH\r\n\r\n",
        b"POST /token-review HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n{}",
        b"POST /token-review HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000,
    ],
)
async def test_what_is_no_request_gets_no_further_than_the_server(serve: Any, data: bytes) -> None:
    served = await serve()
    reader, writer = await served.raw(data)
    answer = await asyncio.wait_for(reader.read(), 20)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
    writer.close()
    assert await served.review("x") == REFUSED


HEAD = (
    b"POST /token-review HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)


async def test_a_body_that_does_not_come(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(Webhook.give_up_on_slow, "__defaults__", (0.05,))
    served = await serve()
    reader, writer = await served.raw(HEAD)
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"no whole body within" in answer
    assert b"connection: close" in answer.lower() or reader.at_eof()
    writer.close()
    _, closing = await served.raw(HEAD)
    closing.transport.abort()
    assert await served.review("x") == REFUSED


async def test_stopping_waits_for_nobody_who_is_slow(bench: Any) -> None:
    sock = listening.bind("127.0.0.1:0")
    app = _app(bench.state)
    server = WebhookServer(app, sock)
    task = asyncio.create_task(server.serve())
    await server.up.wait()
    served = Served(sock.getsockname()[1], server, httpx.AsyncClient(trust_env=False))
    reader, writer = await served.raw(HEAD)
    idle_reader, idle = await served.raw(b"")
    async with asyncio.timeout(10):
        while not app._reading:
            await asyncio.sleep(0)
    server.stop()
    await asyncio.wait_for(task, 10)
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
    assert await asyncio.wait_for(idle_reader.read(), 10) == b""
    for each in (writer, idle):
        each.close()
    sock.close()


async def test_a_mistake_of_ours_shows_nothing_of_it(bench: Any, serve: Any) -> None:
    class Broken:
        def review(self, body: bytes) -> tuple[bool, bytes]:
            raise KeyError("seal_" + "s" * 43)

    served = await serve(Broken())
    answer = await served.post(json.dumps(review("x")))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "sss" not in answer.text


async def test_no_second_process_can_listen_beside_it(serve: Any) -> None:
    served = await serve()
    with socket.socket() as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            second.bind(("127.0.0.1", served.port))


# -- any body whatsoever ----------------------------------------------------------------------------------


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_reviews = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.sampled_from([API_VERSION, "authentication.k8s.io/v1beta1"]) | _json,
        "kind": st.just("TokenReview") | _json,
        "spec": st.fixed_dictionaries({}, optional={"token": st.text() | _json, "audiences": _json}) | _json,
    },
)
_bodies = (
    st.binary(max_size=200)
    | _json.map(lambda value: json.dumps(value).encode())
    | _reviews.map(lambda value: json.dumps(value).encode())
    | _reviews.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_bodies)
@example(body=b"")
@example(body=b"[" * 100_000)
@example(body=b'{"a":' * 100_000)
@example(body=json.dumps(review("\0" * 48)).encode())
@example(body=json.dumps(review("seal_" + "é" * 43)).encode())
@example(body=json.dumps(review("\ud800")).encode())
@example(body=json.dumps(review("x" * 1_000_000)).encode())
@example(body=b'{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"\xff"}}')
@example(body=b'{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":NaN}}')
@example(
    body=b'{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"a","token":"b"}}'
)
def test_any_body_is_a_review_or_a_bad_request(reviewer: TokenReviewer, body: bytes) -> None:
    refusal: ApiError | None = None
    try:
        authenticated, answer = reviewer.review(body)
    except ApiError as error:
        refusal = error
    if refusal is None:
        assert (authenticated, json.loads(answer)) == (False, REFUSED)
    else:
        assert refusal.status == 400
        assert all(refusal.body()["error"].values())
        assert len(refusal.body()["error"]["found"]) < 200


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text(max_size=100) | st.text("seal_AZaz09-_", min_size=40, max_size=60))
def test_any_text_is_a_token_like_any_other(reviewer: TokenReviewer, token: str) -> None:
    authenticated, answer = reviewer.review(json.dumps(review(token)).encode())
    assert (authenticated, json.loads(answer)) == (False, REFUSED)


@pytest.fixture
def reviewer(bench: Any) -> TokenReviewer:
    made: TokenReviewer = bench.state.reviewer
    return made
