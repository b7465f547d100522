"""Deciding how workers leave: request the unstake, wait for the window, withdraw. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from k3s_daas.chain.errors import ChainError, MoveAbort
from k3s_daas.registry.model import Worker, WorkerStatus, check_node_id
from k3s_daas.registry.operation import Operation, duration, names
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.registry.client import Registry

#: Workers in one transaction; each makes the node look at about four objects, of at most 1,000.
BATCH = 100


class CantLeave(ChainError):
    """A worker that may not leave now, or that isn't ours to take out."""


@dataclass(frozen=True)
class ExitPlan:
    """`waiting` maps a worker to when its stake can be withdrawn, in ms; `gone` have no record any more."""

    request: tuple[str, ...]
    withdraw: tuple[str, ...]
    waiting: Mapping[str, int]
    gone: tuple[str, ...]

    def operation(self, registry: Registry, known: Mapping[str, Worker], wallet: str) -> Operation:
        steps = sorted({*self.request, *self.withdraw})
        batches = [steps[start : start + BATCH] for start in range(0, len(steps), BATCH)]
        builds = [
            registry.leaving(
                [name for name in batch if name in self.request],
                [name for name in batch if name in self.withdraw],
            )
            for batch in batches
        ]
        paid = [known[name] for name in self.withdraw]
        meaning = []
        if self.request:
            window = max(known[name].unbonding_window_ms for name in self.request)
            locked = f" The stake stays locked, and can be slashed, for {duration(window)}." if window else ""
            meaning.append(
                f"Begins to take {names(self.request)} out of the fleet: their seal tokens stop working for "
                f"registration.{locked} There is no way back."
            )
        for address in sorted({worker.withdrawal_address for worker in paid}):
            own = [worker for worker in paid if worker.withdrawal_address == address]
            meaning.append(
                f"Pays {format_sui(sum(worker.stake_mist for worker in own))}, the stake of "
                f"{names([worker.node_id for worker in own])}, to {address}."
            )
        returned = sum(worker.stake_mist for worker in paid if worker.withdrawal_address == wallet)
        return Operation(builds, returns_mist=returned, meaning=meaning)

    def status_after(self, known: Mapping[str, Worker]) -> dict[str, str]:
        after = {name: worker.status.value for name, worker in known.items()}
        after |= dict.fromkeys(self.request, "unbonding")
        # A slashed worker's record stays, so that its name is never used again.
        after |= {n: "withdrawn" for n in self.withdraw if known[n].status != WorkerStatus.SLASHED}
        return after | dict.fromkeys(self.gone, "withdrawn")


def plan_exit(
    node_ids: Sequence[str],
    state: Literal["unbonding", "withdrawn"],
    wallet: str,
    known: Mapping[str, Worker],
    now_ms: int,
) -> ExitPlan:
    """What is missing. CantLeave when a worker is somebody else's or a slash of it is proposed."""
    request, withdraw, gone = [], [], []
    waiting: dict[str, int] = {}
    for name in dict.fromkeys(map(check_node_id, node_ids)):
        worker = known.get(name)
        if worker is None:
            gone.append(name)
            continue
        _check_rights(worker, wallet)
        leaving = worker.status in (WorkerStatus.UNBONDING, WorkerStatus.SLASHED)
        if not leaving:
            request.append(name)
            if state == "withdrawn" and worker.unbonding_window_ms == 0:
                withdraw.append(name)
            elif state == "withdrawn":
                waiting[name] = now_ms + worker.unbonding_window_ms
        elif state == "withdrawn" and worker.stake_mist:
            until = worker.unbonding_until_ms or 0
            if now_ms >= until:
                withdraw.append(name)
            else:
                waiting[name] = until
    return ExitPlan(tuple(request), tuple(withdraw), waiting, tuple(gone))


async def time_for_leaving(registry: Registry, known: Mapping[str, Worker]) -> int:
    """The chain's time in ms, as exactly as withdrawing needs it.

    The Clock object lags behind on a quiet network, so the contract is asked as well: simulated
    withdrawals find the last window that is over.
    """
    now_ms, wallet = await registry.clock_ms(), registry.chain.require_address()
    windows = sorted(
        (worker.unbonding_until_ms, name)
        for name, worker in known.items()
        if worker.unbonding_until_ms is not None
        and worker.unbonding_until_ms > now_ms
        and worker.status in (WorkerStatus.UNBONDING, WorkerStatus.SLASHED)
        and worker.stake_mist
        and wallet in (worker.owner, worker.withdrawal_address)
    )
    low, high = 0, len(windows)
    while low < high:
        middle = (low + high) // 2
        try:
            await registry.chain.simulate(registry.leaving([], [windows[middle][1]]))
        except MoveAbort as error:
            if error.name != "EUnbondingWindowOpen":
                raise
            high = middle
        else:
            low = middle + 1
    return windows[low - 1][0] if low else now_ms


def _check_rights(worker: Worker, wallet: str) -> None:
    leaving = worker.status in (WorkerStatus.UNBONDING, WorkerStatus.SLASHED)
    # Only the payment may be asked for by the address that gets it.
    if wallet != worker.owner and not (leaving and wallet == worker.withdrawal_address):
        raise CantLeave(
            f"Worker {worker.node_id} belongs to {worker.owner}, and the wallet's address is {wallet}. "
            "Use the "
            "owner's key."
        )
    if worker.status == WorkerStatus.JAILED:
        at = worker.proposal.executable_at_ms if worker.proposal else 0
        raise CantLeave(
            f"Worker {worker.node_id} is jailed: a slash of it is proposed (executable at {at} ms since "
            "1970), and "
            "it can't leave until that is executed or cancelled. Ask the registry's arbiter to cancel it."
        )
