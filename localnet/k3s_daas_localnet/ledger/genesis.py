"""What a new chain starts with: the framework's packages, the clock and the faucet's coin."""

from __future__ import annotations

from ..vm import Module, framework_modules
from .encoding import ZERO_ADDRESS, blake2b, u64
from .objects import (
    CLOCK,
    CLOCK_ID,
    IMMUTABLE,
    SUI_COIN,
    LedgerObject,
    Owner,
    Upgraded,
)
from .packages import package_data

# All SUI there ever is, in MIST.
TOTAL_SUPPLY = 10_000_000_000 * 10**9
# Nobody holds a key of it: the node itself sends the faucet's transactions.
FAUCET = blake2b(b"k3s-daas localnet faucet")
_FAUCET_COIN = blake2b(b"k3s-daas localnet faucet coin")


def objects(now_ms: int) -> list[LedgerObject]:
    """The first objects, all at version 1.

    :param now_ms: time the clock starts at, in ms.
    """
    found = [*_framework(), clock(now_ms)]
    coin = LedgerObject(
        _FAUCET_COIN,
        1,
        Owner("address", FAUCET),
        ZERO_ADDRESS,
        0,
        type=SUI_COIN,
        contents=_FAUCET_COIN + u64(TOTAL_SUPPLY),
        public_transfer=True,
    )
    return [*found, coin]


def clock(now_ms: int) -> LedgerObject:
    """The clock object showing ``now_ms``. It keeps version 1: what it shows is not history."""
    shared = Owner("shared", version=1)
    return LedgerObject(CLOCK_ID, 1, shared, ZERO_ADDRESS, 0, type=CLOCK, contents=CLOCK_ID + u64(now_ms))


def _framework() -> list[LedgerObject]:
    packages: dict[bytes, list[Module]] = {}
    for module in framework_modules():
        packages.setdefault(module.address, []).append(module)
    found: list[LedgerObject] = []
    for package_id, modules in packages.items():
        used = {dependency.address for module in modules for dependency in module.dependencies()}
        linkage = {other: Upgraded(other, 1) for other in sorted(used - {package_id})}
        data = package_data(modules, linkage)
        found.append(LedgerObject(package_id, 1, IMMUTABLE, ZERO_ADDRESS, 0, package=data))
    return found
