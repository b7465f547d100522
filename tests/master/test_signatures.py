"""Signed heartbeats at the master: who must sign, what counts, and what two bodies of one moment lead to."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from k3s_daas import evidence


async def the_finding(bench: Any) -> dict[str, Any]:
    answer = (await bench.api.get("/api/v1/findings")).json()
    (found,) = answer["findings"]
    assert isinstance(found, dict)
    return found


async def test_a_worker_that_registered_a_key_must_sign(bench: Any) -> None:
    token, key = await bench.join_signing("worker-1")
    assert bench.refusal(await bench.beat(token, "worker-1")) == (401, "signature_invalid")
    other = Ed25519PrivateKey.generate()
    assert bench.refusal(await bench.signed_beat(token, "worker-1", other)) == (401, "signature_invalid")
    for junk in ("", "AA==", "not base64!", "A" * 8000):
        response = await bench.signed_beat(token, "worker-1", key, signature=junk)
        assert bench.refusal(response) == (401, "signature_invalid")
    assert (await bench.signed_beat(token, "worker-1", key)).status_code == 200, "refused ones cost no moment"


async def test_a_worker_without_a_key_need_not(bench: Any) -> None:
    token = await bench.join("worker-1")
    bench.clock.advance(1)
    assert (await bench.beat(token, "worker-1")).status_code == 200


async def test_the_key_is_bound_to_the_stake_and_known_after_a_restart(bench: Any) -> None:
    token, key = await bench.join_signing("worker-1")
    await bench.restart()
    await bench.state.fleet.reconcile()
    assert bench.refusal(await bench.beat(token, "worker-1")) == (401, "signature_invalid")
    assert (await bench.signed_beat(token, "worker-1", key)).status_code == 200
    bench.chain.withdraw("worker-1")
    bench.clock.advance(20)
    token = bench.chain.stake("worker-1", bench.owner_b)
    await bench.catch_up()
    assert (await bench.beat(token, "worker-1")).status_code == 200, "another stake, another worker"


async def test_registering_again_replaces_the_key(bench: Any) -> None:
    token, old = await bench.join_signing("worker-1")
    bench.chain.mint("worker-1")
    token = bench.chain.mint("worker-1")
    await bench.catch_up()
    assert (await bench.signed_beat(token, "worker-1", old)).status_code == 200, "a rotation keeps the key"
    new = Ed25519PrivateKey.generate()
    bench.clock.advance(1)
    public = base64.b64encode(new.public_key().public_bytes_raw()).decode()
    assert (await bench.register(token, "worker-1", public_key=public)).status_code == 200
    assert bench.refusal(await bench.signed_beat(token, "worker-1", old)) == (401, "signature_invalid")
    assert (await bench.signed_beat(token, "worker-1", new)).status_code == 200


@pytest.mark.parametrize("junk", ["", "AAAA", "not base64!", "A" * 65, 7])
async def test_a_public_key_that_is_none(bench: Any, junk: Any) -> None:
    token = bench.chain.stake("worker-1")
    await bench.catch_up()
    response = await bench.register(token, "worker-1", public_key=junk)
    assert bench.refusal(response) == (400, "bad_request")


@pytest.mark.parametrize("restarted", [False, True])
async def test_two_bodies_of_one_moment_are_found_with_evidence(bench: Any, restarted: bool) -> None:
    token, key = await bench.join_signing("worker-1")
    assert (await bench.signed_beat(token, "worker-1", key, running_pods=1)).status_code == 200
    if restarted:
        await bench.restart()
        await bench.state.fleet.reconcile()
    again = await bench.signed_beat(token, "worker-1", key, running_pods=2)
    assert bench.refusal(again) == (409, "timestamp_replayed")
    found = await the_finding(bench)
    assert (found["node_id"], found["reason"], found["state"]) == ("worker-1", 1, "observed")
    assert found["would_propose_because"] == "one key signed two bodies for one moment"
    raw = (await bench.api.get(found["evidence"])).content
    assert evidence.digest(raw).hex() == found["evidence_sha256"]
    proof = evidence.decode(1, raw)
    assert evidence.judge(proof).proven
    assert isinstance(proof, evidence.ConflictingHeartbeats)
    assert (proof.node_id, proof.generation) == ("worker-1", 1)
    assert token.encode() not in raw
    await bench.signed_beat(token, "worker-1", key, running_pods=3)
    assert await the_finding(bench) == found, "one open finding of a kind is enough"
    assert bench.chain.proposals == []


async def test_a_replay_of_the_same_bytes_is_no_offence(bench: Any) -> None:
    token, key = await bench.join_signing("worker-1")
    assert (await bench.signed_beat(token, "worker-1", key, a=1)).status_code == 200
    replayed = await bench.signed_beat(token, "worker-1", key, a=1)
    assert bench.refusal(replayed) == (409, "timestamp_replayed")
    assert (await bench.api.get("/api/v1/findings")).json()["findings"] == []


async def test_nobody_else_can_make_a_worker_guilty(bench: Any) -> None:
    """Neither who has its token but not its key, nor another worker with a key of its own."""
    token, key = await bench.join_signing("worker-1")
    other_token, other_key = await bench.join_signing("worker-2", bench.owner_b)
    assert (await bench.signed_beat(token, "worker-1", key, a=1)).status_code == 200
    assert bench.refusal(await bench.signed_beat(token, "worker-1", other_key, a=2))[1] == "signature_invalid"
    assert (
        bench.refusal(await bench.signed_beat(other_token, "worker-1", other_key, a=2))[1] == "node_mismatch"
    )
    assert bench.refusal(await bench.beat(token, "worker-1", a=2))[1] == "signature_invalid"
    assert (await bench.api.get("/api/v1/findings")).json()["findings"] == []


async def test_one_machine_beating_for_ten_workers(bench: Any) -> None:
    """With its own token and key it speaks for itself alone; each other name is refused."""
    token, key = await bench.join_signing("worker-0")
    others = [await bench.join_signing(f"worker-{n}", bench.owner_b) for n in range(1, 10)]
    before = dict(bench.state.heartbeats.last_ms)
    bench.clock.advance(1)
    for n in range(10):
        response = await bench.signed_beat(token, f"worker-{n}", key)
        assert response.status_code == (200 if n == 0 else 403)
    changed = {name for name, at in bench.state.heartbeats.last_ms.items() if at != before[name]}
    assert changed == {"worker-0"}
    # Even with all ten tokens it can't: the keys are on the machines they belong to.
    for n, (stolen, _) in enumerate(others, 1):
        refused = await bench.signed_beat(stolen, f"worker-{n}", key)
        assert bench.refusal(refused) == (401, "signature_invalid")
    text = (await bench.api.get("/metrics")).text
    assert 'k3s_daas_heartbeats_total{outcome="node_mismatch"} 9.0' in text
    assert 'k3s_daas_heartbeats_total{outcome="signature_invalid"} 9.0' in text
