"""What other contracts read: probe.move, compiled into a copy of the package, asserts it on-chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio
from contract_fleet import DAY_MS, SUI, Fleet, Network, Terms, aborts, create_fleet, digest

from k3s_daas.chain import MoveAbort, SuiClient, Transaction
from k3s_daas.chain.transaction import Arg

pytestmark = pytest.mark.asyncio(loop_scope="session")
Check = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(hooked: Network, admin: SuiClient) -> Fleet:
    return await create_fleet(hooked, admin, Terms())


@pytest.fixture
def check(fleet: Fleet, alice: SuiClient) -> Check:
    """`await check("worker", lambda tx: [...])` runs probe::check_worker on-chain."""

    async def run(what: str, args: Callable[[Transaction], Sequence[Arg]]) -> None:
        await fleet.call(alice, f"probe::check_{what}", args)

    return run


async def test_a_worker_through_its_life(fleet: Fleet, alice: SuiClient, check: Check) -> None:
    async def expect(status: str, stake: int = SUI, active: bool = False) -> None:
        await check(
            "worker",
            lambda tx: [
                tx.string("w-1"),
                tx.address(alice.require_address()),
                tx.string(status),
                tx.u64(stake),
                tx.boolean(active),
            ],
        )

    cap = await fleet.appoint(fleet.admin.require_address())
    await fleet.stake(alice, "w-1")
    await expect("pending")
    for status in ("active", "busy", "offline"):
        await fleet.set_statuses(fleet.admin, cap, ["w-1"], [status])
        await expect(status, active=status in ("active", "busy"))
    await fleet.unstake(alice, "w-1")
    await expect("unbonding")
    await fleet.stake(alice, "w-2")
    await fleet.withdraw(alice, "w-1")
    await fleet.stake(alice, "w-1")
    await fleet.propose("w-1")
    await expect("jailed")
    await fleet.execute(alice, "w-1")
    await expect("slashed", SUI // 2)
    with pytest.raises(MoveAbort):  # the probe does notice
        await expect("slashed", SUI)


async def test_what_is_not_there(fleet: Fleet, bob: SuiClient, check: Check) -> None:
    await check("unknown", lambda tx: [tx.string("absent"), tx.address(bob.require_address())])
    with aborts("EWorkerNotFound"):
        await fleet.call(bob, "worker_registry::worker_stake", lambda tx: [tx.string("absent")])


async def test_the_registry_itself(fleet: Fleet, alice: SuiClient, check: Check) -> None:
    await fleet.stake_many(alice, ["a", "b"], [SUI, 3 * SUI])
    await fleet.propose("b")
    await fleet.execute(alice, "b")
    await fleet.appoint(alice.require_address())
    await check(
        "registry",
        lambda tx: [tx.u64(5 * SUI // 2), tx.u64(3 * SUI // 2), tx.boolean(False), tx.boolean(True)],
    )


async def test_a_proof_is_live_while_its_worker_is(fleet: Fleet, alice: SuiClient, check: Check) -> None:
    async def expect(proof: str, live: bool) -> None:
        await check("proof", lambda tx: [tx.object(proof), tx.boolean(live)])

    (first,) = (await fleet.stake(alice, "w-1")).created_of("::StakeProof")
    await expect(first, True)
    await fleet.unstake(alice, "w-1")
    await fleet.withdraw(alice, "w-1")
    await expect(first, False)
    (second,) = (await fleet.stake(alice, "w-1")).created_of("::StakeProof")
    await expect(first, False)
    await expect(second, True)


async def test_seal_tokens(fleet: Fleet, alice: SuiClient, check: Check) -> None:
    await fleet.stake(alice, "w-1")
    expires = fleet.now_ms + DAY_MS
    await fleet.create_token(alice, "w-1", digest("getter 1"), expires)
    await fleet.rotate_token(alice, "w-1", digest("getter 2"), expires)
    await fleet.create_owner_token(alice, digest("getter 3"), expires)

    async def expect(revoked: bool) -> None:
        token = digest("getter 2")
        await check(
            "worker_token",
            lambda tx: [tx.string("w-1"), tx.data(token), tx.u64(2), tx.u64(expires), tx.boolean(revoked)],
        )

    await expect(False)
    await fleet.revoke_token(alice, "w-1")
    await expect(True)
    await check("owner_token", lambda tx: [tx.address(alice.require_address()), tx.u64(1)])
