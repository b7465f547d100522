"""slashing: how often a slash may be proposed, how long it may wait, and that nobody leaves before it."""

from __future__ import annotations

from collections.abc import Callable

from contract_ledger import CLOCK, DAY_MS, SUI, Chain, Pay, Registry, aborts, events, strings, u64s

from k3s_daas.chain import bcs

LAPSE_MS = 7 * DAY_MS


def test_a_proposal_lapses_after_7_days(
    chain: Chain, make_registry: Callable[..., Registry], anne: str, ben: str, master: str
) -> None:
    registry = make_registry(slash_window_ms=DAY_MS)
    registry.appoint(master)
    registry.stake(anne, "w")
    registry.activate(master, "w")
    registry.propose("w")
    chain.clock.advance(DAY_MS + LAPSE_MS - 1)
    with aborts("ENotLapsed"):
        registry.call(ben, "slashing::lapse_slash", bcs.string("w"), CLOCK)
    chain.clock.advance(1)
    with aborts("ESlashLapsed"):
        registry.call(ben, "slashing::execute_slash", bcs.string("w"), CLOCK)
    done = registry.call(ben, "slashing::lapse_slash", bcs.string("w"), CLOCK)  # anybody
    (event,) = events(done, "SlashLapsedEvent")
    assert (event["node_id"], event["timestamp_ms"]) == ("w", str(chain.now_ms))
    worker = registry.worker("w")
    assert (worker["status"], worker["proposal"]) == ({"@variant": "Active"}, None)
    with aborts("ENoProposal"):
        registry.call(ben, "slashing::lapse_slash", bcs.string("w"), CLOCK)


def test_it_can_be_executed_until_the_last_moment(chain: Chain, registry: Registry, anne: str) -> None:
    registry.stake(anne, "w")
    registry.propose("w")
    chain.clock.advance(LAPSE_MS - 1)
    registry.call(anne, "slashing::execute_slash", bcs.string("w"), CLOCK)
    assert registry.worker("w")["status"] == {"@variant": "Slashed"}


def test_one_worker_is_proposed_3_times_in_180_days(chain: Chain, registry: Registry, anne: str) -> None:
    registry.stake(anne, "w")
    for _ in range(3):
        registry.propose("w")
        registry.call(registry.admin, "slashing::cancel_slash", registry.arbiter_cap, bcs.string("w"), CLOCK)
        chain.clock.advance(DAY_MS)
    with aborts("ETooManyProposals"):
        registry.propose("w")
    chain.clock.advance(176 * DAY_MS)
    with aborts("ETooManyProposals"):  # 179 days after the stake
        registry.propose("w")
    chain.clock.advance(DAY_MS)
    registry.propose("w")


def test_a_small_fleet_has_3_proposals_an_epoch(chain: Chain, registry: Registry, anne: str) -> None:
    names = ["w-1", "w-2", "w-3", "w-4"]
    for name in names:
        registry.stake(anne, name)
    for name in names[:3]:
        registry.propose(name)
        # a cancelled one counts as well
        cancel = registry.arbiter_cap, bcs.string(name), CLOCK
        registry.call(registry.admin, "slashing::cancel_slash", *cancel)
    with aborts("EFleetProposalsUsed"):
        registry.propose("w-4")
    assert registry.read()["proposals"] == "3"
    chain.clock.advance(DAY_MS)
    registry.propose("w-4")
    assert registry.read()["proposals"] == "1"


def test_a_big_fleet_has_a_tenth(chain: Chain, registry: Registry, anne: str) -> None:
    names = [f"w-{number}" for number in range(50)]
    amounts, to = u64s([SUI] * 50), bcs.address(anne)
    function = "worker_registry::stake_and_register_workers"
    registry.call(anne, function, Pay(50 * SUI), strings(names), amounts, to, CLOCK)
    for name in names[:5]:
        registry.propose(name)
    with aborts("EFleetProposalsUsed"):
        registry.propose("w-5")


def test_an_exit_does_not_outrun_a_proposal(
    chain: Chain, make_registry: Callable[..., Registry], anne: str
) -> None:
    registry = make_registry(slash_window_ms=2 * DAY_MS, unbonding_window_ms=DAY_MS)
    registry.stake(anne, "w")
    registry.call(anne, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
    chain.clock.advance(DAY_MS - 1)
    registry.propose("w")  # in the last moment of the unbonding window
    chain.clock.advance(DAY_MS)
    with aborts("EWorkerJailed"):
        registry.call(anne, "worker_registry::withdraw", bcs.string("w"), CLOCK)
    chain.clock.advance(DAY_MS)
    registry.call(anne, "slashing::execute_slash", bcs.string("w"), CLOCK)
    assert registry.read()["treasury"] == str(SUI // 2)


def test_a_leaver_is_held_by_a_lapsed_proposal_no_longer(
    chain: Chain, make_registry: Callable[..., Registry], anne: str
) -> None:
    registry = make_registry(unbonding_window_ms=DAY_MS)
    registry.stake(anne, "w")
    registry.call(anne, "worker_registry::request_unstake", bcs.string("w"), CLOCK)
    registry.propose("w")
    chain.clock.advance(LAPSE_MS)
    registry.call(anne, "slashing::lapse_slash", bcs.string("w"), CLOCK)
    assert registry.worker("w")["status"] == {"@variant": "Unbonding"}
    with aborts("EUnbondingOver"):
        registry.propose("w")
    registry.call(anne, "worker_registry::withdraw", bcs.string("w"), CLOCK)
