"""A running localnet with the contracts on it, and one fresh registry per test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from k3s_daas.chain import SuiClient
from k3s_daas_localnet import Localnet

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from contract_fleet import MOVE_DIR, Fleet, Network, Terms, create_fleet, publish
from contract_ledger import Chain, Registry, compiled
from move_coverage import build, recording

# Appended to a copy of worker_registry: only one version of the package exists, so nothing else can make a
# registry of another version.
VERSION_HOOK = """
public fun set_version(registry: &mut Registry, version: u64) { registry.version = version; }
"""


@pytest.fixture(scope="session", autouse=True)
def move_coverage() -> Iterator[None]:
    with recording():
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def localnet() -> AsyncIterator[Any]:
    async with Localnet.start(state_dir=None, listen="127.0.0.1:0") as net:
        yield net


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def network(localnet: Any) -> AsyncIterator[Network]:
    network = Network(localnet, "")
    network.package = await publish(await network.wallet(), build(MOVE_DIR))
    yield network
    for wallet in network.wallets:
        await wallet.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hooked(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """The contracts with a function that sets a registry's version, and with probe.move."""
    copy = tmp_path_factory.mktemp("hooked") / "k3s_daas"
    shutil.copytree(MOVE_DIR, copy)
    with (copy / "sources" / "worker_registry.move").open("a") as source:
        source.write(VERSION_HOOK)
    package = build(copy, [Path(__file__).with_name("probe.move")])
    return Network(network.net, await publish(network.wallets[0], package), network.wallets)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def admin(network: Network) -> SuiClient:
    return network.wallets[0]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def alice(network: Network) -> SuiClient:
    return await network.wallet()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bob(network: Network) -> SuiClient:
    return await network.wallet()


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(network: Network, admin: SuiClient) -> Fleet:
    """An open registry with windows of 0 and a slash share of 50 %."""
    return await create_fleet(network, admin, Terms())


@pytest.fixture
def make_fleet(network: Network, admin: SuiClient) -> Callable[..., Any]:
    """`await make_fleet(open=False, …)`: a registry on other terms."""
    return lambda **terms: create_fleet(network, admin, Terms(**terms))


# The contracts on a ledger in this process; see contract_ledger.


@pytest.fixture
def chain() -> Chain:
    """An empty chain, at noon."""
    return Chain()


@pytest.fixture
def anne(chain: Chain) -> str:
    return chain.actor("anne")


@pytest.fixture
def ben(chain: Chain) -> str:
    return chain.actor("ben")


@pytest.fixture
def master(chain: Chain) -> str:
    return chain.actor("master")


@pytest.fixture
def make_registry(chain: Chain) -> Callable[..., Registry]:
    """`make_registry(slash_window_ms=…)`: a registry of the address "admin"."""
    admin = chain.actor("admin")
    package = chain.publish(admin, compiled())
    return lambda **terms: Registry(chain, package, admin, **terms)


@pytest.fixture
def registry(make_registry: Callable[..., Registry], master: str) -> Registry:
    """An open one with windows of 0 and a slash share of 50 %, and a master."""
    found = make_registry()
    found.appoint(master)
    return found
