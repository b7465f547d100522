"""A network with the probe package on it, and a real pysui client to talk to it.

Networks are started once per test process, one with the probe package and one without. Each test finds its
network as it was at first: it is taken back to a snapshot.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from k3s_daas_localnet import Localnet, compiler

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from localnet_wallet import Probe, Wallet

HERE = Path(__file__).parent
MOVE_DIR = HERE / "move"
SUI = 1_000_000_000
WALLET, OTHER = (1, 1000 * SUI), (2, 10 * SUI)  # seed of the key, balance in MIST

ProbeCode = tuple[list[bytes], list[bytes]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The networks live in the session's event loop, so that is where their tests have to run.
    session = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.parent == HERE and pytest_asyncio.is_async_test(item):
            item.add_marker(session, append=False)


@dataclass
class Prepared:
    """A network in the state that tests begin with.

    :ivar probe: the published probe package; None where there is none.
    """

    net: Localnet
    probe: Probe | None

    SNAPSHOT = "as at first"


@pytest.fixture(scope="session")
def probe_code() -> ProbeCode:
    """Modules and dependencies of the probe package."""
    package = compiler.build(MOVE_DIR)
    return package.modules, [bytes.fromhex(item[2:]) for item in package.dependencies]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def prepare(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[bool], Awaitable[Prepared]]]:
    """`await prepare(with_probe)`: the network of that kind, as it was at first."""
    made: dict[bool, Prepared] = {}
    async with AsyncExitStack() as stack:

        async def give(with_probe: bool) -> Prepared:
            if with_probe not in made:
                net = await stack.enter_async_context(Localnet.start(faucet_listen="127.0.0.1:0"))
                probe = None
                for seed, mist in (WALLET, OTHER):
                    async with Wallet.connect(net.url, seed) as wallet:
                        await net.faucet(wallet.address, mist)
                if with_probe:
                    async with Wallet.connect(net.url, WALLET[0]) as wallet:
                        probe = await Probe.publish(wallet, *request.getfixturevalue("probe_code"))
                net.ledger.save(Prepared.SNAPSHOT)
                made[with_probe] = Prepared(net, probe)
            ledger = made[with_probe].net.ledger
            ledger.restore(Prepared.SNAPSHOT)
            for snapshot in ledger.snapshots():
                if snapshot.name != Prepared.SNAPSHOT:
                    ledger.delete_snapshot(snapshot.name)
            return made[with_probe]

        yield give


@pytest_asyncio.fixture(loop_scope="session")
async def prepared(
    prepare: Callable[[bool], Awaitable[Prepared]], request: pytest.FixtureRequest
) -> Prepared:
    return await prepare("probe" in request.fixturenames)


@pytest.fixture
def net(prepared: Prepared) -> Localnet:
    return prepared.net


@pytest_asyncio.fixture(loop_scope="session")
async def wallet(net: Localnet) -> AsyncIterator[Wallet]:
    """A client with 1,000 SUI in one coin, or what publishing the probe has left of it."""
    async with Wallet.connect(net.url, WALLET[0]) as connected:
        yield connected


@pytest_asyncio.fixture(loop_scope="session")
async def other(net: Localnet) -> AsyncIterator[Wallet]:
    """Somebody else, with 10 SUI."""
    async with Wallet.connect(net.url, OTHER[0]) as connected:
        yield connected


@pytest.fixture
def probe(prepared: Prepared) -> Probe:
    """The published package with its shared board."""
    assert prepared.probe is not None
    return prepared.probe
