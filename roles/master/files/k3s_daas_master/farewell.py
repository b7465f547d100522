"""Giving back what the master's wallet holds, before its key goes: gas and capabilities, to the operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from k3s_daas.chain import Key, SuiClient
from k3s_daas.chain.transaction import Transaction
from k3s_daas.registry import Registry
from k3s_daas_master.config import Config

#: Of the capabilities, those that mean something in another wallet. A MasterCap does not.
CAPS = ("AdminCap", "OperatorCap", "SlasherCap", "ArbiterCap")
#: A coin of less isn't worth the transaction that would send it.
DUST_MIST = 5_000_000
#: Gas comes as one coin each time it is topped up, and one transaction gives one coin.
_MOST_COINS = 100


@dataclass
class Farewell:
    """`balance_mist` is what the wallet held, `left_mist` what stays in it; `caps` by kind."""

    account: str
    balance_mist: int
    left_mist: int
    caps: dict[str, str]
    digests: list[str] = field(default_factory=list)


async def look(config: Config, key: Key) -> Farewell:
    """What there is to give back. Raises ChainError."""
    async with await SuiClient.connect(config.endpoints, config.network, key, config.chain_id) as chain:
        return await _held(Registry(chain, config.deployment))


async def give_back(config: Config, key: Key, to: str) -> Farewell:
    """Send all of it to the address `to`; a second time there is nothing left. Raises ChainError.

    The service must be stopped: two that pay from one wallet get into each other's way.
    """
    async with await SuiClient.connect(config.endpoints, config.network, key, config.chain_id) as chain:
        return await give_all(Registry(chain, config.deployment), to)


async def give_all(registry: Registry, to: str) -> Farewell:
    chain = registry.chain
    found = await _held(registry)
    caps = list(found.caps.values())
    for _ in range(_MOST_COINS):
        if found.left_mist < DUST_MIST:
            break
        # The gas coin itself: what the transaction doesn't use of it arrives.
        receipt = await chain.execute(partial(_write, caps, to))
        caps = []
        found.digests.append(receipt.digest)
        found.left_mist = await chain.balance(found.account)
    found.caps = (await _held(registry)).caps
    return found


async def _held(registry: Registry) -> Farewell:
    account = registry.chain.require_address()
    balance = await registry.chain.balance(account)
    caps = {kind: cap for kind in CAPS if (cap := await registry.find_cap(kind, account)) is not None}
    return Farewell(account, balance, balance, caps)


async def _write(caps: list[str], to: str, tx: Transaction) -> None:
    tx.transfer([tx.GAS, *(tx.object(cap) for cap in caps)], to)
