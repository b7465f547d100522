"""Whatever is called in whatever order: no stake is lost, made, or paid to anybody but its fixed address."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from contract_fleet import SUI, Fleet

from k3s_daas.chain import MoveAbort, SuiClient

pytestmark = pytest.mark.asyncio(loop_scope="session")
STEPS = 200
ACTIONS = [
    "stake",
    "stake",
    "batch",
    "unstake",
    "withdraw",
    "withdraw",
    "propose",
    "cancel",
    "execute",
    "execute",
    "status",
    "wait",
    "wait",
]
NODE_IDS = [f"w-{number}" for number in range(6)]
SLASH_WINDOW_MS = 3_600_000
UNBONDING_WINDOW_MS = 7_200_000
SHARE_BPS = 3_333


@dataclass(frozen=True)
class Worker:
    owner: str
    to: str
    stake: int
    status: str = "Pending"
    previous: str = ""
    executable_at_ms: int = 0
    until_ms: int = 0


class Model:
    """What the rules say, written down a second time; each method returns the error's name, or None."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.treasury = 0
        self.deposited = 0
        self.paid: dict[str, int] = {}

    @property
    def staked(self) -> int:
        return sum(worker.stake for worker in self.workers.values())

    def stake(self, owner: str, to: str, batch: dict[str, int]) -> str | None:
        for node_id, amount in batch.items():
            if node_id in self.workers:
                return "EWorkerAlreadyExists"
            if amount < SUI:
                return "EInsufficientStake"
        for node_id, amount in batch.items():
            self.workers[node_id] = Worker(owner, to, amount)
            self.deposited += amount
        return None

    def unstake(self, sender: str, node_id: str, now_ms: int) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.owner != sender:
            return "ENotWorkerOwner"
        refusals = {
            "Jailed": "EWorkerJailed",
            "Slashed": "EWorkerSlashed",
            "Unbonding": "EAlreadyUnbonding",
        }
        if worker.status in refusals:
            return refusals[worker.status]
        self.workers[node_id] = replace(worker, status="Unbonding", until_ms=now_ms + UNBONDING_WINDOW_MS)
        return None

    def withdraw(self, sender: str, node_id: str, now_ms: int) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if sender not in (worker.owner, worker.to):
            return "ENotWorkerOwner"
        if worker.status == "Jailed":
            return "EWorkerJailed"
        if worker.status not in ("Unbonding", "Slashed"):
            return "ENotUnbonding"
        if worker.stake == 0:
            return "ENothingToWithdraw"
        if now_ms < worker.until_ms:
            return "EUnbondingWindowOpen"
        self.paid[worker.to] = self.paid.get(worker.to, 0) + worker.stake
        if worker.status == "Unbonding":
            del self.workers[node_id]
        else:
            self.workers[node_id] = replace(worker, stake=0)
        return None

    def propose(self, node_id: str, now_ms: int) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status == "Jailed":
            return "EProposalPending"
        if worker.status == "Slashed":
            return "EWorkerSlashed"
        if worker.status == "Unbonding" and now_ms >= worker.until_ms:
            return "EUnbondingOver"
        self.workers[node_id] = replace(
            worker, status="Jailed", previous=worker.status, executable_at_ms=now_ms + SLASH_WINDOW_MS
        )
        return None

    def cancel(self, node_id: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status != "Jailed":
            return "ENoProposal"
        self.workers[node_id] = replace(worker, status=worker.previous)
        return None

    def execute(self, node_id: str, now_ms: int) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status != "Jailed":
            return "ENoProposal"
        if now_ms < worker.executable_at_ms:
            return "ESlashWindowOpen"
        share = worker.stake * SHARE_BPS // 10_000
        self.treasury += share
        self.workers[node_id] = replace(
            worker, status="Slashed", stake=worker.stake - share, until_ms=now_ms + UNBONDING_WINDOW_MS
        )
        return None

    def set_status(self, node_id: str, status: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status not in ("Pending", "Active", "Busy", "Offline"):
            return "EInvalidStatusChange"
        self.workers[node_id] = replace(worker, status=status.title())
        return None


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_calls_keep_the_money_right(
    make_fleet: Callable[..., Any], alice: SuiClient, bob: SuiClient, seed: int
) -> None:
    fleet: Fleet = await make_fleet(
        slash_window_ms=SLASH_WINDOW_MS, unbonding_window_ms=UNBONDING_WINDOW_MS, slash_share_bps=SHARE_BPS
    )
    cap = await fleet.appoint(fleet.admin.require_address())
    cold = [f"0x{seed:02x}{number:062x}" for number in range(2)]
    model, dice, log = Model(), random.Random(seed), []  # noqa: S311 - reproducible on purpose
    burnt = 0  # slashed names are gone for ever: new ones keep the game going

    async def step() -> None:
        nonlocal burnt
        slashed = sum(1 for worker in model.workers.values() if worker.status == "Slashed")
        burnt = max(burnt, slashed)
        names = [*NODE_IDS, *(f"x-{number}" for number in range(burnt))]
        node_id, wallet = dice.choice(names), dice.choice([alice, bob])
        sender = wallet.require_address()
        action = dice.choice(ACTIONS)
        log.append(f"{action} {node_id} by {'alice' if wallet is alice else 'bob'}")
        # The clock runs on by itself: the model gets the time of the call, with waits that are never near it.
        match action:
            case "wait":
                fleet.advance(dice.choice([SLASH_WINDOW_MS // 2, UNBONDING_WINDOW_MS]))
                return
            case "stake":
                amount, to = SUI + dice.randrange(-1, 9), dice.choice(cold)
                expected = model.stake(sender, to, {node_id: amount})
                call = fleet.stake(wallet, node_id, amount, to)
            case "batch":
                batch = {name: SUI + dice.randrange(9) for name in dice.sample(names, 2)}
                to = dice.choice(cold)
                expected = model.stake(sender, to, batch)
                call = fleet.stake_many(wallet, list(batch), list(batch.values()), to=to)
            case "unstake":
                expected = model.unstake(sender, node_id, fleet.now_ms)
                call = fleet.unstake(wallet, node_id)
            case "withdraw":
                expected = model.withdraw(sender, node_id, fleet.now_ms)
                call = fleet.withdraw(wallet, node_id)
            case "propose":
                expected = model.propose(node_id, fleet.now_ms)
                call = fleet.propose(node_id)
            case "cancel":
                expected = model.cancel(node_id)
                call = fleet.cancel(node_id)
            case "execute":
                expected = model.execute(node_id, fleet.now_ms)
                call = fleet.execute(wallet, node_id)
            case _:
                status = dice.choice(["active", "busy", "offline"])
                expected = model.set_status(node_id, status)
                call = fleet.set_statuses(fleet.admin, cap, [node_id], [status])
        found = None
        try:
            await call
        except MoveAbort as error:
            found = error.name
        log[-1] += f": {found}"
        assert found == expected, log

    async def compare() -> None:
        registry = await fleet.read()
        on_chain = {w["node_id"]: (w["status"]["@variant"], int(w["stake"])) for w in await fleet.workers()}
        assert on_chain == {name: (w.status, w.stake) for name, w in model.workers.items()}, log
        staked, treasury = int(registry["staked"]), int(registry["treasury"])
        assert staked == sum(stake for _, stake in on_chain.values()), log
        assert treasury == model.treasury, log
        assert model.deposited == staked + treasury + sum(model.paid.values()), log
        for address in cold:
            assert await alice.balance(address) == model.paid.get(address, 0), log

    for number in range(STEPS):
        await step()
        registry = await fleet.read()
        assert (int(registry["staked"]), int(registry["treasury"])) == (model.staked, model.treasury), log
        if number % 10 == 9:
            await compare()
    await compare()
    outcomes = " ".join(log)
    for action in ("stake", "batch", "unstake", "withdraw", "propose", "cancel", "execute", "status"):
        assert f"{action} " in outcomes, "the dice never tried it: change the seed"
    assert model.paid, "nothing was ever withdrawn: change the seed"
    assert model.treasury, "nobody was ever slashed: change the seed"
