"""Deciding a slash: its next step, what it takes, and that no one wallet can both propose and judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from k3s_daas.chain.errors import ChainError, MoveAbort
from k3s_daas.registry.caps import check_separate
from k3s_daas.registry.client import MissingCap, Registry
from k3s_daas.registry.model import Worker, WorkerStatus
from k3s_daas.registry.operation import REASONS, Operation, duration, slash_conditions
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Build

#: How long after its window a proposal can be executed before it lapses: 7 days.
LAPSE_MS = 604_800_000
REASON_CODES = {"conflicting_heartbeats": 1, "refused_drain": 2, "wrong_result": 3, "operator_decision": 4}


class CantSlash(ChainError):
    """A slash that isn't possible, or by whom it may not be."""


async def plan_slash(
    registry: Registry,
    worker: Worker,
    state: Literal["proposed", "cancelled", "executed", "lapsed"],
    reason: int,
    evidence_hash: bytes,
) -> tuple[str, Operation]:
    """(status afterwards, what to send). CantSlash, MissingCap, or the contract's refusal as MoveAbort."""
    now, jailed = worker.status.value, worker.status == WorkerStatus.JAILED
    if state in ("cancelled", "lapsed"):
        return await _freeing(registry, worker, lapsed=state == "lapsed")
    if worker.status == WorkerStatus.SLASHED or (jailed and state == "proposed"):
        return now, Operation()
    share = worker.stake_mist * worker.slash_share_bps // 10_000
    takes = f"takes {format_sui(share)} of the {format_sui(worker.stake_mist)} that {worker.node_id} staked"
    if jailed:
        build = registry.executing(worker.node_id)
        if await _too_early(registry, build, "ESlashWindowOpen"):
            return now, Operation()
        meaning = [f"Executes the slash, which {takes}. This is final."]
        return "slashed", Operation([build], meaning=meaning, conditions=slash_conditions(worker))
    await _check_wallet(registry)
    at_once = state == "executed" and worker.slash_window_ms == 0
    meaning = [
        f"Proposes a slash of {worker.node_id} for {REASONS[reason - 1]}: it is jailed and its node cordoned."
    ]
    meaning.append(
        f"Executes it at once, which {takes}. This is final."
        if at_once
        else f"Executed {duration(worker.slash_window_ms)} from now at the earliest, by anybody, it "
        f"{takes}. Until then the arbiter can cancel it."
    )
    build = await registry.proposing(worker.node_id, reason, evidence_hash, execute=at_once)
    operation = Operation([build], meaning=meaning, conditions=slash_conditions(worker))
    return ("slashed" if at_once else "jailed"), operation


async def _freeing(registry: Registry, worker: Worker, *, lapsed: bool) -> tuple[str, Operation]:
    """Ending a proposal without a slash: the arbiter's decision, or that nobody executed it in time."""
    name, proposal = worker.node_id, worker.proposal
    if worker.status == WorkerStatus.SLASHED:
        what = "lapse" if lapsed else "cancel"
        raise CantSlash(f"Worker {name} is slashed, which is final: there is nothing left to {what}.")
    if proposal is None:
        return worker.status.value, Operation()
    if not lapsed:
        build = await registry.cancelling(name)
        meaning = f"Cancels the slash of {name}, which is {proposal.previous} again."
    else:
        build = registry.lapsing(name)
        if await _too_early(registry, build, "ENotLapsed"):
            return worker.status.value, Operation()
        meaning = f"Ends the slash of {name}, which nobody executed in time: it is {proposal.previous} again."
    return proposal.previous.value, Operation([build], meaning=[meaning])


async def _too_early(registry: Registry, build: Build, refusal: str) -> bool:
    """Whether the contract, which knows the time best, refuses by that name; other refusals are raised."""
    try:
        await registry.chain.simulate(build)
    except MoveAbort as error:
        if error.name != refusal:
            raise
        return True
    return False


async def _check_wallet(registry: Registry) -> None:
    """The one who proposes must not be the one who judges, whatever the inventory says."""
    await registry.cap("SlasherCap")
    try:
        await registry.cap("ArbiterCap")
    except MissingCap:
        return
    wallet = registry.chain.require_address()
    check_separate(registry.chain.network, wallet, wallet)
