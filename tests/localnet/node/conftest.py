"""A network with the probe package on it, and a real pysui client to talk to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from k3s_daas_localnet import Localnet, compiler

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from localnet_wallet import Probe, Wallet

MOVE_DIR = Path(__file__).parent / "move"
SUI = 1_000_000_000


@pytest.fixture(scope="session")
def probe_code() -> tuple[list[bytes], list[bytes]]:
    """Modules and dependencies of the probe package."""
    package = compiler.build(MOVE_DIR)
    return package.modules, [bytes.fromhex(item[2:]) for item in package.dependencies]


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Localnet]:
    async with Localnet.start(faucet_listen="127.0.0.1:0") as running:
        yield running


@pytest_asyncio.fixture
async def wallet(net: Localnet) -> AsyncIterator[Wallet]:
    """A client with 1,000 SUI in one coin."""
    async with Wallet.connect(net.url, seed=1) as connected:
        await net.faucet(connected.address, 1000 * SUI)
        yield connected


@pytest_asyncio.fixture
async def other(net: Localnet) -> AsyncIterator[Wallet]:
    """Somebody else, with 10 SUI."""
    async with Wallet.connect(net.url, seed=2) as connected:
        await net.faucet(connected.address, 10 * SUI)
        yield connected


@pytest_asyncio.fixture
async def probe(wallet: Wallet, probe_code: tuple[list[bytes], list[bytes]]) -> Probe:
    """The published package with its shared board."""
    return await Probe.publish(wallet, *probe_code)
