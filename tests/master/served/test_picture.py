"""The status page's picture in the docs: `make screenshot` writes it, a test run only looks that it can."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from k3s_daas.registry import WorkerStatus

SIZE = {"width": 1440, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
AILING = {"worker-7": WorkerStatus.OFFLINE, "worker-11": WorkerStatus.JAILED}


async def populate(bench: Any, dice: random.Random) -> None:
    """A fleet of fourteen, with what happens in one."""
    owners = [f"0x{dice.randbytes(32).hex()}" for _ in range(5)]
    tokens = {}
    for i in range(1, 15):
        name = f"worker-{i}"
        tokens[name] = await bench.join(name, owners[i % 5])
        bench.chain.deposit(name, dice.randrange(40) * 250_000_000)
    for name, token in tokens.items():
        bench.clock.advance(dice.random() * 2)
        bench.kube.renew(name)
        usage = {
            "cpu_percent": dice.uniform(8, 60),
            "memory_percent": dice.uniform(25, 80),
            "disk_percent": dice.uniform(15, 75),
            "network_received_bytes": dice.randrange(10**9, 10**11),
            "network_sent_bytes": dice.randrange(10**9, 10**11),
        }
        beat = await bench.beat(token, name, running_pods=dice.randrange(3, 22), resource_usage=usage)
        assert beat.status_code == 200
    await bench.state.fleet.reconcile()
    for name, status in AILING.items():
        bench.chain.set_status(name, status)
    bench.chain.stake("worker-15", owners[0])
    kubectl = bench.chain.mint("", owners[0])
    for request_id in range(60):
        finish(bench, request_id, f"worker-{dice.randrange(1, 11)}", missed=request_id % 20 == 19)
    await bench.catch_up()
    bench.kube.nodes["worker-7"]["status"]["conditions"][0]["status"] = "Unknown"
    await bench.state.vitals.sample()
    for i in range(1000):
        token = tokens["worker-1"] if i % 50 == 0 else kubectl
        assert (await bench.review(token))["authenticated"] is (i % 50 != 0)
    bench.clock.advance(5)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.vitals.sample()
    await bench.state.fleet.reconcile()
    await bench.state.vitals.look()


def finish(bench: Any, request_id: int, node_id: str, *, missed: bool) -> None:
    """A request of the chain ends."""
    bench.end_request(request_id, node_id, missed=missed)
    if missed:
        changed = {"reputation": "90", "required_stake": "0"}
        bench.chain.emit("k8s_scheduler::WorkerReputationChangedEvent", node_id=node_id, **changed)


async def test_the_picture_for_the_docs(served: Any, browser: Any, tmp_path: Path) -> None:
    await populate(served.bench, random.Random(15))  # noqa: S311  the same picture each time
    await browser.do(lambda d: d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE))
    await browser.open(served.url)
    assert await browser.texts("health-word", "pool-offline", "network") == ["Degraded", "1", "testnet"]
    picture = Path(os.environ.get("K3S_DAAS_SCREENSHOT", tmp_path / "status-page.png"))
    assert await browser.do(lambda d: d.save_screenshot(str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert await browser.console() == []
