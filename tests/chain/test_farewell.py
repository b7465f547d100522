"""A master's wallet is emptied before its key goes, on a real chain."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas.registry import Registry
from k3s_daas_master.farewell import DUST_MIST, give_all

pytestmark = pytest.mark.asyncio(loop_scope="session")
HOME = "0x" + "fa" * 32
SUI = 1_000_000_000


async def test_gas_in_several_coins_and_capabilities_arrive(new_registry: Any, new_wallet: Any) -> None:
    registry: Registry = await new_registry()
    master = await new_wallet()
    await registry.appoint_master(master.address)
    slasher = await registry.cap("SlasherCap")
    for _ in range(2):
        await registry.send(master.address, SUI // 4)

    async def hand_over(tx: Any) -> None:
        tx.transfer([tx.object(slasher)], master.address)

    await registry.chain.execute(hand_over)
    before = await master.balance(master.address)
    own = Registry(master, registry.deployment)
    done = await give_all(own, HOME)
    assert (done.account, done.balance_mist) == (master.address, before)
    assert len(done.digests) >= 2
    assert await master.balance(master.address) == done.left_mist < DUST_MIST
    arrived = await master.balance(HOME)
    assert before - 0.05 * SUI < arrived < before
    assert await own.find_cap("SlasherCap", HOME) == slasher
    assert done.caps == {}

    again = await give_all(own, HOME)
    assert (again.digests, again.left_mist) == ([], done.left_mist)
    assert await master.balance(HOME) == arrived
