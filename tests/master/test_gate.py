"""Floods of unknown tokens from one address are rationed; whoever holds a known token notices nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from k3s_daas import seal
from k3s_daas_master.clock import Clock
from k3s_daas_master.http import api_app
from k3s_daas_master.ratelimit import RateLimiter, source_of

PATHS = ["/api/v1/register-worker", "/api/v1/nodes/heartbeat"]


@pytest.fixture
def few(bench: Any) -> Any:
    """The bench with 3 tries for strangers, refilled every 10 s."""
    bench.state.stranger_limiter = RateLimiter(3, 0.1, bench.clock)
    return bench


def client_from(bench: Any, host: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=api_app(bench.state), client=(host, 1))
    return httpx.AsyncClient(transport=transport, base_url="https://master")


async def flood(client: httpx.AsyncClient, path: str, count: int, token: str | None = None) -> list[int]:
    body = {"node_id": "worker-1", "timestamp_ms": 1}
    codes = []
    for _ in range(count):
        headers = {"X-Seal-Token": seal.make() if token is None else token}
        codes.append((await client.post(path, json=body, headers=headers)).status_code)
    return codes


@pytest.mark.parametrize("path", PATHS)
async def test_unknown_tokens_run_out_of_tries(few: Any, path: str) -> None:
    assert await flood(few.api, path, 6) == [401] * 3 + [429] * 3
    refused = await few.api.post(path, json={}, headers={"X-Seal-Token": seal.make()})
    assert few.refusal(refused) == (429, "rate_limited")
    assert refused.headers["retry-after"] == "5"
    few.clock.advance(10)
    assert await flood(few.api, path, 2) == [401, 429]
    metrics = (await few.api.get("/metrics")).text
    assert 'k3s_daas_strangers_total{outcome="refused"} 5.0' in metrics


async def test_the_tries_are_one_pot_whatever_is_tried(few: Any) -> None:
    assert await flood(few.api, PATHS[0], 1) == [401]
    assert await flood(few.api, PATHS[1], 1, token="seal_short") == [400]  # noqa: S106 - no token
    assert (await few.api.post("/api/v1/nothing-here", json={})).status_code == 404
    assert (await few.api.post(PATHS[1], json={})).status_code == 429, "without any token"
    assert (await few.api.get("/api/v1/workers", headers={"X-Seal-Token": "x"})).status_code == 429


async def test_known_tokens_and_readers_behind_the_same_address_are_served(few: Any) -> None:
    token = await few.join("worker-1")
    assert 429 in await flood(few.api, PATHS[1], 10)
    few.clock.advance(0.001)
    assert (await few.beat(token, "worker-1")).status_code == 200
    for path in ("/healthz", "/readyz", "/metrics", "/api/v1/workers"):
        assert (await few.api.get(path)).status_code == 200
    few.chain.revoke("worker-1")
    await few.catch_up()
    few.clock.advance(0.001)
    assert few.refusal(await few.beat(token, "worker-1")) == (401, "token_revoked"), "dead, but not unknown"


async def test_each_address_has_its_own(few: Any) -> None:
    assert await flood(few.api, PATHS[0], 4) == [401] * 3 + [429]
    async with client_from(few, "10.9.9.10") as other:
        assert await flood(other, PATHS[0], 1) == [401]
    async with client_from(few, "2001:db8::1") as first:
        assert await flood(first, PATHS[0], 3) == [401] * 3
    async with client_from(few, "2001:db8::ffff:2") as neighbour:
        assert await flood(neighbour, PATHS[0], 1) == [429]


async def test_before_the_registry_was_read_everybody_hears_that(few: Any) -> None:
    few.state.index.loaded = False
    assert await flood(few.api, PATHS[1], 5) == [503] * 5


async def test_a_flood_neither_reads_the_chain_nor_fills_the_journal(few: Any) -> None:
    few.chain.refuse_reads = AssertionError("a token must not cost a chain call")
    few.state.refusal_log = RateLimiter(2, 0.001, few.clock)
    with capture_logs() as lines:
        assert set(await flood(few.api, PATHS[0], 200)) == {401, 429}
    assert [line["event"] for line in lines] == ["request refused"] * 2
    few.chain.refuse_reads = None


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("testclient", 5), "testclient"),
        (None, ""),
    ],
)
def test_whom_tries_are_counted_for(client: tuple[str, int] | None, wanted: str) -> None:
    assert source_of(client) == wanted


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=60))
def test_no_source_ever_gets_more_than_its_share(tries: list[tuple[str, float]]) -> None:
    class Hands(Clock):
        at = 0.0

        def monotonic(self) -> float:
            return self.at

    clock = Hands()
    limiter = RateLimiter(3, 0.5, clock)
    allowed = {"a": 0, "b": 0}
    for source, passed in tries:
        clock.at += passed
        allowed[source] += limiter.take(source) == 0
    for count in allowed.values():
        assert count <= 3 + clock.at * 0.5 + 1e-6
