"""From a node's Ready to its worker active on-chain: the master as a process, the localnet, the k3s stand-in.

    python benchmarks/activation.py [--json FILE] [--workers 20]

One worker after another: it has registered and sent its heartbeat; then its node gets Ready and holds a
lease, written through the API as a kubelet does. The clock stops when the status event is in a checkpoint
that a follower of the chain was given.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lightkube import AsyncClient
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.core_v1 import NodeCondition, NodeStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node
from lightkube.types import PatchType
from master_stage import Stage, stage
from processes import running

from k3s_daas.registry import WorkerStatus, WorkerStatusChanged, parse_event

WORKERS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args()
    figures = measure(options.workers)
    print(json.dumps(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def measure(workers: int = WORKERS) -> dict[str, float | int]:
    """event_to_active_ms: the median over `workers`. Raises RuntimeError when one doesn't get active."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), workers))


async def _measure(folder: Path, count: int) -> dict[str, float | int]:
    async with stage(folder) as made:
        with running(made.serve, made.log):
            await made.until(made.ready)
            names = [f"worker-{number}" for number in range(count)]
            tokens = await made.stake(names)
            active: dict[str, float] = {}
            watching = asyncio.create_task(_watch(made, active))
            kube = AsyncClient(made.kube.get(), trust_env=False)
            taken = [await _one(made, kube, name, tokens[name], active) for name in names]
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await kube.aclose()
    taken.sort()
    median = statistics.median(taken)
    print(f"  {count} workers: median {median:.0f} ms, fastest {taken[0]:.0f} ms, slowest {taken[-1]:.0f} ms")
    return {"event_to_active_ms": round(median)}


async def _watch(made: Stage, active: dict[str, float]) -> None:
    """When each worker was active on-chain, as a follower of the chain learns of it."""
    deployment = made.registry.deployment
    async for batch in made.registry.chain.checkpoints(None, [deployment.types_id]):
        for event in batch.events:
            parsed = parse_event(event, deployment)
            if isinstance(parsed, WorkerStatusChanged) and parsed.new_status is WorkerStatus.ACTIVE:
                active[parsed.node_id] = time.monotonic()


async def _one(made: Stage, kube: AsyncClient, name: str, token: str, active: dict[str, float]) -> float:
    """Ms from Ready to active."""

    async def registered() -> bool:
        return (await made.post("/api/v1/register-worker", token, name)).is_success

    await made.until(registered)
    (await made.post("/api/v1/nodes/heartbeat", token, name)).raise_for_status()
    await kube.create(Node(metadata=ObjectMeta(name=name)))
    renewed = dt.datetime.now(dt.UTC)
    lease = Lease(
        metadata=ObjectMeta(name=name, namespace="kube-node-lease"), spec=LeaseSpec(renewTime=renewed)
    )
    await kube.create(lease)
    # What the master is doing about the registration is over by then.
    await asyncio.sleep(0.5)
    ready = Node(status=NodeStatus(conditions=[NodeCondition(type="Ready", status="True")]))
    began = time.monotonic()
    await kube.patch(Node.Status, name, ready, patch_type=PatchType.STRATEGIC)  # type: ignore[type-var]  # says lightkube of a status

    async def is_active() -> bool:
        return name in active

    await made.until(is_active, 30)
    return (active[name] - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
