"""A snapshot on an operator's word: who may ask for one, and that a request is good once."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from k3s_daas.chain import Key
from k3s_daas.operator import HEADER, SNAPSHOT_PATH, sign
from k3s_daas_master.errors import ApiError
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.sealed.exchange import Answer, Base

KEY, OTHER = Key(b"o" * 32), Key(b"x" * 32)


class FakeSealer:
    """Stands for a sealer that works at once; counts what it was asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.refuses: ApiError | None = None

    async def now(self) -> Answer:
        self.asked += 1
        if self.refuses is not None:
            raise self.refuses
        return Answer(id="1", made=Base(counter=7, hash="aa" * 32), copied_ms=5, bytes=1234)


@pytest.fixture
async def asked(bench: Any) -> Any:
    bench.state.sealer = FakeSealer()
    bench.chain.operator = KEY.address
    await bench.catch_up()
    await bench.state.operators.refresh()
    return bench


def body(bench: Any, **changes: Any) -> bytes:
    return json.dumps(
        {"registry_id": bench.config.registry_id, "timestamp_ms": bench.clock.ms, **changes}
    ).encode()


async def ask(bench: Any, raw: bytes, header: str | None = None, key: Key = KEY) -> httpx.Response:
    given = sign(key, SNAPSHOT_PATH, raw) if header is None else header
    answer: httpx.Response = await bench.api.post(
        SNAPSHOT_PATH, content=raw, headers={HEADER: given, "Content-Type": "application/json"}
    )
    return answer


async def test_the_holder_of_the_operator_cap_gets_one(asked: Any) -> None:
    answer = await ask(asked, body(asked))
    assert answer.status_code == 200
    assert answer.json() == {"counter": 7, "hash": "aa" * 32, "copied_ms": 5, "bytes": 1234}


@pytest.mark.parametrize(
    ("header", "key", "refusal"),
    [
        ("", KEY, (401, "signature_invalid")),
        ("not base64!", KEY, (401, "signature_invalid")),
        ("QUJD", KEY, (401, "signature_invalid")),
        (None, OTHER, (403, "not_operator")),
    ],
)
async def test_nobody_else_does(asked: Any, header: str | None, key: Key, refusal: tuple[int, str]) -> None:
    assert asked.refusal(await ask(asked, body(asked), header, key)) == refusal
    assert asked.state.sealer.asked == 0


async def test_a_signature_is_good_for_its_body_and_this_path_alone(asked: Any) -> None:
    raw = body(asked)
    for header in (sign(KEY, SNAPSHOT_PATH, body(asked, timestamp_ms=1)), sign(KEY, "/api/v1/other", raw)):
        assert asked.refusal(await ask(asked, raw, header)) == (401, "signature_invalid")


async def test_a_request_is_good_once_and_not_for_long(asked: Any) -> None:
    raw = body(asked)
    assert (await ask(asked, raw)).status_code == 200
    assert asked.refusal(await ask(asked, raw)) == (409, "timestamp_replayed")
    asked.clock.advance(61)
    await asked.state.operators.refresh()
    old = body(asked, timestamp_ms=asked.clock.ms - 60_500)
    assert asked.refusal(await ask(asked, old)) == (400, "clock_skew")
    assert asked.state.sealer.asked == 1


@pytest.mark.parametrize("change", [{"registry_id": "0x" + "11" * 32}, {"more": 1}, {"timestamp_ms": "1"}])
async def test_a_request_of_another_registry_or_form_is_refused(asked: Any, change: dict[str, Any]) -> None:
    assert asked.refusal(await ask(asked, body(asked, **change))) == (400, "bad_request")


async def test_nobody_is_an_operator_by_an_old_reading(asked: Any) -> None:
    asked.clock.advance(61)
    assert asked.refusal(await ask(asked, body(asked))) == (503, "not_ready")


async def test_a_snapshot_that_could_not_be_made_is_told(asked: Any) -> None:
    asked.state.sealer.refuses = ApiError(
        "not_ready", "No snapshot was made.", "the store is full", "room", "Fix."
    )
    answer = await ask(asked, body(asked))
    assert asked.refusal(answer) == (503, "not_ready")
    assert answer.json()["error"]["found"] == "the store is full"


async def test_a_flood_of_requests_is_refused_before_it_is_read(asked: Any) -> None:
    asked.state.stranger_limiter = RateLimiter(3, 0.1, asked.clock)
    statuses = [(await ask(asked, b"x" * 100, "")).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]
    assert asked.state.sealer.asked == 0
