"""What a transaction costs. The model is synthetic but has the shape of Sui's.

Computation: on top of a base of 1,000 units, a unit per thousand of instruction cost and one per 8 bytes
published, rounded up to whole thousands, at most 5,000,000; times the gas price (MIST per unit). An
instruction costs more the more of them a transaction runs (Sui's instruction tiers): see ``_TIERS``.
Storage: 7,600 MIST per byte of every written object's BCS form (100 units a byte at 76 MIST), and the fee
tied up in the replaced or deleted version comes back less 1 %, which is never refunded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .limits import MAX_COMPUTATION_UNITS

MIST_PER_STORED_BYTE = 7_600
BASE_UNITS = 1_000
_ROUNDING = 1_000
_COST_PER_UNIT = 1_000
# Up to so many instructions, each costs so much; beyond the last, _TOP_COST.
_TIERS = ((20_000, 1), (50_000, 2), (100_000, 10), (200_000, 50))
_TOP_COST = 100
# A bound of this network's own: an interpreter in Python takes about a second for so many, during which
# nobody else is served. They cost 0.49 SUI at the reference price; the highest budget on a public network,
# 50 SUI, pays for some 50 million.
_MAX_STEPS = 5_000_000
_REBATE_BASIS_POINTS = 9_900
REFERENCE_GAS_PRICE = 1_000


@dataclass(frozen=True)
class GasSummary:
    """Costs of one transaction, all in MIST."""

    computation: int
    storage: int
    rebate: int
    non_refundable: int

    @property
    def net(self) -> int:
        """What the payer loses; negative when storage freed pays for more than was used."""
        return self.computation + self.storage - self.rebate


def storage_fee(encoded_bytes: int) -> int:
    """MIST tied up in an object of this many BCS bytes."""
    return encoded_bytes * MIST_PER_STORED_BYTE


def computation_units(steps: int, published_bytes: int = 0) -> int:
    """Units billed for ``steps`` instructions and the publishing of ``published_bytes``."""
    used = BASE_UNITS + _instruction_cost(steps) // _COST_PER_UNIT + published_bytes // 8
    return min(-(-used // _ROUNDING) * _ROUNDING, MAX_COMPUTATION_UNITS)


def _instruction_cost(steps: int) -> int:
    cost = reached = 0
    for upto, each in _TIERS:
        cost += max(0, min(steps, upto) - reached) * each
        reached = upto
    return cost + max(0, steps - reached) * _TOP_COST


def step_bound(budget: int, price: int) -> int:
    """Instructions a budget (MIST) pays for at ``price`` MIST a unit."""
    units = min(budget // max(price, 1), MAX_COMPUTATION_UNITS) - BASE_UNITS
    left = max(units, 0) * _COST_PER_UNIT
    steps = 0
    for upto, each in _TIERS:
        affordable = min(left // each, upto - steps)
        steps += affordable
        left -= affordable * each
        if steps < upto:
            return steps
    return min(steps + left // _TOP_COST, _MAX_STEPS)


def summarize(units: int, price: int, written: Iterable[int], replaced: Iterable[int]) -> GasSummary:
    """The bill.

    :param written: storage fees of the objects written, in MIST.
    :param replaced: fees tied up in the versions they replace and in deleted objects, in MIST.
    """
    tied_up = sum(replaced)
    rebate = tied_up * _REBATE_BASIS_POINTS // 10_000
    return GasSummary(units * price, sum(written), rebate, tied_up - rebate)
