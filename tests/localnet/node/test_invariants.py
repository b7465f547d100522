"""What holds whatever is sent: no SUI appears or disappears, and what is stored is what is served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pysui.sui.sui_grpc.suimsgs.sui.rpc.v2 as v2
import pytest
from localnet_wallet import Probe, Wallet, arg, pure, result

from k3s_daas_localnet import Localnet
from k3s_daas_localnet.ledger import wire
from k3s_daas_localnet.ledger.effects import Executed
from k3s_daas_localnet.ledger.encoding import address
from k3s_daas_localnet.ledger.errors import Refused
from k3s_daas_localnet.ledger.genesis import TOTAL_SUPPLY
from k3s_daas_localnet.ledger.ledger import Ledger
from k3s_daas_localnet.ledger.objects import CLOCK_ID, SUI_COIN
from k3s_daas_localnet.ledger.store import Checkpoint
from k3s_daas_localnet.ledger.transaction import (
    GAS,
    Argument,
    MergeCoins,
    PureInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
)


class Books:
    """Counts what was burnt for computation, so that everything else can be held against the supply."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.burnt = 0
        for _, _, record in ledger.history(0, ledger.tip.sequence, False, 1000):
            gas = v2.ExecutedTransaction.parse(record).effects.gas_used
            self.burnt += (gas.computation_cost or 0) + (gas.non_refundable_storage_fee or 0)
        self.executed = 0
        self._encode = ledger._encode
        ledger._encode = self.encode

    def encode(self, executed: Executed, checkpoint: Checkpoint) -> bytes:
        self.burnt += executed.gas.computation + executed.gas.non_refundable
        self.executed += 1
        return self._encode(executed, checkpoint)

    def check(self) -> None:
        objects = {item.object_id: item for item in self.ledger.all_objects()}
        coins = sum(item.coin_value for item in objects.values() if item.type == SUI_COIN)
        tied_up = sum(item.rebate for item in objects.values())
        assert coins + tied_up + self.burnt == TOTAL_SUPPLY
        stored = {item.object_id: item for item in self.ledger._store.live_objects()}
        # What the clock shows is not stored.
        del objects[CLOCK_ID], stored[CLOCK_ID]
        assert objects == stored


@pytest.fixture
def books(net: Localnet) -> Books:
    return Books(net.ledger)


async def varied(wallet: Wallet, probe: Probe) -> list[TransactionData]:
    """Transactions that succeed, fail and run out of gas, each usable once."""
    own = PureInput(address(wallet.address))
    thing = probe.call("thing", arg(0))
    keep = TransferObjects((result(0),), arg(1))
    split = SplitCoins(GAS, (arg(0), arg(0)))
    merge = MergeCoins(GAS, (Argument("nested", 0, 0),))
    rest = TransferObjects((Argument("nested", 0, 1),), arg(1))
    note = probe.call("note", arg(0), arg(1), arg(2))
    mark = probe.call("mark", arg(0), arg(1), arg(1))
    return [
        await wallet.raw([thing, keep], [pure(1), own]),
        await wallet.raw([thing, probe.call("burn", result(0))], [pure(1)]),
        await wallet.raw([split, merge, rest], [pure(5), own]),
        await wallet.raw([note, mark], [probe.shared(), pure(3), PureInput(b"\3abc")]),
        await wallet.raw([probe.call("bump", arg(0)), probe.call("refuse")], [probe.shared()]),
        await wallet.raw([probe.call("scatter", arg(0))], [pure(9)], budget=2_500_000),
        await wallet.raw([probe.call("spin")], budget=3_000_000),
    ]


async def test_no_sui_appears_or_disappears(books: Books, wallet: Wallet, probe: Probe) -> None:
    books.check()
    kinds = len(await varied(wallet, probe))
    for index in range(kinds):
        data = (await varied(wallet, probe))[index]
        books.ledger.execute(data, [wallet.sign(data)])
        books.check()
    assert books.executed >= kinds


def mutants(data: TransactionData, chance: random.Random, count: int) -> Iterator[bytes]:
    """The transaction's bytes with one to three of them changed, put in or taken out."""
    for _ in range(count):
        raw = bytearray(data.raw)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(raw))
            match chance.randrange(4):
                case 0:
                    raw[at] ^= 1 << chance.randrange(8)
                case 1:
                    raw[at] = chance.choice([0, 1, 2, 3, 127, 255])
                case 2:
                    raw.insert(at, chance.randrange(4))
                case _:
                    del raw[at]
        yield bytes(raw)


async def test_damaged_transactions_are_refused_or_fail_properly(
    books: Books, wallet: Wallet, probe: Probe
) -> None:
    chance = random.Random(20)  # noqa: S311 - repeatable on purpose
    refusals = 0
    for original in await varied(wallet, probe):
        if original.budget == 3_000_000:
            continue  # spinning a hundred times only takes time
        for raw in mutants(original, chance, 60):
            # Anything but a refusal or an executed transaction is an error of the network's own.
            try:
                data = wire.parse(raw)
                again = wire.encode(replace(data, raw=b""))
                assert again.raw == raw or data.chain is not None
                books.ledger.simulate(data)
                books.ledger.execute(data, [wallet.sign(data)])
            except Refused:
                refusals += 1
    books.check()
    assert refusals > 200
