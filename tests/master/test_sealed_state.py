"""What the service shows of its sealed state, and whom it lets in meanwhile."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k3s_daas_master.sealed.exchange import Answer, Base
from k3s_daas_master.sealed.sealer import Sealer


@pytest.fixture
async def sealing(bench: Any) -> Any:
    """A bench whose master seals its state, with nothing sealed yet."""
    token = bench.chain.stake("worker-1")
    bench.token = token
    await bench.state.fleet.reconcile()
    await bench.catch_up()
    bench.state.sealer = Sealer(
        anchors=object(),  # type: ignore[arg-type]  never asked here
        index=bench.state.index,
        view=bench.state.view,
        attester=bench.state.attester,
        address=bench.address,
        state_dir=bench.config.state_dir,
        interval_s=300,
        clock=bench.clock,
    )
    return bench


def made(bench: Any) -> Answer:
    return Answer(id="1", made=Base(counter=7, hash="aa" * 32), copied_ms=bench.clock.ms, bytes=1234)


async def reasons(bench: Any) -> list[str]:
    found: list[str] = (await bench.api.get("/readyz")).json()["reasons"]
    return [reason for reason in found if reason.startswith("sealed state")]


async def test_nobody_joins_before_the_first_snapshot_is_anchored(sealing: Any) -> None:
    assert sealing.refusal(await sealing.register(sealing.token, "worker-1")) == (503, "not_ready")
    assert sealing.kube.bootstrap_tokens() == []
    assert await reasons(sealing) == ["sealed state: this start's first snapshot isn't anchored yet"]
    sealing.state.sealer.newest = made(sealing)
    assert await reasons(sealing) == []
    assert (await sealing.register(sealing.token, "worker-1")).status_code == 200


async def test_nobody_joins_a_master_that_another_has_overtaken(sealing: Any) -> None:
    sealing.state.sealer.newest = made(sealing)
    sealing.state.sealer.fenced = "another master goes on from here"
    assert sealing.refusal(await sealing.register(sealing.token, "worker-1")) == (503, "not_ready")
    assert await reasons(sealing) == ["sealed state: another master goes on from here"]


async def test_heartbeats_of_those_who_joined_go_on(sealing: Any) -> None:
    sealing.state.sealer.newest = made(sealing)
    await sealing.register(sealing.token, "worker-1")
    sealing.state.sealer.newest = None
    sealing.clock.advance(1)
    assert (await sealing.beat(sealing.token, "worker-1")).status_code == 200


async def test_metrics_and_alert(sealing: Any) -> None:
    sealing.state.sealer.newest = made(sealing)

    async def value(name: str) -> float:
        text = (await sealing.api.get("/metrics")).text
        (found,) = re.findall(rf"^k3s_daas_snapshot_{name} (\S+)$", text, re.M)
        return float(found)

    assert await value("counter") == 7
    assert await value("bytes") == 1234
    assert await value("timestamp_seconds") * 1000 == sealing.clock.ms
    sealing.clock.advance(301)
    (alert,) = [one for one in sealing.state.alerts() if one.startswith("sealed state")]
    assert "301 s old, wanted at most 300 s" in alert
