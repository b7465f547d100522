"""sui_rewards: the pool is filled, and what workers earned is paid out."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import pytest_asyncio

from k3s_daas.registry import WorkerStatus

Operator = Any  # of conftest.py
pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
RATES = (10_000_000, 0, SUI)


@pytest_asyncio.fixture(loop_scope="session")
async def cold(new_operator: Any, fleet: Operator) -> Operator:
    """A wallet without capabilities, where the workers' rewards go to."""
    operator = await new_operator()
    operator.ids = fleet.ids
    return operator


async def serve(fleet: Operator, cold: Operator, *node_ids: str) -> None:
    """Two active workers, of which `node_ids` serve a request of 0.002 SUI each."""
    workers = [{"node_id": n, "commitment": hashlib.sha256(n.encode()).hexdigest()} for n in ("a", "b")]
    await fleet("sui_stake", workers=workers, withdrawal_address=cold.chain.address)
    await fleet("sui_master", account=fleet.chain.address)
    await fleet.registry.set_statuses(dict.fromkeys(("a", "b"), WorkerStatus.ACTIVE))
    cap = await fleet.registry.cap("MasterCap")
    for node_id in node_ids:
        asked = await fleet(
            "sui_k8s_request", method="list", resource="pods", deposit="0.002", candidates=[node_id]
        )
        request = asked["request"]["request_id"]

        async def build(tx: Any, request: int = request) -> None:
            master, clock = tx.object(cap), tx.object("0x6", mutable=False)
            fleet.registry.call(tx, "k8s_scheduler::claim_request", master, tx.u64(request), clock)
            done = tx.data(bytes(32))
            fleet.registry.call(tx, "k8s_scheduler::complete_request", master, tx.u64(request), done, clock)

        await fleet.chain.execute(build)


async def test_the_pool_is_filled_up_by_anybody(fleet: Operator, cold: Operator) -> None:
    held = await cold.chain.balance(cold.chain.address)
    planned = await cold("sui_rewards", check=True, state="funded", pool="2")
    assert (planned["changed"], planned["digests"], planned["funded_mist"]) == (True, [], 2 * SUI), planned
    preview = planned["preview"]
    assert (preview["paid_mist"], preview["transactions"]) == (2 * SUI, 1)
    assert preview["balance_after_mist"] == held - 2 * SUI - planned["gas_mist"]
    assert "Nothing of it comes back" in preview["summary"][0]
    done = await cold("sui_rewards", state="funded", pool="2")
    assert (done["pool_mist"], done["preview"], done["diff"]) == (2 * SUI, preview, planned["diff"])
    assert await cold.chain.balance(cold.chain.address) == preview["balance_after_mist"]
    assert (await fleet.registry.config()).pool_mist == 2 * SUI
    before = await cold.sent()
    for pool in ("2", "1.5", "0"):
        again = await cold("sui_rewards", state="funded", pool=pool)
        assert (again["changed"], again["pool_mist"]) == (False, 2 * SUI)
    assert await cold.sent() == before
    more = await cold("sui_rewards", state="funded", pool="2.000000001")
    assert (more["funded_mist"], (await fleet.registry.config()).pool_mist) == (1, 2 * SUI + 1)


async def test_the_treasury_fills_it_as_far_as_it_goes(fleet: Operator, cold: Operator) -> None:
    fill = {"state": "funded", "source": "treasury"}
    nothing = await fleet("sui_rewards", pool="1", **fill)
    assert (nothing["changed"], nothing["pool_mist"]) == (False, 0)
    await serve(fleet, cold)
    await fleet.registry.slash_now("a", 4, bytes(32))  # 0.5 SUI
    assert "holds no AdminCap" in (await cold("sui_rewards", pool="1", **fill))["msg"]
    planned = await fleet("sui_rewards", check=True, pool="0.123456789", **fill)
    done = await fleet("sui_rewards", pool="0.123456789", **fill)
    assert planned["funded_mist"] == done["funded_mist"]
    config = await fleet.registry.config()
    # By basis points: a little more than asked, never less.
    assert 123_456_789 <= config.pool_mist == done["pool_mist"] < 123_456_789 + 50_000
    assert config.treasury_mist == SUI // 2 - config.pool_mist
    assert "There is no way back" in done["preview"]["summary"][0]
    assert done["preview"]["paid_mist"] == 0
    assert not (await fleet("sui_rewards", pool="0.123456789", **fill))["changed"]
    rest = await fleet("sui_rewards", pool="9", **fill)
    config = await fleet.registry.config()
    assert (rest["pool_mist"], config.pool_mist, config.treasury_mist) == (SUI // 2, SUI // 2, 0)


async def test_what_was_earned_is_claimed_by_anybody_for_its_address(
    fleet: Operator, cold: Operator, new_operator: Any
) -> None:
    await serve(fleet, cold, "a", "b", "a")
    stranger = await new_operator()
    stranger.ids = fleet.ids
    held = await cold.chain.balance(cold.chain.address)
    planned = await stranger("sui_rewards", check=True, state="claimed")
    assert (planned["changed"], planned["digests"]) == (True, [])
    assert planned["claimed_mist"] == {"a": 4_000_000, "b": 2_000_000}
    shown = planned["preview"]
    assert f"Pays 0.006 SUI, the rewards of a, b, to {cold.chain.address}." in shown["summary"]
    assert shown["stake_returned_mist"] == 0
    one = await stranger("sui_rewards", state="claimed", node_ids=["b", "b"])
    assert (one["claimed_mist"], len(one["digests"])) == ({"b": 2_000_000}, 1)
    mine = await cold("sui_rewards", check=True, state="claimed")
    assert (mine["claimed_mist"], mine["preview"]["stake_returned_mist"]) == ({"a": 4_000_000}, 4_000_000)
    await stranger("sui_rewards", state="claimed")
    assert await cold.chain.balance(cold.chain.address) == held + 6_000_000
    before = await stranger.sent()
    for names in (None, ["a"], []):
        again = await stranger("sui_rewards", state="claimed", node_ids=names)
        assert (again["changed"], again["claimed_mist"]) == (False, {})
    assert await stranger.sent() == before


async def test_what_is_refused(fleet: Operator) -> None:
    for arguments, wrong in (
        ({"state": "funded"}, "missing: pool"),
        ({"state": "funded", "pool": "-1"}, "wanted an amount"),
        ({"state": "funded", "pool": "1000"}, "Send at least"),
        ({"state": "claimed", "node_ids": ["nobody"]}, "Found no worker nobody in registry"),
    ):
        result = await fleet("sui_rewards", **arguments)
        assert wrong in result["msg"], result
