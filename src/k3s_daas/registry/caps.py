"""Who may do what: a registry's capabilities, and that no address both proposes slashes and cancels them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from k3s_daas.chain.bcs import normalize_address
from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.operation import Operation

if TYPE_CHECKING:
    from k3s_daas.chain.transaction import Transaction
    from k3s_daas.registry.client import Registry


#: What each capability lets its holder do, as the end of a sentence.
RIGHTS = {
    "AdminCap": (
        "changes the owners that may stake, the terms and the reward rates, moves the treasury to the reward "
        "pool, requires attestation and migrates the registry"
    ),
    "OperatorCap": "appoints masters and lists the images that may attest as one",
    "SlasherCap": "proposes slashes, which jail a worker at once",
    "ArbiterCap": "cancels proposed slashes",
}


class WrongHolder(ChainError):
    """A capability that is, or would be, in the wrong hands."""


def check_separate(network: str, slasher: str, arbiter: str) -> None:
    """Refuse one address for proposing slashes and for cancelling them, except on a localnet."""
    if network != "localnet" and normalize_address(slasher) == normalize_address(arbiter):
        raise WrongHolder(
            f"Found {slasher} as slasher and as arbiter on {network}, wanted two addresses: whoever holds "
            "both keys takes any worker's stake and nobody can stop it. Give the ArbiterCap to somebody "
            "else's address."
        )


def planned_caps(moves: Mapping[str, str]) -> Operation:
    """Handing capabilities on that only this run would make."""
    return Operation(meaning=_meaning(moves))


def _meaning(moves: Mapping[str, str]) -> list[str]:
    return [
        f"Gives the {kind} to {address}: who holds it {RIGHTS[kind]}. Only that key can use it from then on, "
        "or hand it on."
        for kind, address in moves.items()
    ]


async def plan_caps(registry: Registry, wanted: Mapping[str, str]) -> tuple[dict[str, str], Operation]:
    """(present holders, what to send) of bringing capabilities ("SlasherCap", …) to addresses. WrongHolder
    when the wallet can't, since neither it nor that address holds one."""
    wallet = registry.chain.require_address()
    moves: dict[str, tuple[str, str]] = {}
    holders = {}
    for kind, address in wanted.items():
        cap = await registry.find_cap(kind, wallet)
        if address != wallet and await registry.find_cap(kind, address):
            holders[kind] = address
        elif cap is None:
            raise WrongHolder(
                f"Neither the wallet {wallet} nor {address} holds the {kind} of registry "
                f"{registry.deployment.registry_id}, wanted it at {address}. Only its holder can hand it "
                "on: use that key, or name the address that has it."
            )
        else:
            holders[kind] = wallet
            if address != wallet:
                moves[kind] = (cap, address)

    async def build(tx: Transaction) -> None:
        for cap_id, address in moves.values():
            tx.transfer([tx.object(cap_id)], address)

    meaning = _meaning({kind: address for kind, (_, address) in moves.items()})
    return holders, Operation([build] if moves else [], meaning=meaning)
