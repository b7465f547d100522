"""slashing: propose, cancel, execute, and what is left to the owner."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from contract_fleet import DAY_MS, SUI, Fleet, aborts, digest, only

from k3s_daas.chain import SuiClient, Transaction

pytestmark = pytest.mark.asyncio(loop_scope="session")
COLD = "0x" + "5c" * 32


async def test_propose_jails_and_execute_takes_the_share(
    make_fleet: Callable[..., Any], alice: SuiClient, bob: SuiClient
) -> None:
    fleet: Fleet = await make_fleet(
        slash_window_ms=DAY_MS, unbonding_window_ms=2 * DAY_MS, slash_share_bps=2_500
    )
    stake = 3 * SUI + 3
    share = stake * 2_500 // 10_000
    await fleet.stake(alice, "w-1", stake, to=COLD)
    evidence = digest("evidence")
    receipt = await fleet.propose("w-1", 1, evidence)
    proposed = only(receipt, "SlashProposedEvent")
    assert proposed == {
        "registry": fleet.registry,
        "node_id": "w-1",
        "reason": 1,
        "evidence_hash": base64.b64encode(evidence).decode(),
        "executable_at_ms": proposed["executable_at_ms"],
    }
    assert only(receipt, "WorkerStatusChangedEvent")["new_status"] == {"@variant": "Jailed"}
    worker = await fleet.worker("w-1")
    assert worker is not None
    executable = int(proposed["executable_at_ms"])
    assert worker["proposal"] == {
        "reason": 1,
        "evidence_hash": proposed["evidence_hash"],
        "proposed_at_ms": str(executable - DAY_MS),
        "executable_at_ms": str(executable),
        "previous": {"@variant": "Pending"},
    }
    with aborts("ESlashWindowOpen"):
        await fleet.execute(bob, "w-1")
    with aborts("EProposalPending"):
        await fleet.propose("w-1")
    fleet.advance(executable - fleet.now_ms)

    receipt = await fleet.execute(bob, "w-1")  # anybody
    slashed = only(receipt, "WorkerSlashedEvent")
    at = int(slashed.pop("timestamp_ms"))
    assert slashed == {
        "registry": fleet.registry,
        "node_id": "w-1",
        "owner": alice.address,
        "amount": str(share),
        "remaining": str(stake - share),
    }
    worker = await fleet.worker("w-1")
    assert worker is not None
    assert (worker["status"], worker["stake"], worker["proposal"], worker["unbonding_until_ms"]) == (
        {"@variant": "Slashed"},
        str(stake - share),
        None,
        str(at + 2 * DAY_MS),
    )
    registry = await fleet.read()
    assert (registry["staked"], registry["treasury"]) == (str(stake - share), str(share))

    with aborts("EUnbondingWindowOpen"):
        await fleet.withdraw(alice, "w-1")
    fleet.advance(at + 2 * DAY_MS - fleet.now_ms)
    await fleet.withdraw(alice, "w-1")
    assert await alice.balance(COLD) == stake - share
    with aborts("ENothingToWithdraw"):
        await fleet.withdraw(alice, "w-1")
    registry = await fleet.read()
    assert (registry["staked"], registry["treasury"]) == ("0", str(share))
    assert await fleet.owner_workers(alice.require_address()) == []
    for wallet in (alice, bob):
        with aborts("EWorkerAlreadyExists"):  # the name is burnt
            await fleet.stake(wallet, "w-1")


async def test_a_window_of_0_lets_one_transaction_do_both(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")

    async def build(tx: Transaction) -> None:
        registry, clock = tx.object(fleet.registry), tx.object("0x6", mutable=False)
        name = tx.string("w-1")
        tx.call(
            f"{fleet.package}::slashing::propose_slash",
            [registry, tx.object(fleet.slasher_cap), name, tx.u8(4), tx.data(bytes(32)), clock],
        )
        tx.call(f"{fleet.package}::slashing::execute_slash", [registry, name, clock])

    receipt = await fleet.admin.execute(build)
    assert [event.type.rsplit("::", 1)[1] for event in receipt.events] == [
        "WorkerStatusChangedEvent",
        "SlashProposedEvent",
        "WorkerStatusChangedEvent",
        "WorkerSlashedEvent",
    ]
    assert await fleet.status("w-1") == "Slashed"


@pytest.mark.parametrize("status", ["active", "busy", "offline"])
async def test_cancel_gives_back_the_status(fleet: Fleet, alice: SuiClient, status: str) -> None:
    await fleet.stake(alice, "w-1")
    cap = await fleet.appoint(fleet.admin.require_address())
    await fleet.set_statuses(fleet.admin, cap, ["w-1"], [status])
    await fleet.propose("w-1")
    cancelled = only(await fleet.cancel("w-1"), "SlashCancelledEvent")
    assert (cancelled["registry"], cancelled["node_id"]) == (fleet.registry, "w-1")
    worker = await fleet.worker("w-1")
    assert worker is not None
    assert (worker["status"], worker["proposal"]) == ({"@variant": status.title()}, None)
    with aborts("ENoProposal"):
        await fleet.cancel("w-1")
    with aborts("ENoProposal"):
        await fleet.execute(alice, "w-1")
    await fleet.unstake(alice, "w-1")
    await fleet.withdraw(alice, "w-1")


async def test_leaving_does_not_save_from_a_slash(make_fleet: Callable[..., Any], alice: SuiClient) -> None:
    fleet: Fleet = await make_fleet(unbonding_window_ms=DAY_MS)
    await fleet.stake_many(alice, ["a", "b"], [SUI, SUI])
    await fleet.unstake(alice, "a")
    await fleet.propose("a")
    fleet.advance(DAY_MS)
    with aborts("EWorkerJailed"):  # the unbonding window is over, the proposal is not
        await fleet.withdraw(alice, "a")
    await fleet.cancel("a")
    assert await fleet.status("a") == "Unbonding"
    with aborts("EUnbondingOver"):
        await fleet.propose("a")
    await fleet.withdraw(alice, "a")

    await fleet.unstake(alice, "b")
    await fleet.propose("b")
    await fleet.execute(alice, "b")
    with aborts("EUnbondingWindowOpen"):
        await fleet.withdraw(alice, "b")


async def test_proposal_rules(fleet: Fleet, alice: SuiClient) -> None:
    await fleet.stake(alice, "w-1")
    for reason in (0, 5, 255):
        with aborts("EUnknownReason"):
            await fleet.propose("w-1", reason)
    for evidence in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidEvidence"):
            await fleet.propose("w-1", evidence=evidence)
    with aborts("EWorkerNotFound"):
        await fleet.propose("absent")
    with aborts("EWorkerNotFound"):
        await fleet.execute(alice, "absent")
    with aborts("ENoProposal"):
        await fleet.execute(alice, "w-1")
    await fleet.propose("w-1")
    await fleet.execute(alice, "w-1")
    with aborts("EWorkerSlashed"):
        await fleet.propose("w-1")


async def test_a_share_of_nothing_takes_nothing(make_fleet: Callable[..., Any], alice: SuiClient) -> None:
    fleet: Fleet = await make_fleet(slash_share_bps=0)
    await fleet.stake(alice, "w-1")
    await fleet.propose("w-1")
    slashed = only(await fleet.execute(alice, "w-1"), "WorkerSlashedEvent")
    assert (slashed["amount"], slashed["remaining"]) == ("0", str(SUI))
