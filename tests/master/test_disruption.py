"""The disruption rule: a whole fleet that falls silent is not a fleet of cheaters."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.index import TokenIndex, WorkerView


class Fleet:
    """Workers in an index, who beat when told to."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.index, self.heard = TokenIndex(), {}
        self.rule = Disruption(self.index, self.heard, clock)

    def add(self, name: str, owner: str, status: WorkerStatus = WorkerStatus.ACTIVE) -> None:
        self.index.workers[name] = WorkerView(name, owner, 10**9, status, 0)

    def beat(self, *names: str) -> None:
        for name in names:
            self.heard[name] = self.clock.now_ms()

    def passes(self, seconds: float, *beating: str) -> None:
        """Time passes in steps of 10 s, in which `beating` go on."""
        for _ in range(int(seconds / 10)):
            self.clock.advance(10)
            self.beat(*beating)
            self.rule.look()


@pytest.fixture
def fleet(clock: Any) -> Fleet:
    return Fleet(clock)


def five(fleet: Fleet) -> list[str]:
    """Five workers of five owners."""
    for n in range(5):
        fleet.add(f"w{n}", f"owner{n}")
    names = [f"w{n}" for n in range(5)]
    fleet.beat(*names)
    return names


def test_three_of_five_owners_are_a_disruption_and_two_are_not(fleet: Fleet) -> None:
    names = five(fleet)
    fleet.passes(120, *names[:3])
    assert not fleet.rule.active
    fleet.passes(120, *names[:3])
    fleet.beat(*names)
    fleet.passes(60, *names)
    fleet.passes(70, *names[:2])
    assert fleet.rule.active
    assert "3 owners" in fleet.rule.alert()


def test_it_ends_when_all_of_them_are_back(fleet: Fleet) -> None:
    names = five(fleet)
    fleet.passes(70)
    assert fleet.rule.active
    fleet.passes(60, *names[:4])
    assert fleet.rule.active, "one is still missing"
    fleet.passes(10, *names)
    assert not fleet.rule.active
    assert fleet.rule.alert() is None


def test_it_ends_after_15_minutes_and_the_same_silence_does_not_count_again(fleet: Fleet) -> None:
    five(fleet)
    fleet.passes(70)
    fleet.passes(900)
    assert fleet.rule.active
    fleet.passes(10)
    assert not fleet.rule.active
    fleet.passes(1000)
    assert not fleet.rule.active
    assert fleet.rule.count == 1


def test_another_silence_counts_anew(fleet: Fleet) -> None:
    names = five(fleet)
    fleet.passes(70)
    fleet.passes(920)
    fleet.beat(*names)
    fleet.passes(10, *names)
    fleet.passes(70)
    assert fleet.rule.active
    assert fleet.rule.count == 2


def test_silences_that_begin_one_after_the_other_are_none(fleet: Fleet) -> None:
    names = five(fleet)
    for n in range(5):
        fleet.passes(70, *names[n:])
        # On-chain they become offline in turn; here they stay, and are not together all the same.
    assert not fleet.rule.active


def test_owners_count_not_workers(fleet: Fleet) -> None:
    """One owner with most of the machines is one voice."""
    for n in range(10):
        fleet.add(f"big{n}", "big")
    for n in range(2):
        fleet.add(f"small{n}", f"small{n}")
    everybody = [*fleet.index.workers]
    fleet.beat(*everybody)
    fleet.passes(300, "small0", "small1")
    assert not fleet.rule.active, "1 of 3 owners"
    fleet.beat(*everybody)
    fleet.passes(120, "big0", "small1")
    assert not fleet.rule.active, "one worker of an owner that is heard speaks for it"
    fleet.beat(*everybody)
    fleet.passes(120, "big0")
    assert fleet.rule.active, "2 of 3 owners"


@pytest.mark.parametrize("owners", [1, 2])
def test_a_fleet_of_two_never_triggers_it(fleet: Fleet, owners: int) -> None:
    fleet.add("w0", "owner0")
    fleet.add("w1", f"owner{owners - 1}")
    fleet.beat("w0", "w1")
    fleet.passes(1200)
    assert not fleet.rule.active


@pytest.mark.parametrize("status", ["pending", "offline", "jailed", "slashed", "unbonding"])
def test_only_active_workers_can_fall_silent(fleet: Fleet, status: str) -> None:
    for n in range(5):
        fleet.add(f"w{n}", f"owner{n}", WorkerStatus(status))
    fleet.passes(300)
    assert not fleet.rule.active


def test_nobody_is_silent_in_a_masters_first_minute(fleet: Fleet) -> None:
    for n in range(5):
        fleet.add(f"w{n}", f"owner{n}")
        fleet.heard[f"w{n}"] = fleet.clock.now_ms() - 3_600_000
    fleet.passes(60)
    assert not fleet.rule.active
    fleet.passes(10)
    assert fleet.rule.active


# -- in a whole master --------------------------------------------------------------------------------------


async def turn(bench: Any) -> None:
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.catch_up()


async def test_offline_is_shown_and_slashes_are_enforced_all_the_same(bench: Any) -> None:
    tokens = {}
    for n in range(3):
        tokens[f"worker-{n}"] = await bench.join(f"worker-{n}", "0x" + f"{n:02x}" * 32)
    bench.clock.advance(70)
    await turn(bench)
    (alert,) = (await bench.api.get("/readyz")).json()["alerts"]
    assert alert.startswith("disruption: 3 owners")
    assert "k3s_daas_disruptions_total 1.0" in (await bench.api.get("/metrics")).text
    assert bench.state.policy.held_back() == "much of the fleet fell silent at once"
    bench.chain.slash("worker-0")
    await turn(bench)
    await bench.state.remover.sweep()
    assert "worker-0" not in bench.kube.nodes, "what the chain decided is carried out"
    assert bench.refusal(await bench.beat(tokens["worker-0"], "worker-0")) == (403, "worker_slashed")
    bench.clock.advance(531)
    await turn(bench)
    assert bench.state.index.workers["worker-1"].status is WorkerStatus.OFFLINE


async def test_ten_minutes_without_network_and_everybody_recovers(bench: Any) -> None:
    """The network between workers and master is cut and healed: nobody is slashed, nobody is removed."""
    tokens = {f"worker-{n}": await bench.join(f"worker-{n}", "0x" + f"{n:02x}" * 32) for n in range(3)}
    for _ in range(20):
        bench.clock.advance(30)
        await turn(bench)
    assert bench.state.policy.findings() == []
    statuses = {w.status for w in bench.state.index.workers.values()}
    assert statuses <= {WorkerStatus.ACTIVE, WorkerStatus.OFFLINE}
    for _ in range(21):
        bench.clock.advance(30)
        for name, token in tokens.items():
            assert (await bench.beat(token, name)).status_code == 200
            bench.kube.renew(name)
        await turn(bench)
    assert {w.status for w in bench.state.index.workers.values()} == {WorkerStatus.ACTIVE}
    assert set(bench.kube.nodes) == set(tokens)
    assert (await bench.api.get("/readyz")).json() == {"ready": True, "reasons": [], "alerts": []}
