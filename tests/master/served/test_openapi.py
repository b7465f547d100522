"""The API held against its own description: schemathesis makes requests, good and bad, and checks answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.routing import Route

from k3s_daas_master.http import api_app
from k3s_daas_master.ratelimit import RateLimiter

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
OPERATIONS = [
    ("POST", "/api/v1/register-worker"),
    ("POST", "/api/v1/nodes/heartbeat"),
    ("POST", "/api/v1/nodes/drain"),
    ("GET", "/api/v1/requests"),
    ("GET", "/api/v1/requests/{number}"),
    ("POST", "/api/v1/requests/{number}"),
    ("POST", "/api/v1/snapshot"),
    ("GET", "/api/v1/kubeconfig"),
    ("GET", "/api/v1/findings"),
    ("GET", "/api/v1/findings/{sha256}/evidence"),
    ("GET", "/api/v1/attestation"),
    ("GET", "/api/v1/workers"),
    ("GET", "/api/v1/overview"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/"),
]
Send = Callable[[Any, dict[str, str]], Any]


@pytest.fixture
async def fuzz(served: Any) -> Callable[..., Any]:
    """`await fuzz(method, path, mode, change)`: many requests of one operation, each edited by `change`."""
    state = served.bench.state
    # The limits are tested by themselves; here they would hide everything behind 429.
    for name in ("limiter", "attestations", "reads", "stranger_limiter", "refusal_log"):
        setattr(state, name, RateLimiter(10**9, 10**9, served.bench.clock))
    async with served.client() as client:
        document = (await client.get("/api/v1/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)

    async def run(
        method: str, path: str, mode: GenerationMode, change: Callable[[Any], None] = lambda _: None
    ) -> list[int]:
        statuses: list[int] = []

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def attempt(case: Any) -> None:
            change(case)
            response = case.call(base_url=served.url, verify=str(served.ca))
            statuses.append(response.status_code)
            checks = [
                c for c in CHECKS if c is not negative_data_rejection or mode is GenerationMode.NEGATIVE
            ]
            case.validate_response(response, checks=checks)

        await asyncio.to_thread(attempt)
        return statuses

    return run


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_what_fits_the_description_is_answered_as_described(fuzz: Any, method: str, path: str) -> None:
    statuses = await fuzz(method, path, GenerationMode.POSITIVE)
    assert statuses
    assert max(statuses) < 500


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[0] == "POST"])
async def test_what_does_not_fit_is_refused(fuzz: Any, method: str, path: str) -> None:
    statuses = await fuzz(method, path, GenerationMode.NEGATIVE)
    assert statuses
    assert {status // 100 for status in statuses} == {4}


async def test_a_known_workers_requests_are_answered_as_described(fuzz: Any, served: Any) -> None:
    bench = served.bench
    token = await bench.join("worker-1")
    clock = iter(range(bench.clock.ms + 1, bench.clock.ms + 10_000))

    def be_worker_1(case: Any) -> None:
        case.headers = {**(case.headers or {}), "X-Seal-Token": token}
        if isinstance(case.body, dict):
            case.body = {**case.body, "node_id": "worker-1", "timestamp_ms": next(clock)}

    assert 200 in set(await fuzz("POST", "/api/v1/nodes/heartbeat", GenerationMode.POSITIVE, be_worker_1))
    assert 200 in set(await fuzz("POST", "/api/v1/register-worker", GenerationMode.POSITIVE, be_worker_1))
    # What was reported in all these heartbeats can be shown.
    assert set(await fuzz("GET", "/api/v1/workers", GenerationMode.POSITIVE)) == {200}
    assert set(await fuzz("GET", "/api/v1/overview", GenerationMode.POSITIVE)) == {200}


async def test_an_owners_requests_are_answered_as_described(fuzz: Any, served: Any) -> None:
    bench = served.bench
    await bench.join("worker-1")
    token = bench.chain.mint("")
    await bench.catch_up()
    bench.end_request(1, "worker-1")

    def be_the_owner(case: Any) -> None:
        case.headers = {**(case.headers or {}), "X-Seal-Token": token}

    def ask_for_the_first(case: Any) -> None:
        be_the_owner(case)
        case.path_parameters = {"number": 1}

    one = "/api/v1/requests/{number}"
    assert set(await fuzz("GET", "/api/v1/requests", GenerationMode.POSITIVE, be_the_owner)) == {200}
    assert set(await fuzz("GET", one, GenerationMode.POSITIVE, ask_for_the_first)) == {200}
    assert set(await fuzz("POST", one, GenerationMode.POSITIVE, ask_for_the_first)) <= {409, 422}


async def test_every_route_is_described(bench: Any) -> None:
    document = (await bench.api.get("/api/v1/openapi.json")).json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {
        (method, route.path)
        for route in api_app(bench.state).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == served
    assert set(OPERATIONS) <= described
    files = {path for method, path in described if path.startswith("/status/")}
    assert described - set(OPERATIONS) == {("GET", path) for path in files}, "fuzz the new operation, too"
