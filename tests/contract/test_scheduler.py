"""k8s_scheduler: submit, pick, claim, complete, time out."""

from __future__ import annotations

import pytest
from contract_ledger import (
    CLOCK,
    SUI,
    Chain,
    Pay,
    Registry,
    aborts,
    events,
    sha,
    strings,
    u8,
    u64,
    u64s,
)

from k3s_daas.chain import bcs
from k3s_daas_localnet.ledger.errors import Refused

WINDOW_MS = 600_000
DEPOSIT = 1_000_000


@pytest.fixture
def proof(registry: Registry, anne: str, ben: str, master: str) -> str:
    """Anne's, who has no active worker; Ben's workers b-1 to b-3 are active."""
    for number in (1, 2, 3):
        registry.stake(ben, f"b-{number}")
    registry.activate(master, "b-1", "b-2", "b-3")
    return registry.stake(anne, "a")


def test_a_request_from_submission_to_reward(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str, proof: str
) -> None:
    payload = sha("payload")
    event = registry.submit(anne, proof, ["b-1"], 5 * DEPOSIT, 3, payload)
    assert event == {
        "registry": registry.id,
        "request_id": "1",
        "requester": anne,
        "node_id": "b-1",
        "payload_hash": event["payload_hash"],
        "priority": 3,
        "deposit": str(5 * DEPOSIT),
        "deadline_ms": str(chain.now_ms + WINDOW_MS),
    }
    assert registry.worker("b-1")["workload"] == "1"
    assert registry.book()["deposits"] == str(5 * DEPOSIT)
    done = registry.serve(master, 1)
    assert (done["node_id"], done["deposit"], done["reward"]) == ("b-1", str(5 * DEPOSIT), "0")
    worker = registry.worker("b-1")
    assert (worker["workload"], worker["rewards"]["balance"]) == ("0", str(5 * DEPOSIT))
    assert registry.read()["earned"] == str(5 * DEPOSIT)
    assert registry.book()["deposits"] == "0"
    before = chain.balance(ben)
    registry.call(anne, "rewards::claim_rewards", bcs.string("b-1"), CLOCK)  # anybody, to Ben
    assert chain.balance(ben) == before + 5 * DEPOSIT
    for call in (registry.complete, registry.serve):
        with aborts("ERequestNotFound"):
            call(master, 1)


def test_what_other_contracts_read(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str, proof: str
) -> None:
    def money(*values: int) -> None:
        registry.call(anne, "hooks::check_money", *map(u64, values))

    def worker(reputation: int, required: int, understaked: bool, workload: int, earned: int) -> None:
        values = u64(reputation), u64(required), bytes([understaked]), u64(workload), u64(earned)
        registry.call(anne, "hooks::check_worker", bcs.string("b-1"), bcs.address(ben), *values)

    money(0, 0, 0, 0)
    worker(100, SUI, False, 0, 0)
    for _ in range(2):
        registry.submit(anne, proof, ["b-1"])
    registry.serve(master, 1)
    registry.call(anne, "rewards::fund_rewards", Pay(7))
    money(7, DEPOSIT, DEPOSIT, 1)
    worker(100, SUI, False, 1, DEPOSIT)
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(2), CLOCK)
    chain.clock.advance(WINDOW_MS)
    registry.time_out(anne, 2)
    worker(90, SUI * 110 // 100, True, 0, DEPOSIT)
    registry.chain.send(anne, (f"{registry.package}::hooks::check_proof", [proof, bcs.string("a")]))


def test_idle_first_then_by_reputation_and_workload(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str, proof: str
) -> None:
    names = ["b-1", "b-2", "b-3"]

    def pick(candidates: list[str] = names) -> str:
        return str(registry.submit(anne, proof, candidates)["node_id"])

    # Of equals the first named; a worker that works on one counts a twentieth of an idle one.
    assert [pick(), pick(), pick()] == names
    assert pick(["b-2", "b-1"]) == "b-2"
    assert pick(["b-2", "b-1"]) == "b-1"
    for request_id in range(1, 6):
        registry.serve(master, request_id)
    request = registry.submit(anne, proof, ["b-1"])
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(6), CLOCK)
    chain.clock.advance(WINDOW_MS)
    done = registry.time_out(anne, int(request["request_id"]))
    (changed,) = events(done, "WorkerReputationChangedEvent")
    assert (changed["reputation"], changed["required_stake"]) == ("90", str(SUI * 110 // 100))
    registry.call(ben, "worker_registry::add_stake", Pay(SUI), bcs.string("b-1"), CLOCK)
    assert pick() == "b-2"  # 1,000 against 900
    assert pick(["absent", "a", "b-1"]) == "b-1"  # the unknown and the pending are passed over


def test_the_last_slot_is_for_the_urgent(registry: Registry, anne: str, master: str, proof: str) -> None:
    for _ in range(9):
        registry.submit(anne, proof, ["b-1"], priority=7)
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["b-1"], priority=7)
    registry.submit(anne, proof, ["b-1"], priority=8)
    proof = registry.stake(anne, "a-2")
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["b-1"], priority=10)
    assert registry.worker("b-1")["workload"] == "10"
    registry.activate(master, "b-2", status="busy")
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["b-2"])
    assert registry.submit(anne, proof, ["b-2"], priority=8)["node_id"] == "b-2"


def test_a_proof_has_ten_open_requests(
    chain: Chain, registry: Registry, anne: str, master: str, proof: str
) -> None:
    names = ["b-1", "b-2", "b-3"]

    def by_proof() -> dict[str, str]:
        found: dict[str, str] = chain.fields(registry.book()["by_proof"]["id"])
        return found

    for _ in range(10):
        registry.submit(anne, proof, names)
    before = registry.book(), registry.workers()
    with aborts("ETooManyOpenRequests"):
        registry.submit(anne, proof, names)
    assert (registry.book(), registry.workers()) == before
    second = registry.stake(anne, "a-2")  # another stake, another ten
    registry.submit(anne, second, names)
    assert by_proof() == {proof: "10", second: "1"}
    registry.serve(master, 3)  # each end makes room for one
    registry.submit(anne, proof, names)
    with aborts("ETooManyOpenRequests"):
        registry.submit(anne, proof, names)
    chain.clock.advance(WINDOW_MS)
    for request_id in (1, 11):
        registry.time_out(anne, request_id)
    assert by_proof() == {proof: "9"}
    # What a worker asked for ends as ever after it has left; its next stake is another proof.
    registry.call(anne, "worker_registry::request_unstake", bcs.string("a"), CLOCK)
    registry.call(anne, "worker_registry::withdraw", bcs.string("a"), CLOCK)
    fresh = registry.stake(anne, "a")
    for request_id in (2, *range(4, 11), 12):
        registry.time_out(anne, request_id)
    assert by_proof() == {}
    registry.submit(anne, fresh, names)
    assert by_proof() == {fresh: "1"}


def test_a_timeout_refunds_and_blames_only_who_had_it(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str, proof: str
) -> None:
    registry.submit(anne, proof, ["b-1"])
    registry.submit(anne, proof, ["b-2"])
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(2), CLOCK)
    chain.clock.advance(WINDOW_MS - 1)
    with aborts("ERequestNotExpired"):
        registry.time_out(ben, 1)
    chain.clock.advance(1)
    with aborts("ERequestExpired"):
        registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(1), CLOCK)
    with aborts("ERequestExpired"):
        registry.complete(master, 2)
    before = chain.balance(anne)
    for request_id, missed in ((1, False), (2, True)):
        (event,) = events(registry.time_out(ben, request_id), "K8sAPIRequestTimedOutEvent")
        assert (event["refund"], event["missed"], event["requester"]) == (str(DEPOSIT), missed, anne)
    assert chain.balance(anne) == before + 2 * DEPOSIT
    assert [registry.worker(name)["reputation"] for name in ("b-1", "b-2")] == ["100", "90"]
    assert [registry.worker(name)["workload"] for name in ("b-1", "b-2")] == ["0", "0"]


def test_what_is_refused(registry: Registry, anne: str, ben: str, master: str, proof: str) -> None:
    with aborts("ERequestNotFound"):  # before the first request there is no book
        registry.time_out(anne, 1)
    for wrong in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidPayloadHash"):
            registry.submit(anne, proof, ["b-1"], payload_hash=wrong)
    with aborts("EInvalidPriority"):
        registry.submit(anne, proof, ["b-1"], priority=11)
    with aborts("EDepositTooSmall"):
        registry.submit(anne, proof, ["b-1"], deposit=DEPOSIT - 1)
    with aborts("ENoCandidates"):
        registry.submit(anne, proof, [])
    with aborts("ETooManyCandidates"):
        registry.submit(anne, proof, ["b-1"] * 33)
    registry.submit(anne, proof, ["absent"] * 31 + ["b-1"])
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["absent", "a"])
    with aborts("ERequestNotClaimed"):
        registry.complete(master, 1)
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(1), CLOCK)
    with aborts("ERequestClaimed"):
        registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(1), CLOCK)
    for wrong in (b"", bytes(31), bytes(33)):
        with aborts("EInvalidResultHash"):
            registry.complete(master, 1, wrong)
    registry.propose("b-1")
    registry.call(anne, "slashing::execute_slash", bcs.string("b-1"), CLOCK)
    with aborts("EWorkerSlashed"):
        registry.complete(master, 1)


def test_only_live_proofs_of_workers_in_service(
    chain: Chain, registry: Registry, make_registry, anne: str, ben: str, master: str, proof: str
) -> None:
    with pytest.raises(Refused):  # Anne's proof in Ben's hands
        registry.submit(ben, proof, ["b-1"])
    other = make_registry()
    with aborts("EStaleStakeProof"):  # another registry's
        registry.submit(anne, other.stake(anne, "a"), ["b-1"])
    registry.propose("a")
    with aborts("EUnauthorizedRequest"):
        registry.submit(anne, proof, ["b-1"])
    registry.call(registry.admin, "slashing::cancel_slash", registry.arbiter_cap, bcs.string("a"), CLOCK)
    registry.submit(anne, proof, ["b-1"])
    registry.call(anne, "worker_registry::request_unstake", bcs.string("a"), CLOCK)
    with aborts("EUnauthorizedRequest"):
        registry.submit(anne, proof, ["b-1"])
    registry.call(anne, "worker_registry::withdraw", bcs.string("a"), CLOCK)
    with aborts("EStaleStakeProof"):
        registry.submit(anne, proof, ["b-1"])
    # The stake is used again, the name too: the old proof still says nothing.
    fresh = registry.stake(anne, "a")
    with aborts("EStaleStakeProof"):
        registry.submit(anne, proof, ["b-1"])
    registry.submit(anne, fresh, ["b-1"])
    registry.propose("a")
    registry.call(anne, "slashing::execute_slash", bcs.string("a"), CLOCK)
    with aborts("EUnauthorizedRequest"):
        registry.submit(anne, fresh, ["b-1"])


def test_who_leaves_finishes_first_and_nobody_can_hold_it_up(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str, proof: str
) -> None:
    registry.submit(anne, proof, ["b-1"])
    registry.call(ben, "worker_registry::request_unstake", bcs.string("b-1"), CLOCK)
    with aborts("ENoAvailableWorkers"):
        registry.submit(anne, proof, ["b-1"])
    with aborts("ERequestsOpen"):
        registry.call(ben, "worker_registry::withdraw", bcs.string("b-1"), CLOCK)
    chain.clock.advance(WINDOW_MS)
    registry.time_out(ben, 1)
    registry.call(ben, "worker_registry::withdraw", bcs.string("b-1"), CLOCK)
    assert "b-1" not in registry.workers()


def test_an_owner_makes_no_reputation_or_reward_for_itself(
    chain: Chain, registry: Registry, ben: str, master: str, proof: str
) -> None:
    registry.call(ben, "rewards::fund_rewards", Pay(SUI))
    rates = map(u64, (SUI // 10, 0, SUI))
    registry.call(registry.admin, "rewards::set_reward_rates", registry.admin_cap, *rates)
    own = registry.worker("b-2")["proof"]
    registry.submit(ben, own, ["b-1"])
    assert registry.serve(master, 1)["reward"] == "0"
    registry.submit(ben, own, ["b-1"])
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(2), CLOCK)
    chain.clock.advance(WINDOW_MS)
    (event,) = events(registry.time_out(ben, 2), "K8sAPIRequestTimedOutEvent")
    assert event["missed"] is False
    assert registry.worker("b-1")["reputation"] == "100"


def test_an_owner_of_1000_workers(chain: Chain, registry: Registry, master: str) -> None:
    owner = chain.actor("landlord")
    names = [f"w-{number}" for number in range(1_000)]
    for first in (0, 500):
        batch = names[first : first + 500]
        total, amounts = Pay(500 * SUI), u64s([SUI] * 500)
        function = "worker_registry::stake_and_register_workers"
        registry.call(owner, function, total, strings(batch), amounts, bcs.address(owner), CLOCK)
        registry.activate(master, *batch)
    proof = registry.worker("w-999")["proof"]
    small = registry.call(
        owner,
        "k8s_scheduler::submit_k8s_request",
        proof,
        Pay(DEPOSIT),
        bcs.data(bytes(32)),
        u8(0),
        strings(names[-32:]),
        CLOCK,
    )
    (event,) = events(small, "K8sAPIRequestScheduledEvent")
    assert event["node_id"] == "w-968"
    # The owner's list, 10 KB here, is neither read nor written: the price is that of an owner of few.
    assert small.gas.computation <= 2_000 * 1_001
    assert registry.serve(master, 1)["node_id"] == "w-968"
    registry.submit(owner, proof, ["w-0"])
    registry.call(owner, "worker_registry::request_unstake", bcs.string("w-1"), CLOCK)
    registry.call(owner, "worker_registry::withdraw", bcs.string("w-1"), CLOCK)
    assert len(registry.owners()[owner]) == 999
