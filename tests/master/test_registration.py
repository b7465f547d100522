"""register-worker: who gets in, who doesn't, and what each refusal says."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas import join, seal
from k3s_daas.chain import ChainUnreachable
from k3s_daas.registry import WorkerStatus

URL = "/api/v1/register-worker"


async def staked(bench: Any, node_id: str = "worker-1", **how: Any) -> str:
    token: str = bench.chain.stake(node_id, **how)
    await bench.catch_up()
    return token


async def test_a_staked_worker_gets_a_pinned_bootstrap_token_and_its_password(bench: Any) -> None:
    token = await staked(bench)
    response = await bench.register(token, "worker-1")
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    answer = response.json()
    assert answer["node_id"] == "worker-1"
    assert answer["server"] == "https://10.0.0.1:6443"
    assert answer["ca_pem"].encode() == bench.kube.ca_pem
    assert answer["expires_at_ms"] == bench.clock.ms + 600_000
    parsed = join.parse_full_token(answer["token"])
    assert parsed.ca_hash == join.ca_hash(bench.kube.ca_pem)
    (secret,) = bench.kube.bootstrap_tokens()
    assert (secret["token-id"], secret["token-secret"]) == (parsed.token_id, parsed.secret)
    assert secret["usage-bootstrap-authentication"] == "true"
    assert secret["auth-extra-groups"] == "system:bootstrappers:k3s:default-node-token"
    assert "worker-1" in secret["description"]
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), answer["node_password"])


async def test_the_password_is_in_place_before_the_token_exists(bench: Any) -> None:
    token = await staked(bench)
    bench.kube.requests.clear()
    assert (await bench.register(token, "worker-1")).status_code == 200
    written = bench.kube.asked("POST", "PUT")
    assert len(written) == 2
    assert bench.kube.secrets.keys() >= {"worker-1.node-password.k3s"}
    order = list(bench.kube.secrets)
    assert order.index("worker-1.node-password.k3s") < next(
        i for i, name in enumerate(order) if name.startswith("bootstrap-token-")
    )


async def test_every_other_name_is_taken_before_a_token_exists(bench: Any) -> None:
    token = await staked(bench)
    await staked(bench, "worker-2", owner=bench.owner_b)
    await staked(bench, "worker-3", status=WorkerStatus.JAILED)
    bench.chain.slash("worker-3")
    await bench.catch_up()
    assert (await bench.register(token, "worker-1")).status_code == 200
    order = list(bench.kube.secrets)
    first_token = next(i for i, name in enumerate(order) if name.startswith("bootstrap-token-"))
    for name in ("worker-1", "worker-2", "worker-3"):
        assert order.index(f"{name}.node-password.k3s") < first_token
    assert bench.kube.locked("worker-3")
    assert not bench.kube.locked("worker-2")


@pytest.mark.parametrize(
    "call", ["node_password", "put_node_password", "create_bootstrap_token", "bootstrap_tokens"]
)
async def test_slashed_while_it_registers(bench: Any, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    token = await staked(bench)
    cluster = bench.state.registrar._cluster
    original = getattr(cluster, call)

    async def slow(*arguments: Any, **named: Any) -> Any:
        if not bench.state.index.slashed():
            bench.chain.slash("worker-1")
            await bench.catch_up()
        return await original(*arguments, **named)

    monkeypatch.setattr(cluster, call, slow)
    assert bench.refusal(await bench.register(token, "worker-1")) == (403, "worker_not_eligible")
    assert bench.kube.bootstrap_tokens() == []
    await bench.state.remover.sweep()
    await bench.state.fleet.reconcile()
    assert bench.kube.locked("worker-1")


async def test_a_registration_under_way_does_not_unlock_a_slashed_name(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await staked(bench)

    async def removed_meanwhile() -> None:
        bench.chain.slash("worker-1")
        await bench.catch_up()
        await bench.state.remover.sweep()

    monkeypatch.setattr(bench.state.registrar._passwords, "cover", removed_meanwhile)
    assert bench.refusal(await bench.register(token, "worker-1")) == (403, "worker_not_eligible")
    assert bench.kube.locked("worker-1")


async def test_a_full_disk_lets_nobody_in_and_is_said(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await staked(bench)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.state.store, "advance", full)
    assert bench.refusal(await bench.register(token, "worker-1")) == (503, "not_ready")
    assert bench.refusal(await bench.beat(token, "worker-1")) == (503, "not_ready")
    assert bench.kube.bootstrap_tokens() == []


async def test_when_the_password_cannot_be_set_no_token_is_given(bench: Any) -> None:
    token = await staked(bench)
    bench.kube.broken = True
    assert bench.refusal(await bench.register(token, "worker-1")) == (503, "not_ready")
    bench.kube.broken = False
    assert bench.kube.bootstrap_tokens() == []
    bench.clock.advance(1)
    assert (await bench.register(token, "worker-1")).status_code == 200


async def test_registering_again_gives_the_same_password_and_one_token(bench: Any) -> None:
    token = await staked(bench)
    first = (await bench.register(token, "worker-1")).json()
    bench.clock.advance(1)
    await bench.restart()
    await bench.state.fleet.reconcile()
    second = (await bench.register(token, "worker-1")).json()
    assert second["node_password"] == first["node_password"]
    assert second["token"] != first["token"]
    (secret,) = bench.kube.bootstrap_tokens()
    assert second["token"].endswith(f"::{secret['token-id']}.{secret['token-secret']}")


async def test_a_rotated_token_gives_a_new_password_only_when_it_registers(bench: Any) -> None:
    token = await staked(bench)
    first = (await bench.register(token, "worker-1")).json()["node_password"]
    rotated = bench.chain.mint("worker-1")
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), first), (
        "the joined node still has it"
    )
    bench.clock.advance(1)
    second = (await bench.register(rotated, "worker-1")).json()["node_password"]
    assert second != first
    assert join.verify_node_password(bench.kube.password_hash("worker-1"), second)


async def test_passwords_differ_between_workers_and_between_stakes_of_one_name(bench: Any) -> None:
    one = await staked(bench)
    two = await staked(bench, "worker-2")
    passwords = {
        (await bench.register(one, "worker-1")).json()["node_password"],
        (await bench.register(two, "worker-2")).json()["node_password"],
    }
    bench.chain.withdraw("worker-1")
    bench.clock.advance(1)
    again = await staked(bench, owner=bench.owner_b)
    passwords.add((await bench.register(again, "worker-1")).json()["node_password"])
    assert len(passwords) == 3


@pytest.mark.parametrize("status", ["active", "busy", "offline"])
async def test_a_known_worker_may_register_anew(bench: Any, status: str) -> None:
    token = await staked(bench, status=WorkerStatus(status))
    assert (await bench.register(token, "worker-1")).status_code == 200


# -- refusals ---------------------------------------------------------------------------------------------


async def test_unknown_token(bench: Any) -> None:
    await staked(bench)
    assert bench.refusal(await bench.register(seal.make(), "worker-1")) == (401, "token_unknown")


async def test_token_of_another_registry_is_unknown(bench: Any) -> None:
    foreign = seal.make()
    bench.chain.emit(
        "k8s_gateway::SealTokenCreatedEvent",
        registry="0x" + "ee" * 32,
        scope="worker",
        node_id="worker-1",
        owner=bench.owner_a,
        commitment="",
        generation="1",
        expires_at_ms="9999999999999",
    )
    await staked(bench)
    assert bench.refusal(await bench.register(foreign, "worker-1")) == (401, "token_unknown")


async def test_expired_token(bench: Any) -> None:
    token = await staked(bench)
    bench.clock.advance(90 * 86_400 + 1)
    bench.chain.checkpoint()
    await bench.catch_up()
    assert bench.refusal(await bench.register(token, "worker-1")) == (401, "token_expired")


async def test_a_clock_set_back_revives_no_token(bench: Any) -> None:
    token = await staked(bench)
    bench.clock.advance(90 * 86_400 + 30)
    bench.chain.checkpoint()
    await bench.catch_up()
    bench.clock.ms -= 40_000
    assert bench.refusal(await bench.register(token, "worker-1")) == (401, "token_expired")


async def test_revoked_token(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.revoke("worker-1")
    await bench.catch_up()
    assert bench.refusal(await bench.register(token, "worker-1")) == (401, "token_revoked")


async def test_rotated_away_token(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.mint("worker-1")
    await bench.catch_up()
    assert bench.refusal(await bench.register(token, "worker-1")) == (401, "token_unknown")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-1],
        lambda t: t[:20],
        lambda t: t + "A",
        lambda t: t.replace("seal_", "Seal_"),
        lambda t: "seal_" + "!" * 43,
        lambda t: "K10abc::server:password",
        lambda t: "x" * 8000,
    ],
)
async def test_malformed_token(bench: Any, spoil: Any) -> None:
    token = await staked(bench)
    assert bench.refusal(await bench.register(spoil(token), "worker-1")) == (400, "token_malformed")


async def test_no_token(bench: Any) -> None:
    assert bench.refusal(await bench.register(None, "worker-1")) == (400, "token_malformed")


async def test_bytes_that_are_no_text_as_token(bench: Any) -> None:
    body = {"node_id": "worker-1", "timestamp_ms": bench.clock.ms}
    response = await bench.api.post(URL, json=body, headers={"X-Seal-Token": b"seal_\xff\xfe" + b"\xe9" * 41})
    assert bench.refusal(response) == (400, "token_malformed")


async def test_a_worker_asking_for_anothers_name(bench: Any) -> None:
    one = await staked(bench, "worker-1")
    await staked(bench, "worker-2", owner=bench.owner_b)
    response = await bench.register(one, "worker-2")
    assert bench.refusal(response) == (403, "node_mismatch")
    assert bench.kube.bootstrap_tokens() == []


async def test_owner_token_is_no_workers(bench: Any) -> None:
    await staked(bench)
    owner = bench.chain.mint("")
    await bench.catch_up()
    assert bench.refusal(await bench.register(owner, "worker-1")) == (401, "token_unknown")


async def test_slashed_worker(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.slash("worker-1")
    await bench.catch_up()
    assert bench.refusal(await bench.register(token, "worker-1")) == (403, "worker_slashed")


@pytest.mark.parametrize("status", ["jailed", "unbonding"])
async def test_jailed_and_leaving_workers(bench: Any, status: str) -> None:
    token = await staked(bench, status=WorkerStatus(status))
    assert bench.refusal(await bench.register(token, "worker-1")) == (403, "worker_not_eligible")


@pytest.mark.parametrize("skew_s", [-3600, -61, 61, 3600])
async def test_clock_off(bench: Any, skew_s: int) -> None:
    token = await staked(bench)
    response = await bench.register(token, "worker-1", timestamp_ms=bench.clock.ms + skew_s * 1000)
    assert bench.refusal(response) == (400, "clock_skew")
    assert f"{abs(skew_s)} s {'behind' if skew_s < 0 else 'ahead of'}" in response.json()["error"]["found"]


async def test_replayed_timestamp_also_after_a_restart(bench: Any) -> None:
    token = await staked(bench)
    assert (await bench.register(token, "worker-1")).status_code == 200
    assert bench.refusal(await bench.register(token, "worker-1")) == (409, "timestamp_replayed")
    await bench.restart()
    await bench.state.fleet.reconcile()
    assert bench.refusal(await bench.register(token, "worker-1")) == (409, "timestamp_replayed")
    earlier = await bench.register(token, "worker-1", timestamp_ms=bench.clock.ms - 1)
    assert bench.refusal(earlier) == (409, "timestamp_replayed")


async def test_one_request_raced_against_itself_is_accepted_once(bench: Any) -> None:
    token = await staked(bench)
    answers = await asyncio.gather(*(bench.register(token, "worker-1") for _ in range(5)))
    assert sorted(a.status_code for a in answers) == [200, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("content", "headers", "wanted"),
    [
        (b"{}", {"content-type": "text/plain"}, (415, "wrong_content_type")),
        (b"{}", {"content-type": "application/jsonx"}, (415, "wrong_content_type")),
        (b"{}", {"content-type": ""}, (415, "wrong_content_type")),
        (b"not json", {}, (400, "bad_request")),
        (b"\xff\xfe", {}, (400, "bad_request")),
        (b"[1]", {}, (400, "bad_request")),
        (b"[" * 10_000, {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": NaN}', {}, (400, "bad_request")),
        (b"{}", {}, (400, "bad_request")),
        (b'{"node_id": "w"}', {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": "1"}', {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": 1.5}', {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": -1}', {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": 1e400}', {}, (400, "bad_request")),
        (b'{"node_id": "w", "timestamp_ms": 99999999999999999999}', {}, (400, "bad_request")),
        (b'{"node_id": 7, "timestamp_ms": 1}', {}, (400, "bad_request")),
        (b'{"node_id": "Worker_1", "timestamp_ms": 1}', {}, (400, "bad_request")),
        (b'{"node_id": "../x", "timestamp_ms": 1}', {}, (400, "bad_request")),
        (b'{"node_id": "' + b"a" * 253 + b'", "timestamp_ms": 1}', {}, (400, "bad_request")),
        ('{"node_id": "wörker", "timestamp_ms": 1}'.encode(), {}, (400, "bad_request")),
        (b'{"pad": "' + b"x" * 20_000 + b'"}', {}, (413, "body_too_large")),
    ],
)
async def test_bad_bodies(
    bench: Any, content: bytes, headers: dict[str, str], wanted: tuple[int, str]
) -> None:
    headers = {"content-type": "application/json; charset=utf-8", "x-seal-token": seal.make(), **headers}
    response = await bench.api.post(URL, content=content, headers=headers)
    assert bench.refusal(response) == wanted


async def test_refusals_say_what_was_found_wanted_and_to_be_done(bench: Any) -> None:
    good, other, expired, revoked, gone = (
        bench.chain.stake(f"worker-{number}", owner=bench.owner_b if number == 2 else bench.owner_a)
        for number in (1, 2, 3, 4, 5)
    )
    bench.chain.worker_tokens["worker-3"] = replace(
        bench.chain.worker_tokens["worker-3"], expires_at_ms=bench.clock.ms
    )
    bench.chain.revoke("worker-4")
    bench.chain.slash("worker-5")
    await bench.restart()
    await bench.state.fleet.reconcile()
    hour_ago = {"timestamp_ms": bench.clock.ms - 3_600_000}
    plain = {"content-type": "text/plain"}
    for response, words in (
        (
            await bench.register(seal.make(), "worker-1"),
            ("isn't on-chain", "this master's registry", "workers play"),
        ),
        (await bench.register(good[:30], "worker-1"), ("30 characters", "as the worker made it", "cut off")),
        (await bench.register(expired, "worker-3"), ("expired at", "still good", "Rotate")),
        (await bench.register(revoked, "worker-4"), ("generation 1, revoked", "current token", "Rotate")),
        (await bench.register(good, "worker-2"), ("'worker-2'", "minted for", "token of its own")),
        (await bench.register(other, "worker-1"), ("'worker-1'", "minted for", "token of its own")),
        (await bench.register(gone, "worker-5"), ("slashed", "good standing", "another node_id")),
        (
            await bench.register(good, "worker-1", **hour_ago),
            ("3600 s behind", "at most 60 s", "Synchronize"),
        ),
        (await bench.register(good, "a" * 253), ("(253 characters)", "RFC 1123", "Correct")),
        (await bench.register(good, "wörker"), ("'wörker'", "RFC 1123", "Correct")),
        (await bench.register(good, "ansible_host"), ("'ansible_host'", "RFC 1123", "Correct")),
        (
            await bench.register(good, "worker-1", pad="x" * 20_000),
            ("bytes announced", "at most 16384", "only the"),
        ),
        (
            await bench.api.post(URL, content=b"{}", headers=plain),
            ("'text/plain'", "application/json", "header"),
        ),
    ):
        bench.refusal(response)
        error = response.json()["error"]
        for part, word in zip(("found", "wanted", "fix"), words, strict=True):
            assert word in error[part], error


async def test_a_body_without_announced_length_is_cut_off_too(bench: Any) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1024
            yield b"x" * 1024

    response = await bench.api.post(URL, content=endless(), headers={"content-type": "application/json"})
    assert bench.refusal(response) == (413, "body_too_large")
    assert sent <= 32 * 1024


async def test_a_flood_from_one_address_is_limited_and_wears_off(bench: Any) -> None:
    token = await staked(bench)
    stale = {"timestamp_ms": bench.clock.ms - 60_001}
    codes = [(await bench.register(token, "worker-1", **stale)).status_code for _ in range(110)]
    assert codes == [400] * 100 + [429] * 10
    assert bench.refusal(await bench.register(token, "worker-1")) == (429, "rate_limited")
    bench.clock.advance(2)
    assert (await bench.register(token, "worker-1")).status_code == 200


async def test_strangers_use_up_nothing_of_the_workers_behind_their_address(bench: Any) -> None:
    token = await staked(bench)
    codes = [(await bench.register(seal.make(), "worker-1")).status_code for _ in range(300)]
    assert codes == [401] * 100 + [429] * 200
    assert (await bench.register(token, "worker-1")).status_code == 200


async def test_a_stale_view_lets_nobody_in(bench: Any) -> None:
    token = await staked(bench)
    bench.chain.refuse_reads = ChainUnreachable({})
    bench.clock.advance(61)
    assert bench.refusal(await bench.register(token, "worker-1")) == (503, "not_ready")
    assert bench.refusal(await bench.register(seal.make(), "worker-1")) == (503, "not_ready")
    bench.chain.checkpoint()
    bench.chain.refuse_reads = None
    await bench.catch_up()
    assert (await bench.register(token, "worker-1")).status_code == 200


async def test_unknown_tokens_cost_no_chain_call(bench: Any) -> None:
    bench.chain.refuse_reads = AssertionError("a request must not ask the chain")
    for _ in range(20):
        assert (await bench.register(seal.make(), "worker-1")).status_code == 401


async def test_unknown_paths_and_methods(bench: Any) -> None:
    missing = await bench.api.get("/api/v1/secrets")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = await bench.api.get(URL)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    # The webhook is not on the public side.
    assert (await bench.api.post("/token-review", json={})).status_code == 404
    assert (await bench.webhook.get("/api/v1/workers")).status_code == 404


async def test_a_mistake_of_ours_tells_nothing(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(bench.state.registrar, "register", broken)
    response = await bench.register(seal.make(), "worker-1")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "inner detail" not in response.text
