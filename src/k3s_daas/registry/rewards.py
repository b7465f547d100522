"""Deciding about rewards: filling the pool, and paying out what workers earned. Amounts in MIST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.client import CLOCK_ID, Registry
from k3s_daas.registry.model import RegistryConfig, Worker
from k3s_daas.registry.operation import Operation, names
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Build, Transaction

#: Workers in one transaction; each makes the node look at about four objects, of at most 1,000.
BATCH = 100
_BPS = 10_000


class CantReward(ChainError):
    """Rewards that can't be funded or claimed."""


async def plan_funding(
    registry: Registry, config: RegistryConfig, target_mist: int, source: Literal["wallet", "treasury"]
) -> tuple[int, Operation]:
    """(MIST that go into the pool, what to send) of the pool holding at least `target_mist`.

    From the treasury, which needs the AdminCap, as much as it has.
    """
    missing = max(0, target_mist - config.pool_mist)
    if source == "treasury":
        return await _from_treasury(registry, config, missing)
    if not missing:
        return 0, Operation()

    async def build(tx: Transaction) -> None:
        registry.call(tx, "rewards::fund_rewards", *tx.split([missing]))

    meaning = [
        f"Gives {format_sui(missing)} of the wallet to the reward pool of {config.name!r}, which then holds "
        f"{format_sui(target_mist)}. Nothing of it comes back; it is paid to workers at the registry's "
        "rates.",
    ]
    return missing, Operation([build], pays_mist=missing, meaning=meaning)


async def _from_treasury(registry: Registry, config: RegistryConfig, missing: int) -> tuple[int, Operation]:
    treasury = config.treasury_mist
    if not missing or not treasury:
        return 0, Operation()
    # The contract takes a share; rounded up, so that the pool reaches its target.
    share = min(_BPS, -(-missing * _BPS // treasury))
    moved = treasury * share // _BPS
    cap = await registry.cap("AdminCap")

    async def build(tx: Transaction) -> None:
        registry.call(tx, "rewards::move_treasury", tx.object(cap), tx.u64(share))

    meaning = [
        f"Moves {format_sui(moved)} of the {format_sui(treasury)} in the treasury of {config.name!r} to its "
        f"reward pool, which then holds {format_sui(config.pool_mist + moved)}. There is no way back.",
    ]
    return moved, Operation([build], meaning=meaning)


def plan_claims(
    registry: Registry, workers: Mapping[str, Worker], node_ids: Sequence[str] | None
) -> tuple[dict[str, int], Operation]:
    """(MIST that each worker is paid, what to send) of the workers' rewards being paid out, all workers'
    without `node_ids`. Anybody may: they go to the withdrawal addresses. CantReward on an unknown name."""
    if unknown := [name for name in node_ids or () if name not in workers]:
        raise CantReward(
            f"Found no worker {names(unknown)} in registry {registry.deployment.registry_id}, wanted workers "
            "with a record. Check the names; a worker that withdrew got its rewards with its stake."
        )
    asked = sorted(workers) if node_ids is None else list(dict.fromkeys(node_ids))
    due = {name: workers[name].rewards_mist for name in asked if workers[name].rewards_mist}
    paid = list(due)
    meaning = []
    for address in sorted({workers[name].withdrawal_address for name in paid}):
        own = [name for name in paid if workers[name].withdrawal_address == address]
        total = sum(due[name] for name in own)
        meaning.append(f"Pays {format_sui(total)}, the rewards of {names(own)}, to {address}.")
    wallet = registry.chain.require_address()
    returned = sum(due[name] for name in paid if workers[name].withdrawal_address == wallet)
    builds = [_claiming(registry, paid[start : start + BATCH]) for start in range(0, len(paid), BATCH)]
    return due, Operation(builds, returns_mist=returned, meaning=meaning)


def _claiming(registry: Registry, node_ids: Sequence[str]) -> Build:
    async def build(tx: Transaction) -> None:
        clock = tx.object(CLOCK_ID, mutable=False)
        for name in node_ids:
            registry.call(tx, "rewards::claim_rewards", tx.string(name), clock)

    return build
