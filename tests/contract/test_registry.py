"""worker_registry: creating a registry, staking, statuses, leaving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from contract_fleet import (
    DAY_MS,
    SUI,
    Fleet,
    Network,
    Terms,
    aborts,
    clock,
    create_fleet,
    digest,
    only,
    owned,
)

from k3s_daas.chain import SuiClient, Transaction, TransactionFailed

pytestmark = pytest.mark.asyncio(loop_scope="session")
COLD = "0x" + "c0" * 32  # a withdrawal address nobody here signs for


# === Registry ===


async def test_create_registry_shares_it_and_gives_four_caps(
    network: Network, admin: SuiClient, make_fleet: Callable[..., Any]
) -> None:
    fleet = await make_fleet(
        name="prod",
        open=False,
        min_stake=2 * SUI,
        slash_window_ms=3,
        unbonding_window_ms=4,
        slash_share_bps=1_000,
        require_attestation=True,
    )
    assert (await admin.get_object(fleet.registry)).owner == "shared"
    registry = await fleet.read()
    assert {key: registry[key] for key in registry if key not in ("id", "workers", "owners")} == {
        "version": "1",
        "name": "prod",
        "open": False,
        "allowed_owners": {"contents": []},
        "min_stake": str(2 * SUI),
        "slash_window_ms": "3",
        "unbonding_window_ms": "4",
        "slash_share_bps": "1000",
        "require_attestation": True,
        "staked": "0",
        "earned": "0",
        "treasury": "0",
        "rewards": {"balance": "0", "per_request": "0", "per_ready_hour": "0", "cap_per_epoch": "0"},
        "master": None,
        "master_epoch": "0",
        "proposals": "0",
        "proposals_epoch": "0",
    }
    for cap in ("Admin", "Operator", "Slasher", "Arbiter"):
        found = {o.id: o.json["registry"] for o in await owned(admin, fleet, f"worker_registry::{cap}Cap")}
        assert found[fleet.created.created_of(f"::{cap}Cap")[0]] == fleet.registry
    assert only(fleet.created, "RegistryCreatedEvent") == {
        "registry": fleet.registry,
        "name": "prod",
        "creator": admin.address,
    }


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        (Terms(name=""), "EInvalidName"),
        (Terms(name="x" * 65), "EInvalidName"),
        (Terms(min_stake=SUI - 1), "EMinStakeTooLow"),
        (Terms(slash_window_ms=30 * DAY_MS + 1), "EWindowTooLong"),
        (Terms(unbonding_window_ms=30 * DAY_MS + 1), "EWindowTooLong"),
        (Terms(slash_share_bps=5_001), "ESlashShareTooHigh"),
    ],
)
async def test_terms_beyond_the_maxima_are_refused(
    network: Network, admin: SuiClient, terms: Terms, error: str
) -> None:
    with aborts(error):
        await create_fleet(network, admin, terms)


async def test_terms_at_the_maxima_are_accepted(make_fleet: Callable[..., Any]) -> None:
    await make_fleet(
        name="x" * 64, slash_window_ms=30 * DAY_MS, unbonding_window_ms=30 * DAY_MS, slash_share_bps=5_000
    )


async def test_a_closed_registry_takes_only_allowed_owners(
    make_fleet: Callable[..., Any], alice: SuiClient, bob: SuiClient
) -> None:
    fleet: Fleet = await make_fleet(open=False)
    with aborts("EOwnerNotAllowed"):
        await fleet.stake(alice, "w-1")
    await fleet.allow(alice.require_address())
    await fleet.allow(alice.require_address())  # again: nothing changes
    assert (await fleet.read())["allowed_owners"] == {"contents": [alice.address]}
    await fleet.stake(alice, "w-1")
    with aborts("EOwnerNotAllowed"):
        await fleet.stake_many(bob, ["w-2"], [SUI])
    await fleet.disallow(alice.require_address())
    await fleet.disallow(alice.require_address())
    with aborts("EOwnerNotAllowed"):
        await fleet.stake(alice, "w-2")
    await fleet.unstake(alice, "w-1")  # what she has, she keeps control of


async def test_the_allow_list_is_bounded(make_fleet: Callable[..., Any], admin: SuiClient) -> None:
    fleet: Fleet = await make_fleet(open=False)

    def allow(first: int, last: int) -> Any:
        async def build(tx: Transaction) -> None:
            for number in range(first, last + 1):
                args = [tx.object(fleet.registry), tx.object(fleet.admin_cap), tx.address(hex(number))]
                tx.call(f"{fleet.package}::worker_registry::allow_owner", args)

        return build

    for first in range(1, 501, 100):
        await admin.execute(allow(first, first + 99))
    with aborts("EAllowListFull"):
        await admin.execute(allow(501, 501))
    await admin.execute(allow(500, 500))


async def test_a_cap_works_only_for_its_registry(make_fleet: Callable[..., Any], alice: SuiClient) -> None:
    ours: Fleet = await make_fleet()
    other: Fleet = await make_fleet()
    await ours.stake(alice, "w-1")
    with aborts("EWrongRegistry"):
        await ours.allow(alice.require_address(), cap=other.admin_cap)
    with aborts("EWrongRegistry"):
        await ours.call(
            ours.admin,
            "worker_registry::disallow_owner",
            lambda tx: [tx.object(other.admin_cap), tx.address(COLD)],
        )
    with aborts("EWrongRegistry"):
        await ours.call(ours.admin, "worker_registry::migrate", lambda tx: [tx.object(other.admin_cap)])
    with aborts("EWrongRegistry"):
        await ours.appoint(alice.require_address(), cap=other.operator_cap)
    with aborts("EWrongRegistry"):
        await ours.propose("w-1", cap=other.slasher_cap)
    await ours.propose("w-1")
    with aborts("EWrongRegistry"):
        await ours.cancel("w-1", cap=other.arbiter_cap)
    foreign = await other.appoint(ours.admin.require_address())
    await ours.appoint(ours.admin.require_address())
    with aborts("EWrongRegistry"):
        await ours.set_statuses(ours.admin, foreign, ["w-1"], ["active"])
    with aborts("EWrongRegistry"):
        await ours.announce(ours.admin, foreign)


async def test_a_cap_works_only_for_its_holder(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    for function, cap, more in (
        ("worker_registry::allow_owner", fleet.admin_cap, lambda tx: [tx.address(COLD)]),
        ("worker_registry::disallow_owner", fleet.admin_cap, lambda tx: [tx.address(COLD)]),
        ("worker_registry::migrate", fleet.admin_cap, lambda tx: []),
        ("nautilus::appoint_master", fleet.operator_cap, lambda tx: [tx.address(COLD), clock(tx)]),
        ("slashing::cancel_slash", fleet.arbiter_cap, lambda tx: [tx.string("w-1"), clock(tx)]),
    ):
        with pytest.raises(TransactionFailed):
            await fleet.call(alice, function, lambda tx, cap=cap, more=more: [tx.object(cap), *more(tx)])
    with pytest.raises(TransactionFailed):
        await fleet.propose("w-1", wallet=alice)
    assert await fleet.status("w-1") == "Pending"
    assert (await fleet.read())["master"] is None

    async def hand_over(tx: Transaction) -> None:
        tx.transfer([tx.object(fleet.slasher_cap)], alice.require_address())

    await fleet.admin.execute(hand_over)
    with pytest.raises(TransactionFailed):
        await fleet.propose("w-1")
    await fleet.propose("w-1", wallet=alice)
    assert await fleet.status("w-1") == "Jailed"


@pytest.mark.parametrize(
    "target",
    [
        "worker_registry::allow_owner",
        "worker_registry::disallow_owner",
        "worker_registry::stake_and_register_worker",
        "worker_registry::stake_and_register_workers",
        "worker_registry::request_unstake",
        "worker_registry::withdraw",
        "worker_registry::set_worker_statuses",
        "k8s_gateway::create_worker_seal_token",
        "k8s_gateway::create_worker_seal_tokens",
        "k8s_gateway::rotate_worker_seal_token",
        "k8s_gateway::revoke_worker_seal_token",
        "k8s_gateway::create_owner_seal_token",
        "k8s_gateway::rotate_owner_seal_token",
        "k8s_gateway::revoke_owner_seal_token",
        "k8s_gateway::announce_master",
        "slashing::propose_slash",
        "slashing::cancel_slash",
        "slashing::execute_slash",
        "nautilus::appoint_master",
    ],
)
async def test_every_change_asserts_the_version(old_fleet: OldFleet, target: str) -> None:
    with aborts("EWrongVersion"):
        await old_fleet.calls[target]()


class OldFleet:
    """A registry with a worker, set back to version 0, and one otherwise good call of every function."""

    def __init__(self, fleet: Fleet, alice: SuiClient, master_cap: str) -> None:
        admin = fleet.admin
        address = alice.require_address()
        self.fleet = fleet
        self.calls: dict[str, Callable[[], Any]] = {
            "worker_registry::allow_owner": lambda: fleet.allow(COLD),
            "worker_registry::disallow_owner": lambda: fleet.disallow(COLD),
            "worker_registry::stake_and_register_worker": lambda: fleet.stake(alice, "w-9"),
            "worker_registry::stake_and_register_workers": lambda: fleet.stake_many(alice, ["w-9"], [SUI]),
            "worker_registry::request_unstake": lambda: fleet.unstake(alice, "w-1"),
            "worker_registry::withdraw": lambda: fleet.withdraw(alice, "w-2"),
            "worker_registry::set_worker_statuses": lambda: fleet.set_statuses(
                admin, master_cap, ["w-1"], ["active"]
            ),
            "k8s_gateway::create_worker_seal_token": lambda: fleet.create_token(
                alice, "w-3", digest("version w-3")
            ),
            "k8s_gateway::create_worker_seal_tokens": lambda: fleet.create_tokens(
                alice, ["w-3"], [digest("version w-3")], [fleet.now_ms + DAY_MS]
            ),
            "k8s_gateway::rotate_worker_seal_token": lambda: fleet.rotate_token(
                alice, "w-1", digest("version w-1 b")
            ),
            "k8s_gateway::revoke_worker_seal_token": lambda: fleet.revoke_token(alice, "w-1"),
            "k8s_gateway::create_owner_seal_token": lambda: fleet.create_owner_token(
                alice, digest("version owner b")
            ),
            "k8s_gateway::rotate_owner_seal_token": lambda: fleet.rotate_owner_token(
                alice, digest("version owner c")
            ),
            "k8s_gateway::revoke_owner_seal_token": lambda: fleet.revoke_owner_token(alice),
            "k8s_gateway::announce_master": lambda: fleet.announce(admin, master_cap),
            "slashing::propose_slash": lambda: fleet.propose("w-1"),
            "slashing::cancel_slash": lambda: fleet.cancel("w-4"),
            "slashing::execute_slash": lambda: fleet.execute(alice, "w-4"),
            "nautilus::appoint_master": lambda: fleet.appoint(address),
        }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def old_fleet(hooked: Network, admin: SuiClient, alice: SuiClient) -> OldFleet:
    fleet = await create_fleet(hooked, admin, Terms())
    await fleet.stake_many(alice, ["w-1", "w-2", "w-3", "w-4"], [SUI] * 4)
    await fleet.create_token(alice, "w-1", digest("version w-1"))
    await fleet.create_owner_token(alice, digest("version owner"))
    await fleet.unstake(alice, "w-2")
    await fleet.propose("w-4")
    old = OldFleet(fleet, alice, await fleet.appoint(admin.require_address()))
    await set_version(fleet, 0)
    return old


async def set_version(fleet: Fleet, version: int) -> None:
    await fleet.call(fleet.admin, "worker_registry::set_version", lambda tx: [tx.u64(version)])


async def test_migrate_brings_an_old_registry_up_once(
    hooked: Network, admin: SuiClient, alice: SuiClient
) -> None:
    fleet = await create_fleet(hooked, admin, Terms())
    migrate = lambda: fleet.call(  # noqa: E731 - sent twice
        admin, "worker_registry::migrate", lambda tx: [tx.object(fleet.admin_cap)]
    )
    with aborts("ENotUpgrade"):
        await migrate()
    await set_version(fleet, 0)
    await migrate()
    assert (await fleet.read())["version"] == "1"
    await fleet.stake(alice, "w-1")
    await set_version(fleet, 2)  # a newer package migrated it: this one is out
    with aborts("ENotUpgrade"):
        await migrate()
    with aborts("EWrongVersion"):
        await fleet.stake(alice, "w-2")


# === Staking ===


async def test_stake_registers_a_pending_worker(fleet: Fleet, alice: SuiClient) -> None:
    now = fleet.now_ms
    receipt = await fleet.stake(alice, "worker-1", 3 * SUI, to=COLD)
    (proof,) = receipt.created_of("::worker_registry::StakeProof")
    worker = await fleet.worker("worker-1")
    assert worker is not None
    registered = int(worker.pop("registered_at_ms"))
    assert now <= registered <= fleet.now_ms
    assert worker == {
        "node_id": "worker-1",
        "owner": alice.address,
        "stake": str(3 * SUI),
        "status": {"@variant": "Pending"},
        "proof": proof,
        "withdrawal_address": COLD,
        "status_changed_at_ms": str(registered),
        "min_stake": str(SUI),
        "slash_window_ms": "0",
        "unbonding_window_ms": "0",
        "slash_share_bps": "5000",
        "reputation": "100",
        "workload": "0",
        "rewards": {
            "balance": "0",
            "epoch": "0",
            "earned_in_epoch": "0",
            "served": "0",
            "ready_ms": "0",
            "reported_until_ms": str(registered),
        },
        "proposal": None,
        "proposals": "0",
        "proposals_since_ms": str(registered),
        "unbonding_until_ms": None,
    }
    assert only(receipt, "WorkerRegisteredEvent") == {
        "registry": fleet.registry,
        "node_id": "worker-1",
        "owner": alice.address,
        "stake_amount": str(3 * SUI),
        "withdrawal_address": COLD,
        "timestamp_ms": str(registered),
    }
    assert only(receipt, "StakeDepositedEvent") == {
        "registry": fleet.registry,
        "node_id": "worker-1",
        "owner": alice.address,
        "amount": str(3 * SUI),
        "stake": str(3 * SUI),
        "timestamp_ms": str(registered),
    }
    found = await alice.get_object(proof)
    assert found.owner == alice.address
    assert (found.json["registry"], found.json["node_id"], found.json["owner"]) == (
        fleet.registry,
        "worker-1",
        alice.address,
    )
    assert (await fleet.read())["staked"] == str(3 * SUI)
    assert await fleet.owner_workers(alice.require_address()) == ["worker-1"]


async def test_a_batch_is_one_event_pair_per_worker(fleet: Fleet, alice: SuiClient) -> None:
    receipt = await fleet.stake_many(alice, ["a", "b", "c"], [SUI, 2 * SUI, 3 * SUI], to=COLD)
    for name, amount in (("WorkerRegisteredEvent", "stake_amount"), ("StakeDepositedEvent", "amount")):
        events = [event.json for event in receipt.events if event.type.endswith(f"::{name}")]
        assert [(e["node_id"], e[amount]) for e in events] == [
            ("a", str(SUI)),
            ("b", str(2 * SUI)),
            ("c", str(3 * SUI)),
        ]
    assert (await fleet.read())["staked"] == str(6 * SUI)
    assert await fleet.owner_workers(alice.require_address()) == ["a", "b", "c"]


async def test_a_batch_is_all_or_nothing(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "taken")
    before = await fleet.read()
    with aborts("EWorkerAlreadyExists"):
        await fleet.stake_many(alice, ["new", "taken"], [SUI, SUI])
    with aborts("EWorkerAlreadyExists"):
        await fleet.stake_many(alice, ["twin", "twin"], [SUI, SUI])
    assert await fleet.worker("new") is None
    assert await fleet.read() == before


async def test_what_a_batch_must_look_like(fleet: Fleet, alice: SuiClient) -> None:
    with aborts("EEmptyBatch"):
        await fleet.stake_many(alice, [], [], paid=0)
    with aborts("ELengthMismatch"):
        await fleet.stake_many(alice, ["a", "b"], [SUI])
    with aborts("EPaymentMismatch"):
        await fleet.stake_many(alice, ["a"], [SUI], paid=SUI + 1)
    with aborts("EPaymentMismatch"):
        await fleet.stake_many(alice, ["a", "b"], [SUI, SUI], paid=2 * SUI - 1)
    with aborts("EInsufficientStake"):
        await fleet.stake_many(alice, ["a", "b"], [SUI, SUI - 1])
    # amounts whose sum would wrap around 64 bits
    with aborts("EPaymentMismatch"):
        await fleet.stake_many(alice, ["a", "b"], [2**63, 2**63], paid=SUI)


async def test_staking_rules(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    with aborts("EInsufficientStake"):
        await fleet.stake(alice, "w-1", SUI - 1)
    with aborts("EInvalidWithdrawalAddress"):
        await fleet.stake(alice, "w-1", to="0x0")
    await fleet.stake(alice, "w-1")
    with aborts("EWorkerAlreadyExists"):
        await fleet.stake(bob, "w-1")


@pytest.mark.parametrize("node_id", ["a", "0", "a" * 63, "worker-1", "0-a", "a--b"])
async def test_node_ids_that_are_labels(fleet: Fleet, alice: SuiClient, node_id: str) -> None:
    await fleet.stake(alice, node_id)
    assert await fleet.status(node_id) == "Pending"


@pytest.mark.parametrize(
    "node_id",
    ["", "-a", "a-", "-", "A", "a.b", "a_b", "ansible_host", "a b", "a/b", "a" * 64, "a" * 253, "é", "a\n"],
)
async def test_node_ids_that_are_no_labels(fleet: Fleet, alice: SuiClient, node_id: str) -> None:
    with aborts("EInvalidNodeId"):
        await fleet.stake(alice, node_id)


async def test_terms_are_copied_when_staking(make_fleet: Callable[..., Any], alice: SuiClient) -> None:
    fleet: Fleet = await make_fleet(
        min_stake=2 * SUI, slash_window_ms=5, unbonding_window_ms=6, slash_share_bps=7
    )
    await fleet.stake(alice, "w-1", 2 * SUI)
    worker = await fleet.worker("w-1")
    assert worker is not None
    copied = ("min_stake", "slash_window_ms", "unbonding_window_ms", "slash_share_bps")
    assert [worker[name] for name in copied] == [str(2 * SUI), "5", "6", "7"]


async def test_a_stake_proof_is_soulbound(fleet: Fleet, alice: SuiClient) -> None:
    receipt = await fleet.stake(alice, "w-1")
    (proof,) = receipt.created_of("::worker_registry::StakeProof")
    await assert_soulbound(alice, proof, f"{fleet.package}::worker_registry::StakeProof")


async def assert_soulbound(holder: SuiClient, object_id: str, type_: str) -> None:
    async def transfer(tx: Transaction) -> None:
        tx.transfer([tx.object(object_id)], COLD)

    def framework(function: str) -> Any:
        async def build(tx: Transaction) -> None:
            to = [tx.address(COLD)] if function.endswith("transfer") else []
            tx.call(f"0x2::transfer::{function}", [tx.object(object_id), *to], [type_])

        return build

    for build in (transfer, *map(framework, ("public_transfer", "transfer", "public_share_object"))):
        with pytest.raises(TransactionFailed):
            await holder.execute(build)
    assert (await holder.get_object(object_id)).owner == holder.address


# === Statuses ===


async def test_the_master_sets_statuses(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    cap = await fleet.appoint(bob.require_address())
    await fleet.stake_many(alice, ["a", "b", "c"], [SUI] * 3)
    receipt = await fleet.set_statuses(bob, cap, ["a", "b", "c"], ["active", "busy", "offline"])
    changes = [(e.json["node_id"], e.json["old_status"], e.json["new_status"]) for e in receipt.events]
    assert changes == [
        (name, {"@variant": "Pending"}, {"@variant": status})
        for name, status in (("a", "Active"), ("b", "Busy"), ("c", "Offline"))
    ]
    for node_id, status in (("a", "busy"), ("b", "active"), ("c", "active")):
        await fleet.set_statuses(bob, cap, [node_id], [status])
    fleet.advance(60_000)
    changed = only(await fleet.set_statuses(bob, cap, ["c"], ["offline"]), "WorkerStatusChangedEvent")
    worker = await fleet.worker("c")
    assert worker is not None
    assert worker["status_changed_at_ms"] == changed["timestamp_ms"]
    assert int(changed["timestamp_ms"]) >= int(worker["registered_at_ms"]) + 60_000
    assert [await fleet.status(name) for name in "abc"] == ["Busy", "Active", "Offline"]


async def test_a_status_that_is_there_makes_no_event(fleet: Fleet, alice: SuiClient) -> None:
    cap = await fleet.appoint(fleet.admin.require_address())
    await fleet.stake(alice, "a")
    await fleet.set_statuses(fleet.admin, cap, ["a"], ["active"])
    before = await fleet.worker("a")
    fleet.advance(1_000)
    assert (await fleet.set_statuses(fleet.admin, cap, ["a"], ["active"])).events == []
    assert await fleet.worker("a") == before


async def test_status_rules(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    cap = await fleet.appoint(bob.require_address())
    await fleet.stake_many(alice, ["a", "jailed", "leaving"], [SUI] * 3)
    await fleet.propose("jailed")
    await fleet.unstake(alice, "leaving")
    with aborts("EEmptyBatch"):
        await fleet.set_statuses(bob, cap, [], [])
    with aborts("ELengthMismatch"):
        await fleet.set_statuses(bob, cap, ["a"], ["active", "busy"])
    for status in ("pending", "jailed", "slashed", "unbonding", "Active", ""):
        with aborts("EUnknownStatus"):
            await fleet.set_statuses(bob, cap, ["a"], [status])
    with aborts("EWorkerNotFound"):
        await fleet.set_statuses(bob, cap, ["a", "absent"], ["active", "active"])
    for node_id in ("jailed", "leaving"):
        with aborts("EInvalidStatusChange"):
            await fleet.set_statuses(bob, cap, ["a", node_id], ["active", "active"])
    assert await fleet.status("a") == "Pending"
    await fleet.execute(alice, "jailed")
    with aborts("EInvalidStatusChange"):
        await fleet.set_statuses(bob, cap, ["jailed"], ["active"])
    with pytest.raises(TransactionFailed):  # alice does not own the cap
        await fleet.set_statuses(alice, cap, ["a"], ["active"])


# === Leaving ===


async def test_leaving_pays_the_fixed_address_after_the_window(
    make_fleet: Callable[..., Any], alice: SuiClient
) -> None:
    fleet: Fleet = await make_fleet(unbonding_window_ms=DAY_MS)
    to = "0x" + "a1" * 32
    await fleet.stake(alice, "w-1", 5 * SUI, to=to)
    await fleet.create_token(alice, "w-1", digest("leaving"))
    requested = only(await fleet.unstake(alice, "w-1"), "UnstakeRequestedEvent")
    until = int(requested["timestamp_ms"]) + DAY_MS
    assert requested == {
        "registry": fleet.registry,
        "node_id": "w-1",
        "owner": alice.address,
        "unbonding_until_ms": str(until),
        "timestamp_ms": requested["timestamp_ms"],
    }
    worker = await fleet.worker("w-1")
    assert worker is not None
    assert (worker["status"], worker["unbonding_until_ms"]) == ({"@variant": "Unbonding"}, str(until))
    with aborts("EUnbondingWindowOpen"):
        await fleet.withdraw(alice, "w-1")
    fleet.advance(until - fleet.now_ms)
    receipt = await fleet.withdraw(alice, "w-1")
    withdrawn = only(receipt, "StakeWithdrawnEvent")
    assert int(withdrawn.pop("timestamp_ms")) >= until
    assert withdrawn == {
        "registry": fleet.registry,
        "node_id": "w-1",
        "recipient": to,
        "amount": str(5 * SUI),
    }
    assert await alice.balance(to) == 5 * SUI
    assert await fleet.worker("w-1") is None
    assert await fleet.worker_token("w-1") is None
    assert await fleet.owner_workers(alice.require_address()) == []
    assert (await fleet.read())["staked"] == "0"


async def test_a_freed_name_comes_without_the_old_owners_token(
    fleet: Fleet, alice: SuiClient, bob: SuiClient
) -> None:
    old = await fleet.stake(alice, "w-1")
    await fleet.create_token(alice, "w-1", digest("old owner"))
    await fleet.unstake(alice, "w-1")
    await fleet.withdraw(alice, "w-1")
    new = await fleet.stake(bob, "w-1")
    assert await fleet.worker_token("w-1") is None
    with aborts("ECommitmentReused"):
        await fleet.create_token(bob, "w-1", digest("old owner"))
    with aborts("EUnauthorizedRequest"):
        await fleet.create_token(alice, "w-1", digest("old owner again"))
    # The old proof is still in alice's wallet and counts for nothing.
    worker = await fleet.worker("w-1")
    assert worker is not None
    (old_proof,) = old.created_of("::StakeProof")
    (new_proof,) = new.created_of("::StakeProof")
    assert worker["proof"] == new_proof != old_proof


async def test_the_withdrawal_address_may_withdraw_too(
    fleet: Fleet, alice: SuiClient, bob: SuiClient
) -> None:
    await fleet.stake(alice, "w-1", to=bob.require_address())
    await fleet.unstake(alice, "w-1")
    with aborts("ENotWorkerOwner"):
        await fleet.withdraw(fleet.admin, "w-1")
    assert only(await fleet.withdraw(bob, "w-1"), "StakeWithdrawnEvent")["recipient"] == bob.address


async def test_leaving_rules(fleet: Fleet, alice: SuiClient, bob: SuiClient) -> None:
    await fleet.stake_many(alice, ["a", "b", "c"], [SUI] * 3)
    with aborts("EWorkerNotFound"):
        await fleet.unstake(alice, "absent")
    with aborts("ENotWorkerOwner"):
        await fleet.unstake(bob, "a")
    with aborts("ENotUnbonding"):
        await fleet.withdraw(alice, "a")
    await fleet.unstake(alice, "a")
    with aborts("EAlreadyUnbonding"):
        await fleet.unstake(alice, "a")
    await fleet.withdraw(alice, "a")
    with aborts("EWorkerNotFound"):
        await fleet.withdraw(alice, "a")
    await fleet.propose("b")
    with aborts("EWorkerJailed"):
        await fleet.unstake(alice, "b")
    with aborts("EWorkerJailed"):
        await fleet.withdraw(alice, "b")
    await fleet.execute(alice, "b")
    with aborts("EWorkerSlashed"):
        await fleet.unstake(alice, "b")
