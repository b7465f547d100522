"""How many workers one transaction carries under the network's limits."""

from __future__ import annotations

import pytest
from contract_fleet import DAY_MS, SUI, Fleet, Network, aborts, digest

from k3s_daas.chain import Receipt, SuiClient, Transaction

pytestmark = pytest.mark.asyncio(loop_scope="session")
# 3 records a worker (worker, token, used commitment) and one for the owner, of at most 1,000 cached objects.
MOST = 333


async def stake_and_mint(fleet: Fleet, wallet: SuiClient, node_ids: list[str]) -> Receipt:
    async def build(tx: Transaction) -> None:
        registry, clock = tx.object(fleet.registry), tx.object("0x6", mutable=False)
        (payment,) = tx.split([len(node_ids) * SUI])
        names = tx.strings(node_ids)
        to = tx.address(wallet.require_address())
        tx.call(
            f"{fleet.package}::worker_registry::stake_and_register_workers",
            [registry, payment, names, tx.u64s([SUI] * len(node_ids)), to, clock],
        )
        commitments = tx.byte_vectors([digest(f"{fleet.registry} {name}") for name in node_ids])
        expires = tx.u64s([fleet.now_ms + DAY_MS] * len(node_ids))
        tx.call(
            f"{fleet.package}::k8s_gateway::create_worker_seal_tokens",
            [registry, names, commitments, expires, clock],
        )

    return await wallet.execute(build)


async def test_stake_and_mint_for_as_many_as_the_network_allows(network: Network, fleet: Fleet) -> None:
    owner = await network.wallet(1_000 * SUI)
    receipt = await stake_and_mint(fleet, owner, [f"worker-{number:03}" for number in range(MOST)])
    assert len(receipt.events) == 3 * MOST
    assert (await fleet.read())["staked"] == str(MOST * SUI)


async def test_200_workers_with_the_longest_names(network: Network, fleet: Fleet) -> None:
    owner = await network.wallet(1_000 * SUI)
    await stake_and_mint(fleet, owner, [f"{number:063}" for number in range(200)])
    assert (await fleet.read())["workers"]["size"] == "200"


async def test_an_owner_has_at_most_1000_workers(network: Network, fleet: Fleet) -> None:
    owner = await network.wallet(2_000 * SUI)
    for first in range(0, 1_000, 500):
        await fleet.stake_many(owner, [f"w-{first + number}" for number in range(500)], [SUI] * 500)
    with aborts("ETooManyWorkers"):
        await fleet.stake(owner, "one-more")
