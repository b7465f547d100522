"""sui_stake's way out, its previews, and fleets larger than a transaction."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from k3s_daas.registry import staking

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000


def worker(node_id: str, **more: Any) -> dict[str, Any]:
    return {"node_id": node_id, "commitment": hashlib.sha256(node_id.encode()).hexdigest(), **more}


async def statuses(operator: Any) -> dict[str, str]:
    return {one.node_id: one.status.value for one in await operator.registry.workers()}


async def balance(operator: Any) -> int:
    return int(await operator.chain.balance(operator.chain.address))


@pytest.fixture
def slow_fleet(new_operator: Any, new_registry: Any) -> Any:
    """`await slow_fleet(**terms)`: an operator with a registry of those terms."""

    async def make(**terms: Any) -> Any:
        operator = await new_operator()
        registry = await new_registry(operator.chain, **terms)
        operator.ids = {
            "package_id": registry.deployment.package_id,
            "registry_id": registry.deployment.registry_id,
        }
        return operator

    return make


async def test_leaves_in_two_steps_and_each_once(slow_fleet: Any, live_net: Any) -> None:
    fleet = await slow_fleet(unbonding_window_ms=3_600_000)
    names = [{"node_id": "worker-1"}, {"node_id": "worker-2"}]
    await fleet("sui_stake", workers=[worker("worker-1"), worker("worker-2"), worker("worker-3")], stake="2")
    planned = await fleet("sui_stake", check=True, workers=names, state="unbonding")
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert "worker-1, worker-2" in planned["preview"]["summary"][0]
    assert "1 h" in planned["preview"]["summary"][0]
    assert set((await statuses(fleet)).values()) == {"pending"}
    held = await balance(fleet)
    done = await fleet("sui_stake", workers=names, state="unbonding")
    assert len(done["digests"]) == 1
    assert done["diff"] == planned["diff"]
    assert await balance(fleet) == planned["preview"]["balance_after_mist"] == held - done["gas_mist"]
    assert await statuses(fleet) == {"worker-1": "unbonding", "worker-2": "unbonding", "worker-3": "pending"}
    assert done["workers"]["worker-1"]["status"] == "unbonding"

    before = await fleet.sent()
    again = await fleet("sui_stake", workers=names, state="unbonding")
    assert (again["changed"], again["digests"]) == (False, [])
    early = await fleet("sui_stake", workers=names, state="withdrawn")
    assert not early["changed"]
    until = (await fleet.registry.worker("worker-1")).unbonding_until_ms
    assert early["withdrawable_at_ms"] == {"worker-1": until, "worker-2": until}
    assert f"before {until}" in str(early["warnings"])
    assert "nothing is paid" in early["preview"]["summary"][0]
    assert await fleet.sent() == before

    live_net.clock.advance(3_600_001)
    planned = await fleet("sui_stake", check=True, workers=names, state="withdrawn")
    assert planned["preview"]["stake_returned_mist"] == 4 * SUI
    assert f"Pays 4 SUI, the stake of worker-1, worker-2, to {fleet.chain.address}" in str(planned["preview"])
    done = await fleet("sui_stake", workers=names, state="withdrawn")
    assert (done["changed"], done["withdrawable_at_ms"], done["workers"]) == (True, {}, {})
    assert done["diff"]["after"] == {"worker-1": "withdrawn", "worker-2": "withdrawn"}
    assert await balance(fleet) == planned["preview"]["balance_after_mist"]
    assert await statuses(fleet) == {"worker-3": "pending"}
    before = await fleet.sent()
    for state in ("withdrawn", "unbonding"):  # playbooks for leaving go through both each time
        gone = await fleet("sui_stake", workers=names, state=state)
        assert (gone["changed"], gone["diff"]["before"]) == (False, gone["diff"]["after"])
    assert await fleet.sent() == before


async def test_withdraws_at_once_where_there_is_no_window(fleet: Any) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")], withdrawal_address="0xc01d")
    done = await fleet("sui_stake", workers=[{"node_id": "worker-1"}], state="withdrawn")
    assert (done["changed"], len(done["digests"])) == (True, 1), done
    assert done["preview"]["stake_returned_mist"] == 0
    assert "There is no way back" in done["preview"]["summary"][0]
    assert "Pays 1 SUI" in done["preview"]["summary"][1]
    assert done["preview"]["summary"][1].endswith("c01d.")
    assert await statuses(fleet) == {}


async def test_requests_only_while_the_window_is_open(slow_fleet: Any) -> None:
    fleet = await slow_fleet(unbonding_window_ms=3_600_000)
    await fleet("sui_stake", workers=[worker("worker-1")])
    done = await fleet("sui_stake", workers=[{"node_id": "worker-1"}], state="withdrawn")
    assert (done["changed"], done["workers"]["worker-1"]["status"]) == (True, "unbonding")
    assert list(done["withdrawable_at_ms"]) == ["worker-1"]


async def test_what_a_slash_left_is_withdrawn_once(slow_fleet: Any, live_net: Any) -> None:
    fleet = await slow_fleet(unbonding_window_ms=1_000)
    await fleet("sui_stake", workers=[worker("worker-1")], stake="2")
    await fleet.registry.slash_now("worker-1", 4, bytes(32))
    assert not (await fleet("sui_stake", workers=[{"node_id": "worker-1"}], state="unbonding"))["changed"]
    live_net.clock.advance(1_001)
    done = await fleet("sui_stake", workers=[{"node_id": "worker-1"}], state="withdrawn")
    assert (done["changed"], done["preview"]["stake_returned_mist"]) == (True, SUI)
    assert done["diff"]["after"] == {"worker-1": "slashed"}
    assert not (await fleet("sui_stake", workers=[{"node_id": "worker-1"}], state="withdrawn"))["changed"]


async def test_the_withdrawal_address_may_take_its_own(slow_fleet: Any, new_operator: Any) -> None:
    fleet, cold, stranger = await slow_fleet(), await new_operator(), await new_operator()
    cold.ids = stranger.ids = fleet.ids
    await fleet("sui_stake", workers=[worker("worker-1")], withdrawal_address=cold.chain.address)
    names = [{"node_id": "worker-1"}]
    refused = await cold("sui_stake", workers=names, state="withdrawn")  # it can't make a worker leave
    assert f"belongs to {fleet.chain.address}" in refused["msg"]
    await fleet("sui_stake", workers=names, state="unbonding")
    refused = await stranger("sui_stake", workers=names, state="withdrawn")
    assert f"belongs to {fleet.chain.address}" in refused["msg"]
    done = await cold("sui_stake", workers=names, state="withdrawn")
    assert (done["changed"], done["preview"]["stake_returned_mist"]) == (True, SUI)


async def test_the_jailed_can_not_leave(slow_fleet: Any) -> None:
    fleet = await slow_fleet(slash_window_ms=3_600_000)
    await fleet("sui_stake", workers=[worker("worker-1"), worker("worker-2")])
    await fleet.registry.propose_slash("worker-1", 4, bytes(32))
    for state in ("unbonding", "withdrawn"):
        names = [{"node_id": "worker-2"}, {"node_id": "worker-1"}]
        result = await fleet("sui_stake", workers=names, state=state)
        assert "worker-1 is jailed" in result["msg"]
        assert "cancel" in result["msg"]
    assert (await statuses(fleet))["worker-2"] == "pending"


async def test_nobody_leaves_what_does_not_exist(new_operator: Any) -> None:
    operator = await new_operator()
    operator.ids = {"package_id": "", "registry_id": ""}
    result = await operator("sui_stake", check=True, workers=[{"node_id": "a"}], state="unbonding")
    assert "would only be created by this run" in result["msg"]
    bad = await operator("sui_stake", check=True, workers=[{"node_id": "A"}], state="unbonding")
    assert "RFC 1123" in bad["msg"]


# -- previews ----------------------------------------------------------------------------------------------


async def test_the_operator_reads_what_the_stake_means(slow_fleet: Any) -> None:
    fleet = await slow_fleet(slash_window_ms=259_200_000, unbonding_window_ms=604_800_000, name="prod")
    workers = [worker(f"worker-{i}") for i in range(7)]
    shown = (await fleet("sui_stake", check=True, workers=workers))["preview"]
    text = "\n".join(shown["summary"])
    assert "Stakes 7 SUI for 7 workers" in text
    assert "worker-4 and 2 more" in text
    assert "'prod'" in text
    assert f"paid back to {fleet.chain.address}" in text
    assert "A slash takes 50 % of a worker's stake, 3 d after it is proposed" in text
    assert "Stake comes back 7 d after leaving" in text
    assert " SUI before, 92.9" in text
    made = await fleet("sui_stake", workers=workers)
    assert made["preview"] == shown


async def test_the_money_for_all_must_be_there_before_any_is_sent(
    new_operator: Any, new_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staking.StakePlan.operation, "__defaults__", (2,))
    operator = await new_operator(5 * SUI)
    registry = await new_registry()
    operator.ids = {
        "package_id": registry.deployment.package_id,
        "registry_id": registry.deployment.registry_id,
    }
    result = await operator("sui_stake", workers=[worker(f"worker-{i}") for i in range(5)])
    assert result["error"] == "InsufficientGas"
    assert await balance(operator) == 5 * SUI
    some = await operator("sui_stake", workers=[worker(f"worker-{i}") for i in range(4)])
    assert (some["preview"]["transactions"], len(some["digests"])) == (2, 2), some


async def test_a_fleet_larger_than_a_transaction_takes_several(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staking.StakePlan.operation, "__defaults__", (3,))
    workers = [worker(f"worker-{i}") for i in range(8)]
    await fleet("sui_stake", workers=workers[2:4])
    planned = await fleet("sui_stake", check=True, workers=workers)
    assert planned["preview"]["transactions"] == 2
    done = await fleet("sui_stake", workers=workers)
    assert len(set(done["digests"])) == 2
    assert len(done["workers"]) == 8
    assert all(one["seal_token"]["generation"] == 1 for one in done["workers"].values())
    assert not (await fleet("sui_stake", workers=workers))["changed"]


async def test_an_interrupted_rotation_is_named(fleet: Any) -> None:
    await fleet("sui_stake", workers=[worker("worker-1")])
    waiting = hashlib.sha256(b"next").digest()
    entry = worker("worker-1", next_commitment=waiting.hex())
    assert not (await fleet("sui_stake", workers=[entry]))["failed"]  # not on-chain yet: nothing is wrong
    await fleet.registry.rotate_worker_token("worker-1", waiting, await fleet.registry.clock_ms() + 60_000)
    result = await fleet("sui_stake", workers=[entry])
    assert "Run playbooks/rotate.yml -e rotate=seal_tokens, which finishes it" in result["msg"]


async def test_a_stake_is_raised_to_what_is_wanted_and_never_lowered(fleet: Any) -> None:
    await fleet("sui_stake", workers=[worker("a"), worker("b"), worker("c")], stake="2")
    wanted = [worker("a"), worker("b", stake_mist=2 * SUI), worker("c"), worker("d")]
    planned = await fleet("sui_stake", check=True, workers=wanted, stake="3")
    assert planned["added"] == {"a": SUI, "c": SUI}, planned
    assert planned["preview"]["stake_locked_mist"] == 5 * SUI
    assert "Adds 2 SUI to the stakes of a, c." in planned["preview"]["summary"]
    done = await fleet("sui_stake", workers=wanted, stake="3")
    assert done["diff"] == planned["diff"]
    assert done["diff"]["after"]["a"]["stake"] == "3 SUI"
    stakes = {name: one["stake_mist"] // SUI for name, one in done["workers"].items()}
    assert stakes == {"a": 3, "b": 2, "c": 3, "d": 3}
    assert await balance(fleet) == planned["preview"]["balance_before_mist"] - 5 * SUI - done["gas_mist"]
    again = await fleet("sui_stake", workers=wanted, stake="3")
    assert (again["changed"], again["added"]) == (False, {})
    assert not (await fleet("sui_stake", workers=wanted, stake="1"))["changed"]
    await fleet.registry.slash_now("a", 4, bytes(32))
    assert not (await fleet("sui_stake", workers=[worker("a")], stake="9"))["changed"]
