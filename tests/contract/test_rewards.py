"""rewards: the pool, what fills it, what it pays, and to whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from contract_ledger import CLOCK, DAY_MS, SUI, Chain, Pay, Registry, aborts, events, strings, u64, u64s

from k3s_daas.chain import bcs
from k3s_daas_localnet.ledger.effects import Executed

HOUR_MS = 3_600_000


def rates(registry: Registry, per_request: int, per_hour: int, cap: int) -> None:
    values = map(u64, (per_request, per_hour, cap))
    registry.call(registry.admin, "rewards::set_reward_rates", registry.admin_cap, *values)


def report(registry: Registry, master: str, node_ids: Sequence[str], ready_ms: Sequence[int]) -> Executed:
    return registry.call(
        master, "rewards::report_ready", registry.master_cap, strings(node_ids), u64s(ready_ms), CLOCK
    )


def earned(registry: Registry, node_id: str) -> int:
    return int(registry.worker(node_id)["rewards"]["balance"])


def pool(registry: Registry) -> int:
    return int(registry.read()["rewards"]["balance"])


def test_ready_time_is_paid_at_most_as_it_passes_and_up_to_the_cap(
    chain: Chain, registry: Registry, anne: str, master: str
) -> None:
    done = registry.call(anne, "rewards::fund_rewards", Pay(10 * SUI))
    (funded,) = events(done, "RewardsFundedEvent")
    assert (funded["sponsor"], funded["amount"], funded["pool"]) == (anne, str(10 * SUI), str(10 * SUI))
    rates(registry, 0, SUI, 3 * SUI)
    cold = "0x" + "c0" * 32
    registry.stake(anne, "w", to=cold)
    chain.clock.advance(HOUR_MS)
    (event,) = events(report(registry, master, ["w"], [HOUR_MS // 2]), "ReadyRewardedEvent")
    assert (event["node_id"], event["amount"]) == ("w", str(SUI // 2))
    assert events(report(registry, master, ["w"], [HOUR_MS]), "ReadyRewardedEvent") == []  # no time passed
    chain.clock.advance(HOUR_MS)
    report(registry, master, ["w"], [100 * HOUR_MS])  # an hour passed, so it is one
    assert earned(registry, "w") == 3 * SUI // 2
    chain.clock.advance(10 * HOUR_MS)
    report(registry, master, ["w"], [10 * HOUR_MS])
    assert earned(registry, "w") == 3 * SUI  # the cap
    chain.clock.advance(DAY_MS)  # a new epoch
    report(registry, master, ["w"], [HOUR_MS])
    assert earned(registry, "w") == 4 * SUI
    assert pool(registry) == 6 * SUI
    account = registry.worker("w")["rewards"]
    assert (account["ready_ms"], account["earned_in_epoch"]) == (str(HOUR_MS), str(SUI))
    done = registry.call(master, "rewards::claim_rewards", bcs.string("w"), CLOCK)
    (paid,) = events(done, "RewardsPaidEvent")
    assert (paid["recipient"], paid["amount"]) == (cold, str(4 * SUI))
    assert chain.balance(cold) == 4 * SUI
    with aborts("ENothingToClaim"):
        registry.call(master, "rewards::claim_rewards", bcs.string("w"), CLOCK)


def test_served_requests_are_paid(chain: Chain, registry: Registry, anne: str, ben: str, master: str) -> None:
    registry.call(anne, "rewards::fund_rewards", Pay(SUI))
    rates(registry, 7, 0, 10)
    registry.stake(ben, "w")
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    for request_id, reward in ((1, "7"), (2, "3"), (3, "0")):  # the cap is 10
        registry.submit(anne, proof, ["w"])
        assert registry.serve(master, request_id)["reward"] == reward
    assert earned(registry, "w") == 3_000_010
    assert registry.worker("w")["rewards"]["served"] == "3"
    rates(registry, 7, 0, 5)  # below what it has: nothing more, and no underflow
    registry.submit(anne, proof, ["w"])
    assert registry.serve(master, 4)["reward"] == "0"


def test_an_empty_pool_pays_nothing_and_blocks_nothing(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    rates(registry, SUI, SUI, 100 * SUI)
    registry.stake(ben, "w")
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    chain.clock.advance(HOUR_MS)
    report(registry, master, ["w"], [HOUR_MS])
    registry.submit(anne, proof, ["w"])
    assert registry.serve(master, 1)["reward"] == "0"
    assert earned(registry, "w") == 1_000_000  # the deposit
    registry.call(anne, "rewards::fund_rewards", Pay(5))
    chain.clock.advance(HOUR_MS)
    report(registry, master, ["w"], [HOUR_MS])  # what is there, and not what was not paid before
    assert (earned(registry, "w"), pool(registry)) == (1_000_005, 0)
    registry.call(ben, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
    before = chain.balance(ben)
    done = registry.call(ben, "worker_registry::withdraw", bcs.string("w"), CLOCK)
    assert chain.balance(ben) == before + SUI + 1_000_005 - done.gas.net  # with the stake
    assert registry.read()["earned"] == "0"


def test_who_is_jailed_leaving_understaked_or_gone_earns_nothing(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    registry.call(anne, "rewards::fund_rewards", Pay(100 * SUI))
    rates(registry, SUI, SUI, 100 * SUI)
    names = ["jailed", "leaving", "understaked", "fine"]
    for name in names:
        registry.stake(ben, name)
    registry.activate(master, "understaked")
    proof = registry.stake(anne, "a")
    for _ in range(2):  # both picked before either is missed
        registry.submit(anne, proof, ["understaked"])
    for request_id in (1, 2):
        registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(request_id), CLOCK)
    registry.propose("jailed")
    registry.call(ben, "worker_registry::request_unstake", bcs.string("leaving"), CLOCK)
    chain.clock.advance(HOUR_MS - 1)
    registry.activate(master, "understaked", status="offline")
    chain.clock.advance(1)
    registry.time_out(anne, 1)
    report(registry, master, [*names, "gone"], [HOUR_MS] * 5)
    assert [earned(registry, name) for name in names] == [0, 0, 0, SUI]
    # Nor does the time come back when they are in service again.
    cancel = registry.arbiter_cap, bcs.string("jailed"), CLOCK
    registry.call(registry.admin, "slashing::cancel_slash", *cancel)
    report(registry, master, ["jailed"], [HOUR_MS])
    assert earned(registry, "jailed") == 0


def test_an_understaked_worker_gets_the_deposit_but_no_reward(
    chain: Chain, registry: Registry, anne: str, ben: str, master: str
) -> None:
    registry.call(anne, "rewards::fund_rewards", Pay(SUI))
    rates(registry, 7, 0, 100)
    registry.stake(ben, "w")
    registry.activate(master, "w")
    proof = registry.stake(anne, "a")
    registry.submit(anne, proof, ["w"])
    registry.call(master, "k8s_scheduler::claim_request", registry.master_cap, u64(1), CLOCK)
    chain.clock.advance(300_000)
    registry.submit(anne, proof, ["w"])
    chain.clock.advance(300_000)
    registry.time_out(anne, 1)  # and now it is understaked, with a request under way
    assert registry.serve(master, 2)["reward"] == "0"
    assert earned(registry, "w") == 1_000_000
    assert registry.worker("w")["reputation"] == "91"


def test_the_treasury_goes_to_the_pool_by_share(
    chain: Chain, registry: Registry, anne: str, master: str
) -> None:
    registry.stake(anne, "w", 4 * SUI)
    registry.propose("w")
    registry.call(anne, "slashing::execute_slash", bcs.string("w"), CLOCK)
    assert registry.read()["treasury"] == str(2 * SUI)
    for wrong in (0, 10_001):
        with aborts("EInvalidShare"):
            registry.call(registry.admin, "rewards::move_treasury", registry.admin_cap, u64(wrong))
    done = registry.call(registry.admin, "rewards::move_treasury", registry.admin_cap, u64(2_500))
    (moved,) = events(done, "TreasuryMovedEvent")
    assert (moved["amount"], moved["pool"]) == (str(SUI // 2), str(SUI // 2))
    assert (registry.read()["treasury"], pool(registry)) == (str(3 * SUI // 2), SUI // 2)
    registry.call(registry.admin, "rewards::move_treasury", registry.admin_cap, u64(10_000))
    assert (registry.read()["treasury"], pool(registry)) == ("0", 2 * SUI)


@pytest.mark.parametrize(
    ("names", "times", "error"),
    [([], [], "EEmptyBatch"), (["a"], [], "ELengthMismatch"), (["a"], [1, 2], "ELengthMismatch")],
)
def test_reports_are_whole(
    registry: Registry, master: str, names: list[str], times: list[int], error: str
) -> None:
    with aborts(error):
        report(registry, master, names, times)


def test_a_sponsor_pays_something(registry: Registry, anne: str) -> None:
    with aborts("ENoPayment"):
        registry.call(anne, "rewards::fund_rewards", Pay(0))
