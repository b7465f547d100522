"""kill -9 of the master at random moments, under a load of chain events and heartbeats: what is lost, and how
long.

    python benchmarks/recovery.py [--json FILE] [--kills 20] [--seed N]

After each kill the master is started again after the pause that its unit has (RestartSec). An event counts as
handled when its effects are in the master's store, where the count and a sum of marks are committed together
with the cursor; both are held against all events on the chain at the end. What was accepted once is sent
again after each kill: accepted a second time it counts as handled twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from master_stage import ROOT, SUI, Stage, stage

from k3s_daas.registry import parse_event
from k3s_daas_master.follower import mark_of
from k3s_daas_master.store import MARKS, Store

KILLS = 20
WORKERS = 10
UNIT = ROOT / "roles/master/templates/k3s-daas-master.service.j2"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    figures = measure(options.kills, options.seed)
    print(json.dumps(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures) + "\n")
    return 0


def measure(kills: int = KILLS, seed: int | None = None) -> dict[str, float | int]:
    """events_lost, events_duplicated and recovery_s_max: from the kill to /readyz, the pause included."""
    seed = random.randrange(1 << 32) if seed is None else seed  # noqa: S311 - moments, not secrets
    print(f"  {kills} kills, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(_measure(Path(name), kills, random.Random(seed)))  # noqa: S311


@dataclass
class _Load:
    """What the workers and the owner did."""

    tokens: dict[str, str]
    accepted: dict[str, int] = field(default_factory=dict)
    heartbeats: int = 0
    transactions: int = 0
    replays_accepted: int = 0


async def _measure(folder: Path, kills: int, chance: random.Random) -> dict[str, float | int]:
    pause_s = _restart_s()
    async with stage(folder) as made:
        process = _start(made)
        try:
            await made.until(made.ready)
            load = _Load(await made.stake([f"worker-{number}" for number in range(WORKERS)]))
            busy = [asyncio.create_task(_beat(made, load)), asyncio.create_task(_transact(made, load))]
            recoveries = []
            for number in range(kills):
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                process.kill()
                began = time.monotonic()
                process.wait()
                await asyncio.sleep(pause_s)
                process = _start(made)
                await made.until(made.ready)
                recoveries.append(time.monotonic() - began)
                await _replay(made, load)
                print(f"  kill {number + 1}: ready again after {recoveries[-1]:.2f} s", flush=True)
            for task in busy:
                task.cancel()
            ended = await asyncio.gather(*busy, return_exceptions=True)
            for outcome in ended:
                if isinstance(outcome, Exception):
                    raise outcome
            wanted, mark = await _on_chain(made)
            done, sum_ = await _handled(made, wanted)
        finally:
            process.kill()
            process.wait()
    print(
        f"  {load.transactions} transactions and {load.heartbeats} heartbeats meanwhile; "
        f"{wanted} events on-chain, {done} handled"
    )
    # One lost and one handled twice would leave the count right, and the sum of marks wrong.
    differs = int(done == wanted and sum_ != mark)
    return {
        "events_lost": max(0, wanted - done) + differs,
        "events_duplicated": max(0, done - wanted) + differs + load.replays_accepted,
        "recovery_s_max": round(max(recoveries), 2),
    }


def _restart_s() -> float:
    """The pause that systemd makes before it starts the service again."""
    found = re.search(r"^RestartSec=(\d+)s$", UNIT.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{UNIT} has no RestartSec in seconds")
    return float(found[1])


def _start(made: Stage) -> subprocess.Popen[bytes]:
    with made.log.open("ab") as output:
        return subprocess.Popen(made.serve, stdout=output, stderr=output)


async def _beat(made: Stage, load: _Load) -> None:
    """Heartbeats of all workers, as fast as they are answered."""
    while True:
        for name, token in load.tokens.items():
            now_ms = time.time_ns() // 1_000_000
            with contextlib.suppress(httpx.HTTPError):
                if (await made.post("/api/v1/nodes/heartbeat", token, name, now_ms)).is_success:
                    load.accepted[name] = now_ms
                    load.heartbeats += 1
        await asyncio.sleep(0.02)


async def _replay(made: Stage, load: _Load) -> None:
    """Send again what the master has answered with 200 before it was killed."""
    for name, at_ms in dict(load.accepted).items():
        with contextlib.suppress(httpx.HTTPError):
            again = await made.post("/api/v1/nodes/heartbeat", load.tokens[name], name, at_ms)
            load.replays_accepted += again.is_success


async def _transact(made: Stage, load: _Load) -> None:
    """One transaction with events after another: raised stakes, of several workers at once."""
    chain, registry = made.registry.chain, made.registry
    while True:
        names = list(load.tokens)[: 1 + load.transactions % WORKERS]
        await chain.execute(registry.adding(dict.fromkeys(names, SUI // 1000)))
        load.transactions += 1


async def _on_chain(made: Stage) -> tuple[int, int]:
    """(how many events of our registry there are since the master's first cursor, the sum of their marks)."""
    first = json.loads(
        next(line for line in made.log.read_text().splitlines() if '"event": "registry read"' in line)
    )["checkpoint"]
    tip, _ = await made.registry.chain.latest_checkpoint()
    deployment, count, mark = made.registry.deployment, 0, 0
    if tip > first:
        async for batch in made.registry.chain.checkpoints(first, [deployment.types_id]):
            for event in batch.events:
                if parse_event(event, deployment) is not None:
                    count, mark = count + 1, (mark + mark_of(event)) % MARKS
            if batch.sequence >= tip:
                break
    return count, mark


async def _handled(made: Stage, wanted: int) -> tuple[int, int]:
    """What the running master's store says, once it has had time to catch up."""
    store = Store(made.folder / "state")
    try:
        ends = time.monotonic() + 20
        while store.handled()[0] < wanted and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        # Whatever comes after what it should have had would be too much.
        await asyncio.sleep(1)
        return store.handled()
    finally:
        store.close()


if __name__ == "__main__":
    sys.exit(main())
