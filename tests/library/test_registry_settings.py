"""sui_registry: the registry is created once, and its settings are brought to what is asked for."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

Operator = Any  # of conftest.py
pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
DAY_MS = 86_400_000
PLANNED = "published by this run"
FIVE = "0x" + "0" * 63 + "5"
TERMS = {
    "name": "fleet",
    "open": False,
    "allowed_owners": ["0x5"],
    "min_stake": "1.5",
    "slash_window_ms": DAY_MS,
    "unbonding_window_ms": 2 * DAY_MS,
    "slash_share_bps": 2500,
    "require_attestation": False,
}
RATES = {"per_request": "0.001", "per_ready_hour": "0.01", "cap_per_epoch": "1"}


@pytest.fixture
def registry(new_operator: Any, live_package: Any) -> Any:
    """`await registry(**terms)`: an operator with a registry of TERMS, changed so."""

    async def make(**terms: Any) -> Operator:
        operator = await new_operator()
        made = await operator("sui_registry", package_id=live_package[1], **TERMS | terms)
        assert made["changed"], made
        operator.ids = {"package_id": live_package[1], "registry_id": made["registry_id"]}
        return operator

    return make


async def settings(operator: Operator, check: bool = False, **terms: Any) -> dict[str, Any]:
    result = await operator("sui_registry", check=check, registry_id=None, **TERMS | terms)
    assert isinstance(result, dict)
    return result


async def test_created_once_and_shown_before(new_operator: Any, live_package: Any) -> None:
    operator = await new_operator()
    operator.ids = {"package_id": live_package[1]}
    planned = await settings(operator, check=True, reward_rates=RATES)
    assert (planned["changed"], planned["registry_id"], planned["digests"]) == (True, PLANNED, []), planned
    preview, text = planned["preview"], " ".join(planned["preview"]["summary"])
    assert preview["gas_estimate_mist"] == planned["gas_mist"] > 0
    assert preview["balance_after_mist"] == 100 * SUI - planned["gas_mist"]
    assert preview["slash_conditions"]["slash_window_ms"] == DAY_MS
    for words in (
        f"Creates registry 'fleet', in which only listed owners may stake ({FIVE}), with at least 1.5 SUI",
        "A slash takes 25 % of a worker's stake, 1 d after it is proposed",
        "attestation can be required later, for ever",
        f"capabilities all go to {operator.chain.address}: AdminCap, who holds it changes the owners",
        "ArbiterCap, who holds it cancels proposed slashes",
        "Owners and reward rates take a second transaction",
    ):
        assert words in text

    made = await settings(operator, reward_rates=RATES)
    assert (made["changed"], len(made["digests"])) == (True, 2), made
    assert made["preview"] == preview
    assert made["diff"] == planned["diff"]
    assert await operator.chain.balance(operator.chain.address) == 100 * SUI - made["gas_mist"]
    operator.ids |= {"registry_id": made["registry_id"]}
    config = await operator.registry.config()
    assert (config.name, config.open, config.min_stake_mist) == ("fleet", False, 1_500_000_000)
    assert (config.slash_window_ms, config.unbonding_window_ms) == (DAY_MS, 2 * DAY_MS)
    assert (config.slash_share_bps, config.allowed_owners) == (2500, {FIVE})
    assert config.rates.per_ready_hour_mist == SUI // 100
    before = await operator.sent()
    for check in (False, True):
        again = await settings(operator, check, reward_rates=RATES)
        assert (again["changed"], again["registry_id"]) == (False, made["registry_id"])
        assert again["diff"]["before"] == again["diff"]["after"]
        assert len(again["preview"]["summary"]) == 1
    assert await operator.sent() == before


async def test_settings_are_changed_in_one_transaction(registry: Any) -> None:
    operator = await registry(open=True, min_stake="1")
    staked = {"node_id": "old", "commitment": hashlib.sha256(b"old").hexdigest()}
    await operator("sui_stake", workers=[staked])
    wanted = {
        "open": True,
        "allowed_owners": ["0x6", "0x7"],
        "min_stake": "2",
        "slash_window_ms": 3 * DAY_MS,
        "slash_share_bps": 5000,
        "reward_rates": RATES,
    }
    planned = await settings(operator, check=True, **wanted)
    assert (planned["changed"], planned["digests"]) == (True, []), planned
    assert planned["preview"]["transactions"] == 1
    text = " ".join(planned["preview"]["summary"])
    for words in (
        f"Lets {FIVE[:-1]}6, {FIVE[:-1]}7 stake.",
        f"Takes {FIVE} off the list: no new stakes; the workers they have stay.",
        "from (minimum 1 SUI, slash window 1 d, unbonding window 2 d, slash share 25 %) to (minimum 2 SUI, "
        "slash window 3 d, unbonding window 2 d, slash share 50 %), for workers that stake from now on",
        "the pool, which holds 0 SUI, pays 0.001 SUI for a served request and 0.01 SUI for an hour",
    ):
        assert words in text
    done = await settings(operator, **wanted)
    assert (len(done["digests"]), done["diff"]) == (1, planned["diff"])
    assert done["gas_mist"] == planned["preview"]["gas_estimate_mist"]
    assert done["diff"]["before"]["allowed_owners"] == [FIVE]
    assert done["diff"]["after"]["reward_rates"]["cap_per_epoch_mist"] == SUI
    config = await operator.registry.config()
    assert (config.min_stake_mist, config.slash_window_ms, config.slash_share_bps) == (
        2 * SUI,
        3 * DAY_MS,
        5000,
    )
    assert config.allowed_owners == {f"{FIVE[:-1]}6", f"{FIVE[:-1]}7"}
    assert (await operator.registry.worker("old")).slash_share_bps == 2500
    # What isn't given is left alone.
    kept = await settings(operator, **wanted | {"allowed_owners": None, "reward_rates": None})
    assert (kept["changed"], kept["diff"]["after"]) == (False, done["diff"]["after"])


async def test_attestation_is_required_for_ever(registry: Any) -> None:
    operator = await registry()
    await operator("sui_master", account="0x77", gas="0")
    planned = await settings(operator, check=True, require_attestation=True)
    assert (planned["changed"], planned["digests"]) == (True, [])
    text = " ".join(planned["preview"]["summary"])
    assert "Requires attested masters from now on, for ever." in text
    assert f"The master {FIVE[:-2]}77 (epoch 1) has no attestation and is none any more at once" in text
    assert (await operator.registry.master()).epoch == 1
    done = await settings(operator, require_attestation=True)
    assert done["changed"], done
    config = await operator.registry.config()
    assert (config.require_attestation, config.master) == (True, None)
    assert not (await settings(operator, require_attestation=True))["changed"]
    for check in (False, True):
        back = await settings(operator, check=check)
        assert "There is no way back from it" in back["msg"]


async def test_whether_it_is_open_is_fixed(registry: Any) -> None:
    operator = await registry()
    result = await settings(operator, open=True)
    assert result["error"] == "CantChange"
    assert "was created with open=False, wanted True" in result["msg"]


@pytest.mark.parametrize(
    ("terms", "wrong"),
    [
        ({"min_stake": "0.5"}, "EMinStakeTooLow"),
        ({"min_stake": "1e9"}, "wanted an amount"),
        ({"slash_window_ms": 31 * 86_400_000}, "EWindowTooLong"),
        ({"slash_share_bps": 5001}, "ESlashShareTooHigh"),
        ({"slash_window_ms": -1}, "wanted 0 or more"),
        ({"name": "n" * 65}, "EInvalidName"),
        ({"package_id": "0xdead"}, "dead"),
        ({"package_id": "nonsense"}, "wanted a Sui address"),
        ({"package_id": PLANNED}, "Only check mode plans"),
        ({"allowed_owners": ["me"]}, "wanted a Sui address"),
        ({"reward_rates": RATES | {"per_request": "-1"}}, "wanted an amount"),
        ({"reward_rates": {"per_request": "1"}}, "missing required arguments"),
    ],
)
async def test_refused_before_anything_is_sent(
    new_operator: Any, live_package: Any, terms: dict[str, Any], wrong: str
) -> None:
    operator = await new_operator()
    usual = {
        "name": "fleet",
        "package_id": live_package[1],
        "open": True,
        "slash_window_ms": 0,
        "unbonding_window_ms": 0,
        "require_attestation": False,
    }
    result = await operator("sui_registry", **usual | terms)
    assert result["failed"]
    assert wrong in result["msg"]
    assert await operator.chain.balance(operator.chain.address) == 100 * SUI
