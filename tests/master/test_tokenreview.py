"""TokenReview: only owners with a live worker are somebody, and nobody is of the system."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas import seal
from k3s_daas.registry import WorkerStatus

REFUSED = {"authenticated": False}


async def owner_token(bench: Any, **how: Any) -> str:
    bench.chain.stake("worker-1", bench.owner_a)
    token: str = bench.chain.mint("", bench.owner_a, **how)
    await bench.catch_up()
    return token


async def test_an_owners_token_names_the_owner(bench: Any) -> None:
    token = await owner_token(bench)
    status = await bench.review(token)
    assert status["authenticated"] is True
    assert status["user"]["username"] == bench.owner_a
    assert status["user"]["groups"] == ["k3s-daas:owners"]
    assert status["user"]["uid"] == seal.commitment(token).hex()[:32]
    assert token[5:] not in str(status)


async def test_every_refusal_is_the_same_answer(bench: Any) -> None:
    await owner_token(bench)
    worker = bench.chain.mint("worker-1")
    revoked = bench.chain.mint("", bench.owner_b)
    bench.chain.stake("worker-2", bench.owner_b)
    bench.chain.revoke("", bench.owner_b)
    await bench.catch_up()
    for token in (worker, revoked, seal.make(), "", "x", "seal_", "\0" * 48, "ünïcode" * 10, "a.b.c"):
        assert await bench.review(token) == REFUSED


async def test_expired(bench: Any) -> None:
    token = await owner_token(bench, days=1)
    assert (await bench.review(token))["authenticated"]
    bench.clock.advance(86_401)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert await bench.review(token) == REFUSED


async def test_rotation_kills_the_old_token(bench: Any) -> None:
    old = await owner_token(bench)
    new = bench.chain.mint("", bench.owner_a)
    await bench.catch_up()
    assert await bench.review(old) == REFUSED
    assert (await bench.review(new))["authenticated"]


async def test_an_owner_without_workers_is_nobody(bench: Any) -> None:
    token = bench.chain.mint("", bench.owner_a)
    await bench.catch_up()
    assert await bench.review(token) == REFUSED


async def test_slashing_the_last_worker_ends_kubectl(bench: Any) -> None:
    token = await owner_token(bench)
    bench.chain.stake("worker-2", bench.owner_a)
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert (await bench.review(token))["authenticated"], "one worker is left"
    bench.chain.slash("worker-2")
    await bench.catch_up()
    assert await bench.review(token) == REFUSED


async def test_leaving_with_the_last_worker_ends_kubectl(bench: Any) -> None:
    token = await owner_token(bench)
    bench.chain.set_status("worker-1", WorkerStatus.UNBONDING)
    await bench.catch_up()
    assert await bench.review(token) == REFUSED


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"apiVersion": "authentication.k8s.io/v1beta1", "kind": "TokenReview", "spec": {"token": "x"}},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"token": "x"}},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": 7}},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": "x"},
        {"apiVersion": {"a": [1] * 100}, "kind": None},
    ],
)
async def test_what_is_no_token_review(bench: Any, body: dict[str, Any]) -> None:
    assert bench.refusal(await bench.webhook.post("/token-review", json=body)) == (400, "bad_request")


async def test_limits_hold_here_too(bench: Any) -> None:
    form = await bench.webhook.post("/token-review", data={"a": "b"})
    assert bench.refusal(form) == (415, "wrong_content_type")
    large = await bench.webhook.post("/token-review", json={"spec": {"token": "x" * 20_000}})
    assert bench.refusal(large) == (413, "body_too_large")
