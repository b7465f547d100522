"""What the contracts' rules about money say, written down a second time.

Each method does what the function of its name does and returns the name of the error, or None.
"""

from __future__ import annotations

from dataclasses import dataclass

from contract_masters import Masters

SUI = 1_000_000_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
LAPSE_MS = 7 * DAY_MS
PERIOD_MS = 180 * DAY_MS
REQUEST_MS = 600_000
SLOTS = 10
MAX_OPEN = 10
IN_SERVICE = ("Pending", "Active", "Busy", "Offline")


@dataclass(frozen=True)
class Terms:
    min_stake: int = SUI
    slash_window_ms: int = HOUR_MS
    unbonding_window_ms: int = 2 * HOUR_MS
    slash_share_bps: int = 3_333


@dataclass
class Worker:
    owner: str
    to: str
    stake: int
    proof: str
    terms: Terms
    since_ms: int
    reported_ms: int
    status: str = "Pending"
    previous: str = ""
    executable_at_ms: int = 0
    until_ms: int = 0
    reputation: int = 100
    workload: int = 0
    earned: int = 0
    epoch: int = 0
    earned_in_epoch: int = 0
    proposals: int = 0

    @property
    def understaked(self) -> bool:
        return self.stake < self.terms.min_stake * (200 - self.reputation) // 100

    def score(self, urgent: bool) -> int | None:
        at_work = self.status == "Active" or (urgent and self.status == "Busy")
        if not at_work or self.understaked or self.workload >= SLOTS - (not urgent):
            return None
        return self.reputation * 10 if self.workload == 0 else self.reputation // (self.workload + 1)


@dataclass
class Request:
    requester: str
    proof: str
    node_id: str
    deposit: int
    deadline_ms: int
    claimed: bool = False


class Model:
    def __init__(self) -> None:
        self.terms = Terms()
        self.masters = Masters()
        self.workers: dict[str, Worker] = {}
        self.requests: dict[int, Request] = {}
        self.last_request = 0
        self.treasury = self.pool = 0
        self.rates = (0, 0, 0)
        self.proposals = self.proposals_epoch = 0
        # Money in, and money out by address.
        self.deposited = self.funded = 0
        self.withdrawn: dict[str, int] = {}
        self.paid_out: dict[str, int] = {}

    @property
    def staked(self) -> int:
        return sum(worker.stake for worker in self.workers.values())

    @property
    def earned(self) -> int:
        return sum(worker.earned for worker in self.workers.values())

    @property
    def deposits(self) -> int:
        return sum(request.deposit for request in self.requests.values())

    @property
    def held(self) -> int:
        return self.staked + self.treasury + self.pool + self.earned + self.deposits

    # worker_registry

    def stake(self, owner: str, to: str, batch: dict[str, int], now_ms: int) -> str | None:
        for node_id, amount in batch.items():
            if node_id in self.workers:
                return "EWorkerAlreadyExists"
            if amount < self.terms.min_stake:
                return "EInsufficientStake"
        for node_id, amount in batch.items():
            self.workers[node_id] = Worker(owner, to, amount, "", self.terms, now_ms, now_ms)
            self.deposited += amount
        return None

    def _leaving(self, node_id: str, sender: str, unbonding: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.owner != sender:
            return "ENotWorkerOwner"
        found = {"Jailed": "EWorkerJailed", "Slashed": "EWorkerSlashed", "Unbonding": unbonding}
        return found.get(worker.status)

    def add_stake(self, sender: str, node_id: str, amount: int) -> str | None:
        if amount == 0:
            return "ENoPayment"
        refusal = self._leaving(node_id, sender, "EWorkerLeaving")
        if refusal is None:
            self.workers[node_id].stake += amount
            self.deposited += amount
        return refusal

    def unstake(self, sender: str, node_id: str, now_ms: int) -> str | None:
        refusal = self._leaving(node_id, sender, "EAlreadyUnbonding")
        if refusal is None:
            worker = self.workers[node_id]
            worker.status = "Unbonding"
            worker.until_ms = now_ms + worker.terms.unbonding_window_ms
        return refusal

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
        if worker.status == "Unbonding" and worker.workload:
            return "ERequestsOpen"
        self.withdrawn[worker.to] = self.withdrawn.get(worker.to, 0) + worker.stake
        self._pay(worker)
        worker.stake = 0
        if worker.status == "Unbonding":
            del self.workers[node_id]
        return None

    def _pay(self, worker: Worker) -> None:
        self.paid_out[worker.to] = self.paid_out.get(worker.to, 0) + worker.earned
        worker.earned = 0

    def set_status(self, node_id: str, status: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status not in IN_SERVICE:
            return "EInvalidStatusChange"
        worker.status = status.title()
        return None

    # slashing

    def propose(self, node_id: str, epoch: int, now_ms: int) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.status == "Jailed":
            return "EProposalPending"
        if worker.status == "Slashed":
            return "EWorkerSlashed"
        if worker.status == "Unbonding" and now_ms >= worker.until_ms:
            return "EUnbondingOver"
        used = self.proposals if self.proposals_epoch == epoch else 0
        if used >= max(3, len(self.workers) // 10):
            return "EFleetProposalsUsed"
        if now_ms - worker.since_ms >= PERIOD_MS:
            proposals, since_ms = 0, now_ms
        else:
            proposals, since_ms = worker.proposals, worker.since_ms
        if proposals >= 3:
            return "ETooManyProposals"
        self.proposals, self.proposals_epoch = used + 1, epoch
        worker.proposals, worker.since_ms = proposals + 1, since_ms
        worker.previous, worker.status = worker.status, "Jailed"
        worker.executable_at_ms = now_ms + worker.terms.slash_window_ms
        return None

    def _jailed(self, node_id: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        return None if worker.status == "Jailed" else "ENoProposal"

    def cancel(self, node_id: str) -> str | None:
        refusal = self._jailed(node_id)
        if refusal is None:
            self.workers[node_id].status = self.workers[node_id].previous
        return refusal

    def lapse(self, node_id: str, now_ms: int) -> str | None:
        refusal = self._jailed(node_id)
        if refusal is None and now_ms < self.workers[node_id].executable_at_ms + LAPSE_MS:
            return "ENotLapsed"
        return refusal or self.cancel(node_id)

    def execute(self, node_id: str, now_ms: int) -> str | None:
        refusal = self._jailed(node_id)
        if refusal is not None:
            return refusal
        worker = self.workers[node_id]
        if now_ms < worker.executable_at_ms:
            return "ESlashWindowOpen"
        if now_ms >= worker.executable_at_ms + LAPSE_MS:
            return "ESlashLapsed"
        share = worker.stake * worker.terms.slash_share_bps // 10_000
        self.treasury += share
        worker.stake -= share
        worker.status = "Slashed"
        worker.until_ms = now_ms + worker.terms.unbonding_window_ms
        return None

    # rewards

    def fund(self, amount: int) -> str | None:
        if amount == 0:
            return "ENoPayment"
        self.pool += amount
        self.funded += amount
        return None

    def move_treasury(self, share_bps: int) -> str | None:
        if not 1 <= share_bps <= 10_000:
            return "EInvalidShare"
        amount = self.treasury * share_bps // 10_000
        self.treasury -= amount
        self.pool += amount
        return None

    def _credit(self, worker: Worker, wanted: int, epoch: int) -> None:
        if worker.epoch != epoch:
            worker.epoch, worker.earned_in_epoch = epoch, 0
        amount = min(wanted, max(0, self.rates[2] - worker.earned_in_epoch), self.pool)
        self.pool -= amount
        worker.earned += amount
        worker.earned_in_epoch += amount

    def report_ready(self, reports: dict[str, int], epoch: int, now_ms: int) -> str | None:
        for node_id, ready_ms in reports.items():
            worker = self.workers.get(node_id)
            if worker is None:
                continue
            passed, worker.reported_ms = now_ms - worker.reported_ms, now_ms
            if worker.status in IN_SERVICE and not worker.understaked:
                self._credit(worker, min(ready_ms, passed) * self.rates[1] // HOUR_MS, epoch)
        return None

    def claim_rewards(self, node_id: str) -> str | None:
        worker = self.workers.get(node_id)
        if worker is None:
            return "EWorkerNotFound"
        if worker.earned == 0:
            return "ENothingToClaim"
        self._pay(worker)
        return None

    # k8s_scheduler

    def submit(
        self, sender: str, proof: str, candidates: list[str], deposit: int, priority: int, now_ms: int
    ) -> str | None:
        of = next((worker for worker in self.workers.values() if worker.proof == proof), None)
        if of is None:
            return "EStaleStakeProof"
        if of.status not in IN_SERVICE:
            return "EUnauthorizedRequest"
        if deposit < 1_000_000:
            return "EDepositTooSmall"
        best: tuple[int, str] | None = None
        for node_id in candidates:
            worker = self.workers.get(node_id)
            score = None if worker is None else worker.score(priority >= 8)
            if score is not None and (best is None or score > best[0]):
                best = score, node_id
        if best is None:
            return "ENoAvailableWorkers"
        if sum(request.proof == proof for request in self.requests.values()) >= MAX_OPEN:
            return "ETooManyOpenRequests"
        self.last_request += 1
        self.requests[self.last_request] = Request(sender, proof, best[1], deposit, now_ms + REQUEST_MS)
        self.workers[best[1]].workload += 1
        self.deposited += deposit
        return None

    def claim(self, request_id: int, now_ms: int) -> str | None:
        request = self.requests.get(request_id)
        if request is None:
            return "ERequestNotFound"
        if request.claimed:
            return "ERequestClaimed"
        if now_ms >= request.deadline_ms:
            return "ERequestExpired"
        request.claimed = True
        return None

    def complete(self, request_id: int, epoch: int, now_ms: int) -> str | None:
        request = self.requests.get(request_id)
        if request is None:
            return "ERequestNotFound"
        if not request.claimed:
            return "ERequestNotClaimed"
        if now_ms >= request.deadline_ms:
            return "ERequestExpired"
        worker = self.workers[request.node_id]
        if worker.status == "Slashed":
            return "EWorkerSlashed"
        worker.workload -= 1
        worker.earned += request.deposit
        if worker.owner != request.requester:
            if not worker.understaked:
                self._credit(worker, self.rates[0], epoch)
            worker.reputation = min(100, worker.reputation + 1)
        del self.requests[request_id]
        return None

    def time_out(self, request_id: int, now_ms: int) -> str | None:
        request = self.requests.get(request_id)
        if request is None:
            return "ERequestNotFound"
        if now_ms < request.deadline_ms:
            return "ERequestNotExpired"
        worker = self.workers[request.node_id]
        worker.workload -= 1
        if request.claimed and worker.owner != request.requester:
            worker.reputation = max(0, worker.reputation - 10)
        self.paid_out[request.requester] = self.paid_out.get(request.requester, 0) + request.deposit
        del self.requests[request_id]
        return None
