"""Requests to run something on the fleet: which are open, whom to ask, and submitting one.

The chain gets the payload's SHA-256 only. The deposit is what the worker earns; it comes back when the
request times out. Amounts in MIST, times in ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from k3s_daas.chain.errors import ChainError, MalformedRecord
from k3s_daas.registry.client import CLOCK_ID, Registry
from k3s_daas.registry.model import OpenRequest, Worker, WorkerStatus, check_node_id
from k3s_daas.registry.operation import Operation, duration, names
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Transaction

MAX_CANDIDATES = 32
MIN_DEPOSIT_MIST = 1_000_000
#: From this priority on the last slot of a worker, and a busy worker, may be taken.
URGENT_PRIORITY = 8
REQUEST_WINDOW_MS = 600_000
_SLOTS = 10
#: Of one StakeProof, of which an owner has one for each of its workers.
MAX_OPEN_REQUESTS = 10


class CantSubmit(ChainError):
    """A request that the contract would refuse."""


def candidates_of(workers: Iterable[Worker], priority: int) -> list[str]:
    """The up to 32 workers that the contract would think best of, by its own rule."""
    urgent = priority >= URGENT_PRIORITY
    takes = (WorkerStatus.ACTIVE, WorkerStatus.BUSY) if urgent else (WorkerStatus.ACTIVE,)
    fit = [
        worker
        for worker in workers
        if worker.status in takes
        and worker.stake_mist >= worker.required_stake_mist
        and worker.workload < (_SLOTS if urgent else _SLOTS - 1)
    ]

    def score(worker: Worker) -> int:
        return worker.reputation * 10 if not worker.workload else worker.reputation // (worker.workload + 1)

    fit.sort(key=lambda worker: (-score(worker), worker.node_id))
    return [worker.node_id for worker in fit[:MAX_CANDIDATES]]


async def plan_request(
    registry: Registry,
    payload_hash: bytes,
    priority: int,
    deposit_mist: int,
    candidates: Sequence[str] | None,
) -> tuple[OpenRequest | None, list[str], Operation]:
    """(the wallet's open request of that payload, candidates, what to send).

    CantSubmit without a candidate, or a stake of one's own with fewer than 10 open requests. Without
    `candidates` the best are chosen.
    """
    wallet = registry.chain.require_address()
    _check(priority, deposit_mist, candidates)
    known = await registry.open_requests()
    for request in known:
        if (request.requester, request.payload_hash) == (wallet, payload_hash):
            return request, [], Operation()
    workers = await registry.workers()
    proof = _live_proof(workers, wallet, Counter(request.proof_id for request in known))
    asked = candidates_of(workers, priority) if candidates is None else list(candidates)
    if not asked:
        raise CantSubmit(
            f"Found none of {len(workers)} workers active with a free slot and the stake its reputation "
            "asks for, wanted one. Wait, or raise the priority to 8 for the reserved slots."
        )

    async def build(tx: Transaction) -> None:
        (deposit,) = tx.split([deposit_mist])
        args = [tx.object(registry.deployment.registry_id), tx.object(proof), deposit, tx.data(payload_hash)]
        args += [tx.u8(priority), tx.strings(asked), tx.object(CLOCK_ID, mutable=False)]
        tx.call(f"{registry.deployment.package_id}::k8s_scheduler::submit_k8s_request", args)

    meaning = [
        f"Submits the request with payload hash {payload_hash.hex()}, priority {priority}, to one of "
        f"{names(asked)}.",
        f"Its deposit of {format_sui(deposit_mist)} is the worker's once the request is completed, and "
        f"comes back when it isn't within {duration(REQUEST_WINDOW_MS)}.",
    ]
    return None, asked, Operation([build], deposit_mist, meaning=meaning)


def _check(priority: int, deposit_mist: int, candidates: Sequence[str] | None) -> None:
    if not 0 <= priority <= 10:
        raise CantSubmit(f"Found priority {priority}, wanted 0 to 10.")
    if deposit_mist < MIN_DEPOSIT_MIST:
        raise CantSubmit(f"Found a deposit of {format_sui(deposit_mist)}, wanted at least 0.001 SUI.")
    if candidates is not None:
        for name in candidates:
            check_node_id(name)
        if not 0 < len(candidates) <= MAX_CANDIDATES:
            raise CantSubmit(f"Found {len(candidates)} candidates, wanted 1 to {MAX_CANDIDATES}.")


def _live_proof(workers: Iterable[Worker], wallet: str, asked: Counter[str]) -> str:
    """The wallet's live StakeProof with the fewest open requests, which `asked` counts."""
    out = (WorkerStatus.JAILED, WorkerStatus.SLASHED, WorkerStatus.UNBONDING)
    own = [worker for worker in workers if worker.owner == wallet and worker.status not in out]
    if not own:
        raise CantSubmit(
            f"Found no staked worker of {wallet} in service, wanted one: only owners may submit requests. "
            "Stake for a worker first, or use an owner's key."
        )
    best = min(own, key=lambda worker: asked[worker.proof_id])
    if not best.proof_id.startswith("0x"):
        raise MalformedRecord(f"Worker {best.node_id} has proof {best.proof_id!r}, wanted an id")
    if asked[best.proof_id] >= MAX_OPEN_REQUESTS:
        raise CantSubmit(
            f"Found {MAX_OPEN_REQUESTS} open requests for each of the {len(own)} workers that {wallet} "
            "staked for, wanted fewer. Wait until one is completed or timed out (10 minutes), or stake for "
            "more workers."
        )
    return best.proof_id
