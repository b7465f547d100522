"""Ready time against the contract itself, on the localnet: one hour is paid as one hour."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chain import Receipt
from k3s_daas.chain.errors import OutcomeUnknown
from k3s_daas.registry import Registry, StakeRequest, WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import NodeView
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.readytime import ReadyTime
from k3s_daas_master.store import Store

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
HOUR_MS = 3_600_000


class NetClock(Clock):
    """This host's time is the network's, which the test turns."""

    def __init__(self, net: Any) -> None:
        self._net = net

    def now_ms(self) -> int:
        now: int = self._net.clock.now_ms()
        return now

    def monotonic(self) -> float:
        return self.now_ms() / 1000


class Mumbling(Registry):
    """Loses the answer to a report that the chain took in, or loses the report."""

    lose: str | None = None

    async def report_ready(self, ready_ms: Mapping[str, int]) -> Receipt:
        lost, self.lose = self.lose, None
        if lost == "report":
            raise OutcomeUnknown("digest", {self.chain.endpoint: "reset"})
        receipt = await super().report_ready(ready_ms)
        if lost == "answer":
            raise OutcomeUnknown(receipt.digest, {self.chain.endpoint: "reset"})
        return receipt


@pytest.mark.parametrize("lose", [None, "answer", "report"])
async def test_the_contract_pays_each_hour_once(
    lose: str | None, new_registry: Any, new_wallet: Any, live_net: Any, tmp_path: Path
) -> None:
    operator: Registry = await new_registry()
    chain = operator.chain
    expires = await operator.clock_ms() + 30 * 24 * HOUR_MS
    commitment = hashlib.sha256(operator.deployment.registry_id.encode()).digest()
    await operator.stake([StakeRequest("w", commitment, SUI, expires)], chain.require_address())
    wallet = await new_wallet()
    await operator.appoint_master(wallet.address)
    master = Mumbling(wallet, operator.deployment)
    await master.set_statuses({"w": WorkerStatus.ACTIVE})
    clock, index = NetClock(live_net), TokenIndex()
    index.load(await operator.snapshot())
    index.settled = True
    view, store = ChainView(clock), Store(tmp_path)
    gas = GasWatch(wallet, view, wallet.address, SUI // 10, SUI // 50, clock)
    subject = ReadyTime(
        index=index,
        view=view,
        registry=master,
        rows=store.ready_time,
        gas=gas,
        nodes=lambda: {"w": NodeView("w", True, False, clock.now_ms())},
        address=wallet.address,
        report_ms=HOUR_MS,
        clock=clock,
    )

    async def minutes(number: int) -> None:
        for _ in range(number):
            live_net.clock.advance(60_000)
            view.seen((view.sequence or 0) + 1, clock.now_ms())
            await gas.look()
            await subject.turn()
            assert subject.problem is None or lose

    async def paid() -> int:
        worker = await operator.worker("w")
        assert worker is not None
        return worker.rewards_mist

    sent = await wallet.balance(wallet.address)
    await minutes(90)  # nothing is paid, so nothing is sent
    assert await wallet.balance(wallet.address) == sent
    admin = await operator.cap("AdminCap")

    async def build(tx: Any) -> None:
        operator.call(tx, "rewards::fund_rewards", *tx.split([100 * SUI]))
        operator.call(tx, "rewards::set_reward_rates", tx.object(admin), *map(tx.u64, (0, SUI, 50 * SUI)))

    await chain.execute(build)
    await minutes(2)
    master.lose = lose
    await minutes(64)
    first = await paid()
    # Real time goes on a little beside the minutes that the test turns.
    assert SUI <= first <= 67 * SUI // 60
    await minutes(60)
    assert first + 0.99 * SUI <= await paid() <= first + 1.1 * SUI
    (row,) = store.ready_time.all().values()
    reported = await paid() * HOUR_MS // SUI
    assert reported + row.counted_ms <= 127 * 60_000
    store.close()
