"""Taking this worker out, as far as a host without a wallet can: drain the node, write the transaction.

The transaction is simulated before anything is drained: a node is not emptied for an owner who can't leave.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

from k3s_daas.chain.errors import ChainError, ChainUnreachable, InsufficientGas
from k3s_daas.chain.model import Unsigned
from k3s_daas.registry.model import Worker, WorkerStatus

from .answers import Draining, Unstaked
from .clock import Clock
from .errors import Exit, Refusal
from .findings import chain_refusal, master_refusal, slashed_refusal
from .master_client import Drained, MasterRefused, MasterUnreachable
from .watcher import Watcher

#: Builds the unsigned transaction by which `owner` requests the unstake of `node_id`. Raises ChainError.
BuildLeave = Callable[[str, str], Awaitable[Unsigned]]

# One call waits this long for the node to be empty; the next call goes on.
DRAIN_WAIT_S = 20.0
DRAIN_POLL_S = 2.0
BUILD_TIMEOUT_S = 20.0


class Unstaker:
    """One unstake at a time."""

    def __init__(self, watcher: Watcher, clock: Clock, build: BuildLeave) -> None:
        self._watcher = watcher
        self._clock = clock
        self._build = build
        self._busy = asyncio.Lock()

    async def unstake(self) -> Unstaked | Draining:
        """Raises Refusal."""
        if self._busy.locked():
            raise _refused(
                "busy", "an unstake is under way", "another request", "one at a time", "wait for it"
            )
        async with self._busy:
            worker = await self._worker()
            unsigned = await self._transaction(worker)
            left = await self._drain(worker.node_id)
        if not left.drained:
            return Draining(
                status="draining",
                node_id=worker.node_id,
                pods_left=left.pods_left,
                waiting_for=left.waiting_for,
                fix="call again until the node is empty; a disruption budget may hold a pod back",
            )
        return Unstaked(
            status="drained",
            node_id=worker.node_id,
            sender=unsigned.sender,
            transaction=base64.b64encode(unsigned.encoded).decode("ascii"),
            digest=unsigned.digest,
            gas_budget_mist=str(unsigned.gas_budget_mist),
            stake_mist=str(worker.stake_mist),
            unbonding_window_ms=worker.unbonding_window_ms,
            fix="sign it where the owner's wallet is: `sui keytool sign --address … --data TRANSACTION`, "
            "then `sui client execute-signed-tx`; call again if a coin or object moved on meanwhile",
        )

    async def _worker(self) -> Worker:
        config = self._watcher.config
        view = await self._watcher.look()
        if view.sighting is None:
            raise chain_refusal(config, view)
        worker = view.sighting.worker
        if worker is None:
            raise _refused(
                "worker_unknown",
                f"the registry has no worker {config.node_id}",
                "no such record",
                "a staked worker",
                "nothing is staked for this node id, so there is nothing to take out",
            )
        if worker.status is WorkerStatus.SLASHED:
            raise slashed_refusal(config)
        if worker.status in (WorkerStatus.JAILED, WorkerStatus.UNBONDING):
            raise _refused(
                "worker_not_eligible",
                f"worker {config.node_id} can't request its unstake while it is {worker.status}",
                f"status {worker.status}",
                "pending, active, busy or offline",
                "withdraw when the unbonding window is over"
                if worker.status is WorkerStatus.UNBONDING
                else "wait until the slash is cancelled or executed",
            )
        return worker

    async def _transaction(self, worker: Worker) -> Unsigned:
        try:
            async with asyncio.timeout(BUILD_TIMEOUT_S):
                return await self._build(worker.node_id, worker.owner)
        except (ChainUnreachable, TimeoutError):
            raise Refusal(
                "chain_unreachable",
                "the transaction can't be written: no Sui endpoint answers",
                found="no answer",
                wanted="answers of a Sui endpoint",
                fix="check the endpoints, DNS and this host's way out",
                exit_code=Exit.CHAIN_UNREACHABLE,
            ) from None
        except InsufficientGas as error:
            raise _refused(
                "owner_without_gas",
                "the owner can't pay for the transaction",
                f"{worker.owner} holds {error.balance_mist} MIST",
                f"{error.needed_mist} MIST",
                "send the owner's address some SUI",
            ) from None
        except ChainError as error:
            raise _refused(
                "unstake_refused",
                "the chain would refuse the transaction",
                str(error)[:400],
                "a transaction that works",
                "see the contract's message",
            ) from None

    async def _drain(self, node_id: str) -> Drained:
        end = self._clock.monotonic() + DRAIN_WAIT_S
        client = await self._watcher.master()
        while True:
            try:
                left = await client.drain(node_id, self._clock.now_ms())
            except (MasterRefused, MasterUnreachable) as error:
                raise master_refusal(error) from None
            if left.drained or self._clock.monotonic() >= end:
                return left
            await self._clock.sleep(DRAIN_POLL_S)


def _refused(code: str, message: str, found: str, wanted: str, fix: str) -> Refusal:
    return Refusal(code, message, found=found, wanted=wanted, fix=fix, exit_code=Exit.MASTER_REFUSED)
