"""k8s_gateway: seal tokens of workers and owners."""

from __future__ import annotations

import base64

import pytest
from contract_fleet import DAY_MS, SUI, Fleet, aborts, digest, only

from k3s_daas.chain import SuiClient

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_create_and_rotate_a_worker_token(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    first, second = digest("worker 1"), digest("worker 2")
    expires = fleet.now_ms + 90 * DAY_MS
    receipt = await fleet.create_token(alice, "w-1", first, expires)
    event = {
        "registry": fleet.registry,
        "scope": "worker",
        "node_id": "w-1",
        "owner": alice.address,
        "commitment": base64.b64encode(first).decode(),
        "generation": "1",
        "expires_at_ms": str(expires),
    }
    assert only(receipt, "SealTokenCreatedEvent") == event
    token = await fleet.worker_token("w-1")
    assert token is not None
    issued = int(token.pop("issued_at_ms"))
    assert issued <= fleet.now_ms
    assert token == {
        "commitment": event["commitment"],
        "generation": "1",
        "expires_at_ms": str(expires),
        "revoked": False,
    }
    with aborts("ESealTokenExists"):
        await fleet.create_token(alice, "w-1", second)
    receipt = await fleet.rotate_token(alice, "w-1", second, expires + 1)
    assert only(receipt, "SealTokenCreatedEvent") == event | {
        "commitment": base64.b64encode(second).decode(),
        "generation": "2",
        "expires_at_ms": str(expires + 1),
    }


async def test_create_rotate_and_revoke_an_owner_token(fleet: Fleet, alice: SuiClient) -> None:
    with aborts("ENotAnOwner"):
        await fleet.create_owner_token(alice, digest("owner 0"))
    await fleet.stake(alice, "w-1")
    with aborts("ENoSealToken"):
        await fleet.rotate_owner_token(alice, digest("owner 0"))
    with aborts("ENoSealToken"):
        await fleet.revoke_owner_token(alice)
    created = only(await fleet.create_owner_token(alice, digest("owner 1")), "SealTokenCreatedEvent")
    assert (created["scope"], created["node_id"], created["owner"]) == ("owner", "", alice.address)
    with aborts("ESealTokenExists"):
        await fleet.create_owner_token(alice, digest("owner 2"))
    rotated = only(await fleet.rotate_owner_token(alice, digest("owner 2")), "SealTokenCreatedEvent")
    assert rotated["generation"] == "2"
    assert only(await fleet.revoke_owner_token(alice), "SealTokenRevokedEvent") == {
        "registry": fleet.registry,
        "scope": "owner",
        "node_id": "",
        "owner": alice.address,
        "generation": "2",
    }
    with aborts("ESealTokenRevoked"):
        await fleet.revoke_owner_token(alice)
    token = await fleet.owner_token(alice.require_address())
    assert token is not None
    assert token["revoked"] is True
    await fleet.unstake(alice, "w-1")
    await fleet.withdraw(alice, "w-1")
    with aborts("ENotAnOwner"):
        await fleet.rotate_owner_token(alice, digest("owner 3"))


async def test_revoke_a_worker_token(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    with aborts("ENoSealToken"):
        await fleet.revoke_token(alice, "w-1")
    await fleet.create_token(alice, "w-1", digest("revoke 1"))
    with aborts("EUnauthorizedRequest"):
        await fleet.revoke_token(bob, "w-1")
    assert only(await fleet.revoke_token(alice, "w-1"), "SealTokenRevokedEvent") == {
        "registry": fleet.registry,
        "scope": "worker",
        "node_id": "w-1",
        "owner": alice.address,
        "generation": "1",
    }
    with aborts("ESealTokenRevoked"):
        await fleet.revoke_token(alice, "w-1")
    await fleet.rotate_token(alice, "w-1", digest("revoke 2"))
    token = await fleet.worker_token("w-1")
    assert token is not None
    assert (token["generation"], token["revoked"]) == ("2", False)


async def test_an_expired_token_can_be_rotated(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    await fleet.create_token(alice, "w-1", digest("expire 1"), fleet.now_ms + 60_000)
    fleet.advance(60_001)
    created = only(await fleet.rotate_token(alice, "w-1", digest("expire 2")), "SealTokenCreatedEvent")
    assert created["generation"] == "2"


async def test_a_commitment_is_32_bytes_and_used_once(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    await fleet.stake(bob, "w-2")
    for wrong in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidSealToken"):
            await fleet.create_token(alice, "w-1", wrong)
    await fleet.create_token(alice, "w-1", digest("once"))
    with aborts("ECommitmentReused"):
        await fleet.rotate_token(alice, "w-1", digest("once"))
    with aborts("ECommitmentReused"):
        await fleet.create_token(bob, "w-2", digest("once"))
    with aborts("ECommitmentReused"):
        await fleet.create_owner_token(bob, digest("once"))
    await fleet.rotate_token(alice, "w-1", digest("twice"))
    with aborts("ECommitmentReused"):  # not even when it is dead
        await fleet.rotate_token(alice, "w-1", digest("once"))


async def test_a_lifetime_is_at_most_365_days(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    with aborts("EAlreadyExpired"):
        await fleet.create_token(alice, "w-1", digest("life"), fleet.now_ms - 1)
    with aborts("ELifetimeTooLong"):
        await fleet.create_token(alice, "w-1", digest("life"), fleet.now_ms + 365 * DAY_MS + 60_000)
    with aborts("ELifetimeTooLong"):
        await fleet.create_token(alice, "w-1", digest("life"), 2**64 - 1)
    await fleet.create_token(alice, "w-1", digest("life"), fleet.now_ms + 365 * DAY_MS - 60_000)


async def test_only_the_workers_owner_mints(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    with aborts("EWorkerNotFound"):
        await fleet.create_token(alice, "absent", digest("mine"))
    with aborts("EUnauthorizedRequest"):
        await fleet.create_token(bob, "w-1", digest("mine"))
    with aborts("ENoSealToken"):
        await fleet.rotate_token(alice, "w-1", digest("mine"))
    await fleet.create_token(alice, "w-1", digest("mine"))
    with aborts("EUnauthorizedRequest"):
        await fleet.rotate_token(bob, "w-1", digest("theirs"))


async def test_leaving_and_slashed_workers_get_no_token(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake_many(alice, ["leaving", "jailed"], [SUI, SUI])
    await fleet.create_tokens(
        alice, ["leaving", "jailed"], [digest("l"), digest("j")], [fleet.now_ms + DAY_MS] * 2
    )
    await fleet.unstake(alice, "leaving")
    with aborts("EWorkerNotEligible"):
        await fleet.rotate_token(alice, "leaving", digest("l2"))
    await fleet.propose("jailed")
    await fleet.rotate_token(alice, "jailed", digest("j2"))  # heartbeats go on
    await fleet.execute(alice, "jailed")
    with aborts("EWorkerNotEligible"):
        await fleet.rotate_token(alice, "jailed", digest("j3"))
    await fleet.revoke_token(alice, "leaving")
    await fleet.revoke_token(alice, "jailed")


async def test_a_batch_of_tokens_is_all_or_nothing(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    await fleet.stake_many(alice, ["a", "b"], [SUI, SUI])
    await fleet.stake(bob, "c")
    soon = fleet.now_ms + DAY_MS
    one, two = digest("batch 1"), digest("batch 2")
    with aborts("EEmptyBatch"):
        await fleet.create_tokens(alice, [], [], [])
    with aborts("ELengthMismatch"):
        await fleet.create_tokens(alice, ["a", "b"], [one], [soon, soon])
    with aborts("ELengthMismatch"):
        await fleet.create_tokens(alice, ["a", "b"], [one, two], [soon])
    with aborts("EUnauthorizedRequest"):
        await fleet.create_tokens(alice, ["a", "c"], [one, two], [soon, soon])
    with aborts("ECommitmentReused"):
        await fleet.create_tokens(alice, ["a", "b"], [one, one], [soon, soon])
    assert await fleet.worker_token("a") is None
    receipt = await fleet.create_tokens(alice, ["a", "b"], [one, two], [soon, soon + 1])
    assert [(e.json["node_id"], e.json["expires_at_ms"]) for e in receipt.events] == [
        ("a", str(soon)),
        ("b", str(soon + 1)),
    ]
