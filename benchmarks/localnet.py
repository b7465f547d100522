"""How fast and how big the localnet is: interpreter, transactions through gRPC, start, memory.

    python benchmarks/localnet.py [--json FILE] [--transactions 10000]

The network runs as a process of its own and history goes where it does by default, a temporary file. A
transaction here splits the gas coin by a call into the framework and merges the piece back, so the live state
stays the same size: what grows is what is kept without need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpclib.client import Channel

from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.encoding import address, blake2b, from_base58, u64
from k3s_daas_localnet.ledger.objects import SUI
from k3s_daas_localnet.ledger.transaction import (
    GAS,
    Argument,
    MergeCoins,
    MoveCall,
    ObjectRef,
    PureInput,
    TransactionData,
)
from k3s_daas_localnet.rpc.protocol import protobuf, v2
from k3s_daas_localnet.vm import CodeStore, Interpreter
from k3s_daas_localnet.vm.errors import ModuleId

_SENDERS = 4
_STARTS = 3
_SECONDS_OF_BYTECODE = 2.0
_BUDGET_MIST = 10_000_000
_GAS_PRICE_MIST = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--transactions", type=int, default=10_000)
    options = parser.parse_args()
    figures: dict[str, float | int] = {"bytecodes_per_s": bytecodes_per_s()}
    figures["start_ms"] = start_ms()
    with network() as (process, ready):
        before = rss_mb(process.pid)
        figures["transactions_per_s"] = asyncio.run(transactions_per_s(ready, options.transactions))
        figures["rss_mb_after_10k"] = rss_mb(process.pid)
    print(f"bytecodes per second            {figures['bytecodes_per_s']:>12,}")
    print(f"transactions per second (gRPC)  {figures['transactions_per_s']:>12,}")
    print(f"start                           {figures['start_ms']:>9,} ms")
    print(f"memory after the start          {before:>9,} MB")
    print(f"memory after {options.transactions:>6,} transactions {figures['rss_mb_after_10k']:>7,} MB")
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def bytecodes_per_s() -> int:
    """Instructions of the framework's own loops (hexadecimal coding, square roots) per second."""
    code = CodeStore.with_framework()
    text, number = ModuleId(address("0x2"), "hex"), ModuleId(address("0x1"), "u64")
    data = bytes(range(256)) * 4

    def once() -> int:
        vm = Interpreter(code, _Nothing(), 1 << 62)
        (coded,) = vm.call(text, "encode", [], [list(data)])
        vm.call(text, "decode", [], [coded])
        for value in range(1 << 40, (1 << 40) + 200):
            vm.call(number, "sqrt", [], [value])
        return vm.steps

    once()
    steps, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < _SECONDS_OF_BYTECODE:
        steps += once()
    return round(steps / passed)


class _Nothing:
    """Pure functions ask their surroundings for nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@contextmanager
def network() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running localnet without state directory, and what it said when it was ready."""
    command = [sys.executable, "-m", "k3s_daas_localnet", "--checkpoint-ms=0", "--listen=127.0.0.1:0"]
    process = subprocess.Popen([*command, "--faucet-listen=127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


def start_ms() -> int:
    """From the command to the line that says ready; the median of a few."""
    taken = []
    for _ in range(_STARTS):
        begun = time.perf_counter()
        with network():
            taken.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(taken))


def rss_mb(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024)
    raise RuntimeError(f"process {pid} shows no VmRSS")


async def transactions_per_s(ready: dict[str, str], count: int) -> int:
    """Sends transactions from several wallets at once, each over its own connection."""
    wallets = [_Wallet(ready) for _ in range(_SENDERS)]
    for wallet in wallets:
        await wallet.fund()
    begun = time.perf_counter()
    await asyncio.gather(*(wallet.send(count // _SENDERS) for wallet in wallets))
    taken = time.perf_counter() - begun
    for wallet in wallets:
        wallet.channel.close()
    return round(count // _SENDERS * _SENDERS / taken)


class _Wallet:
    def __init__(self, ready: dict[str, str]) -> None:
        where = urlparse(ready["rpc"])
        self.faucet = ready["faucet"]
        self.channel = Channel(where.hostname, where.port)
        self.node = v2.TransactionExecutionServiceStub(self.channel)
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.address = blake2b(b"\0" + self.public)
        self.coin = ObjectRef(b"", 0, b"")

    async def fund(self) -> None:
        body = {"FixedAmountRequest": {"recipient": "0x" + self.address.hex(), "amount": 10**15}}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - the localnet's own address
            f"{self.faucet}/v2/gas", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            sent = json.loads(answer.read())["coins_sent"][0]
        objects = v2.LedgerServiceStub(self.channel)
        coin = (await objects.get_object(v2.GetObjectRequest(object_id=sent["id"]))).object
        self.coin = ObjectRef(address(coin.object_id), coin.version, from_base58(coin.digest))

    async def send(self, count: int) -> None:
        split = MoveCall(address("0x2"), "coin", "split", (SUI,), (GAS, Argument("input", 0)))
        merge = MergeCoins(GAS, (Argument("result", 0),))
        mask = protobuf.FieldMask(paths=["effects.status", "effects.gas_object"])
        for number in range(count):
            data = wire.encode(
                TransactionData(
                    (PureInput(u64(1 + number)),),
                    (split, merge),
                    self.address,
                    (self.coin,),
                    self.address,
                    _GAS_PRICE_MIST,
                    _BUDGET_MIST,
                )
            )
            signature = b"\0" + self.key.sign(data.signing_digest) + self.public
            request = v2.ExecuteTransactionRequest(
                transaction=v2.Transaction(bcs=v2.Bcs(value=data.raw)),
                signatures=[v2.UserSignature(bcs=v2.Bcs(value=signature))],
                read_mask=mask,
            )
            effects = (await self.node.execute_transaction(request)).transaction.effects
            if not effects.status.success:
                raise RuntimeError(f"a transaction failed: {effects.status.error}")
            coin = effects.gas_object
            self.coin = ObjectRef(
                address(coin.object_id), coin.output_version, from_base58(coin.output_digest)
            )


if __name__ == "__main__":
    sys.exit(main())
