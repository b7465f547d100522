"""What an operator signs: transactions, what they mean, what they cost, and what is left afterwards.

Everything that moves money goes through here, so that the same words and figures are shown in check mode and
before a real run sends anything. Amounts in MIST, times in ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k3s_daas.chain.errors import InsufficientGas
from k3s_daas.chain.model import Event
from k3s_daas.units import format_sui

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient
    from k3s_daas.chain.transaction import Build
    from k3s_daas.registry.model import RegistryConfig, RegistryParams, Worker

#: Names of the contract's reason codes, in their order from 1.
REASONS = ("conflicting heartbeats", "refused drain", "proven wrong result", "operator decision")
_SHOWN = 5


@dataclass(frozen=True)
class Operation:
    """Transactions in the order in which they are sent, none when there is nothing to do.

    `locks_mist` goes from the wallet into the contract, `returns_mist` from the contract to the wallet,
    `pays_mist` from the wallet to others for good. `meaning` is what the operator agrees to, in sentences.
    """

    builds: Sequence[Build] = ()
    locks_mist: int = 0
    returns_mist: int = 0
    pays_mist: int = 0
    meaning: Sequence[str] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """What simulating an operation told: its preview for people and modules, and its events."""

    preview: dict[str, Any]
    events: list[Event]


@dataclass(frozen=True)
class Done:
    digests: list[str]
    gas_mist: int
    events: list[Event]
    created: dict[str, list[str]]


async def estimate(chain: SuiClient, operation: Operation) -> Estimate:
    """Simulate all of it; nothing is sent. Raises what sending would, InsufficientGas also when only the
    transactions together are too much."""
    address = chain.require_address()
    before = await chain.balance(address)
    simulated = [await chain.simulate(build) for build in operation.builds]
    gas = sum(one.gas_mist for one in simulated)
    needed = operation.locks_mist + operation.pays_mist + max(gas, 0)
    if simulated and before < needed:
        raise InsufficientGas(before, needed, address)
    shown = preview(operation, address, before, gas)
    return Estimate(shown, [event for one in simulated for event in one.events])


def preview(operation: Operation, address: str, before_mist: int, gas_mist: int | None) -> dict[str, Any]:
    """The figures and the words; `gas_mist` is None where nothing can be simulated yet."""
    out = operation.locks_mist + operation.pays_mist + (gas_mist or 0)
    after = before_mist - out + operation.returns_mist
    count = len(operation.builds)
    lines = list(operation.meaning) or ["Nothing to do: nothing is sent and nothing is paid."]
    if count or (operation.meaning and gas_mist is None):
        lines.append(
            f"Gas: {_told(gas_mist)}, in {max(count, 1)} transaction{'' if count < 2 else 's'}. "
            f"Wallet {address}: {format_sui(before_mist)} before, {format_sui(after)} after."
        )
    return {
        "transactions": count,
        "gas_estimate_mist": gas_mist,
        "stake_locked_mist": operation.locks_mist,
        "stake_returned_mist": operation.returns_mist,
        "paid_mist": operation.pays_mist,
        "balance_before_mist": before_mist,
        "balance_after_mist": after,
        "slash_conditions": dict(operation.conditions),
        "summary": lines,
    }


def _told(gas_mist: int | None) -> str:
    if gas_mist is None:
        return "can't be estimated before what it works on exists"
    if gas_mist < 0:  # what was stored on-chain is freed, and the deposit for it is more than the fee
        return f"about {format_sui(-gas_mist)} come back"
    return f"about {format_sui(gas_mist)}"


async def carry_out(chain: SuiClient, operation: Operation) -> Done:
    """Send its transactions, one after the other. What a failure leaves undone, the next run finds undone."""
    receipts = [await chain.execute(build) for build in operation.builds]
    created: dict[str, list[str]] = {}
    for receipt in receipts:
        for kind, ids in receipt.created.items():
            created.setdefault(kind, []).extend(ids)
    return Done(
        [receipt.digest for receipt in receipts],
        sum(receipt.gas_mist for receipt in receipts),
        [event for receipt in receipts for event in receipt.events],
        created,
    )


# -- words -------------------------------------------------------------------------------------------------


def names(node_ids: Sequence[str]) -> str:
    """`a, b and 48 more`: every name matters less than that people read the line."""
    shown, more = list(node_ids[:_SHOWN]), len(node_ids) - _SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def duration(ms: int) -> str:
    """Exact, in the largest unit that divides it: 259200000 is "3 d"."""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms and ms % length == 0:
            return f"{ms // length} {unit}"
    return f"{ms} ms"


def slash_conditions(terms: RegistryConfig | RegistryParams | Worker) -> dict[str, Any]:
    """What a staker agrees to; windows in ms."""
    return {
        "slash_share_percent": terms.slash_share_bps / 100,
        "slash_window_ms": terms.slash_window_ms,
        "unbonding_window_ms": terms.unbonding_window_ms,
        "reasons": list(REASONS),
    }


def conditions_in_words(terms: RegistryConfig | RegistryParams | Worker) -> str:
    slash, leave = terms.slash_window_ms, terms.unbonding_window_ms
    return (
        f"A slash takes {terms.slash_share_bps / 100:g} % of a worker's stake, "
        f"{f'{duration(slash)} after' if slash else 'as soon as'} it is proposed, for "
        f"{', '.join(REASONS[:-1])} or {REASONS[-1]}. Stake comes back "
        f"{f'{duration(leave)} after leaving' if leave else 'at once'}, to the withdrawal address only."
    )
