"""Contracts that never end: out of gas in bounded time and memory, and the network goes on."""

from __future__ import annotations

import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from localnet_wallet import Wallet, created, failed, succeeded
from pysui.sui.sui_bcs import bcs

from k3s_daas_localnet import Localnet, compiler
from k3s_daas_localnet.ledger import limits
from k3s_daas_localnet.ledger.encoding import address
from k3s_daas_localnet.ledger.transaction import MoveCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PACKAGE = Path(__file__).parent / "loops"
# What ends each; the first of the limits that it meets.
_ENDS = {
    "spin": "INSUFFICIENT_GAS",
    "count": "INSUFFICIENT_GAS",
    "push": "VECTOR_OPERATION_ERROR",
    "nest": "INSUFFICIENT_GAS",
    "copies": "INSUFFICIENT_GAS",
    "bytes": "INSUFFICIENT_GAS",
    "recurse": "CALL_STACK_OVERFLOW",
    "ping": "CALL_STACK_OVERFLOW",
    "keccak": "INSUFFICIENT_GAS",
    "recover": "INSUFFICIENT_GAS",
    "serialize": "INSUFFICIENT_GAS",
    "fields": "MEMORY_LIMIT_EXCEEDED",
    "events": "MEMORY_LIMIT_EXCEEDED",
}
_SECONDS = 5.0
_MEGABYTES = 400


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def loops() -> AsyncIterator[tuple[Wallet, str]]:
    """A wallet with 1,000 SUI, and the package."""
    code = compiler.build(_PACKAGE)
    async with Localnet.start() as net, Wallet.connect(net.url, seed=1) as wallet:
        await net.faucet(wallet.address, 1000 * 10**9)
        transaction = await wallet.client.transaction()
        needed = [bcs.Address.from_str(item) for item in code.dependencies]
        capability = transaction.builder.publish([list(module) for module in code.modules], needed)
        await transaction.transfer_objects(transfers=[capability], recipient=wallet.address)
        yield wallet, created(succeeded(await wallet.send(transaction)), "package")


def _call(package: str, function: str) -> MoveCall:
    return MoveCall(address(package), "loops", function, (), ())


@pytest.mark.parametrize("function", _ENDS)
async def test_no_loop_holds_the_network_up(loops: tuple[Wallet, str], function: str) -> None:
    wallet, package = loops
    data = await wallet.raw([_call(package, function)], budget=limits.MAX_GAS_BUDGET)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    executed = await wallet.submit(data)
    assert time.process_time() - started < _SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024 < _MEGABYTES
    error = failed(executed, executed.effects.status.error.kind.name)
    assert _ENDS[function] in f"{error.kind.name} {error.description}"
    succeeded(await wallet.run([_call(package, "fine")]))
