"""What tests of several areas share: a localnet in this process with the contracts on it, and funded wallets.

The network is started once per test process and never reset: a test makes its own wallet and registry.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from k3s_daas.chain import Key

REPOSITORY = Path(__file__).parents[1]
SUI = 1_000_000_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The scenarios first: each takes minutes, and begun last it would have the end to itself.

    pytest-xdist gives each of its processes a run of the list. All but one of them begin with a share of the
    scenarios; the last one has something else for the processor to do while they wait.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    scenarios = [item for item in items if "scenarios" in item.path.parts]
    others = [item for item in items if "scenarios" not in item.path.parts]
    shares = [scenarios[place :: max(1, processes - 1)] for place in range(max(1, processes - 1))]
    ordered: list[pytest.Item] = []
    for place in range(processes):
        share = shares[place] if place < len(shares) else []
        rest = (len(items) - len(ordered)) // (processes - place) - len(share)
        ordered += share + others[: max(0, rest)]
        del others[: max(0, rest)]
    items[:] = ordered + others


@pytest.fixture
def own_logging() -> Iterator[None]:
    """For a test that runs a command in this process: what it sets for its logs ends with the test."""
    root = logging.getLogger()
    handlers, level, raise_exceptions, hook = (
        list(root.handlers),
        root.level,
        logging.raiseExceptions,
        sys.excepthook,
    )
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raise_exceptions
    sys.excepthook = hook


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def compiled() -> Any:
    """Our contracts' bytecode, made by the command that the modules run."""
    from k3s_daas.registry import CompiledPackage

    command = [sys.executable, "-m", "k3s_daas_localnet", "build", str(REPOSITORY / "move" / "k3s_daas")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    built = json.loads(done.stdout.splitlines()[-1])
    modules = tuple(base64.b64decode(module) for module in built["modules"])
    return CompiledPackage(modules, tuple(built["dependencies"]), bytes(built["digest"]))


@pytest.fixture(scope="session")
def nitro() -> Any:
    """The emulated security modules whose documents `live_net` accepts: an `NsmEmulator`."""
    from k3s_daas_localnet.nsm import NsmEmulator

    return NsmEmulator(time.time_ns() // 1_000_000 - 60_000)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def live_net(nitro: Any) -> AsyncIterator[Any]:
    """A running `Localnet`."""
    from k3s_daas_localnet import Localnet

    async with Localnet.start(simulated_nitro_root=nitro.root_pem) as net:
        yield net


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def new_wallet(live_net: Any) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """`await new_wallet(mist, coins=1)`: a connected client with a new funded key (as `chain.key`)."""
    from k3s_daas.chain import SuiClient

    opened = []

    async def make(mist: int = 1_000 * SUI, coins: int = 1, urls: list[str] | None = None) -> Any:
        key = Key.generate()
        for _ in range(coins):
            await live_net.faucet(key.address, mist // coins)
        opened.append(await SuiClient.connect(urls or [live_net.url], "localnet", key, timeout_s=5.0))
        return opened[-1]

    yield make
    for client in opened:
        await client.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def live_package(new_wallet: Any, compiled: Any) -> tuple[Any, str]:
    """(client of the publisher, package id) of our contracts."""
    from k3s_daas.registry import publish

    publisher = await new_wallet()
    package_id, _ = await publish(publisher, compiled)
    return publisher, package_id


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def new_registry(new_wallet: Any, live_package: Any) -> Callable[..., Awaitable[Any]]:
    """`await new_registry(chain=None, **terms)`: a Registry that `chain`, or a new wallet, has created."""
    from k3s_daas.registry import Registry, RegistryParams, create_registry

    async def make(chain: Any = None, **terms: Any) -> Any:
        chain = chain or await new_wallet()
        defaults: dict[str, Any] = {
            "name": "test",
            "open": True,
            "min_stake_mist": SUI,
            "slash_window_ms": 0,
            "unbonding_window_ms": 0,
            "slash_share_bps": 5000,
            "require_attestation": False,
        }
        deployment, _ = await create_registry(chain, live_package[1], RegistryParams(**defaults | terms))
        return Registry(chain, deployment)

    return make
