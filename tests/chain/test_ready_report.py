"""The master's report of Ready time, on a real chain: who is paid how much, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from k3s_daas.chain import ChainError, Receipt
from k3s_daas.registry import MAX_READY_BATCH, MissingCap, Registry, StakeRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
HOUR_MS = 3_600_000
COLD = "0x" + "c0" * 32


async def paid_registry(
    new_registry: Any, new_wallet: Any, names: list[str], *, per_hour: int = SUI
) -> tuple[Registry, Registry]:
    """(admin's, master's) registry with staked workers, whose Ready time is paid."""
    registry: Registry = await new_registry()
    chain, admin = registry.chain, await registry.cap("AdminCap")
    expires = await registry.clock_ms() + 30 * 24 * HOUR_MS
    told = registry.deployment.registry_id
    wanted = [
        StakeRequest(name, hashlib.sha256(f"{told} {name}".encode()).digest(), SUI, expires) for name in names
    ]
    await registry.stake(wanted, COLD)
    master = await new_wallet()
    await registry.appoint_master(master.address)

    async def build(tx: Any) -> None:
        registry.call(tx, "rewards::fund_rewards", *tx.split([400 * SUI]))
        rates = [tx.u64(value) for value in (0, per_hour, 100 * SUI)]
        registry.call(tx, "rewards::set_reward_rates", tx.object(admin), *rates)

    await chain.execute(build)
    return registry, Registry(master, registry.deployment)


def paid(receipt: Receipt) -> dict[str, int]:
    """MIST by worker."""
    return {event.json["node_id"]: int(event.json["amount"]) for event in receipt.events}


async def test_the_report_is_paid_and_moves_the_mark(
    new_registry: Any, new_wallet: Any, live_net: Any
) -> None:
    registry, master = await paid_registry(new_registry, new_wallet, ["a", "b"])
    before = await registry.workers_by_id(["a", "b"])
    assert before["a"].ready_reported_until_ms == before["a"].registered_at_ms
    live_net.clock.advance(HOUR_MS)
    receipt = await master.report_ready({"a": HOUR_MS // 2, "b": HOUR_MS // 4})
    assert paid(receipt) == {"a": SUI // 2, "b": SUI // 4}
    after = await registry.workers_by_id(["a", "b"])
    assert {name: worker.rewards_mist for name, worker in after.items()} == paid(receipt)
    for name, worker in after.items():
        passed = worker.ready_reported_until_ms - before[name].ready_reported_until_ms
        assert HOUR_MS <= passed <= HOUR_MS + 60_000
    assert (await registry.config()).rates.per_ready_hour_mist == SUI


async def test_no_more_time_is_paid_than_passed(new_registry: Any, new_wallet: Any, live_net: Any) -> None:
    registry, master = await paid_registry(new_registry, new_wallet, ["a"])
    live_net.clock.advance(HOUR_MS)
    await master.report_ready({"a": HOUR_MS})
    first = await registry.worker("a")
    await master.report_ready({"a": HOUR_MS})
    again = await registry.worker("a")
    assert first is not None
    assert again is not None
    passed = again.ready_reported_until_ms - first.ready_reported_until_ms
    assert again.rewards_mist - first.rewards_mist == passed * SUI // HOUR_MS
    assert passed < 60_000


async def test_a_whole_batch_of_the_longest_names_fits(
    new_registry: Any, new_wallet: Any, live_net: Any
) -> None:
    names = [f"{number:063}" for number in range(MAX_READY_BATCH)]
    _, master = await paid_registry(new_registry, new_wallet, names)
    live_net.clock.advance(HOUR_MS)
    assert paid(await master.report_ready(dict.fromkeys(names, HOUR_MS))) == dict.fromkeys(names, SUI)


async def test_a_worker_that_is_gone_holds_up_no_other(
    new_registry: Any, new_wallet: Any, live_net: Any
) -> None:
    _, master = await paid_registry(new_registry, new_wallet, ["a"])
    live_net.clock.advance(HOUR_MS)
    assert paid(await master.report_ready({"a": HOUR_MS, "gone": HOUR_MS})) == {"a": SUI}


async def test_only_the_master_reports(new_registry: Any, new_wallet: Any) -> None:
    registry, master = await paid_registry(new_registry, new_wallet, ["a"])
    with pytest.raises(MissingCap, match="MasterCap"):
        await registry.report_ready({"a": 1})
    await registry.appoint_master(COLD)
    with pytest.raises(ChainError, match="master"):
        await master.report_ready({"a": 1})


@pytest.mark.parametrize("number", [0, MAX_READY_BATCH + 1])
async def test_a_batch_has_its_bounds(number: int, new_registry: Any) -> None:
    registry: Registry = await new_registry()
    with pytest.raises(ValueError, match=f"{number} workers, wanted that of 1 to {MAX_READY_BATCH}"):
        await registry.report_ready({f"w{one}": 1 for one in range(number)})
