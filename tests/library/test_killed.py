"""kill -9 at random points of staking and rotating, and then simply the same again.

The modules run in processes of their own, against a localnet that is a process of its own. What has to hold
is looked up on the chain and on the hosts' disks, never in what a module says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from k3s_daas.chain import Key
from k3s_daas.registry import Registry, RegistryParams, create_registry, publish

pytestmark = pytest.mark.asyncio(loop_scope="session")
SUI = 1_000_000_000
TERMS = RegistryParams("killed", True, SUI, 0, 0, 5000, False)


class Killer:
    """The process that runs modules and kills them, for one fresh wallet and registry at a time."""

    def __init__(self, rpc: str, faucet: str, package_id: str, folder: Path) -> None:
        self.rpc, self.faucet, self.package_id, self.folder = rpc, faucet, package_id, folder
        self.process: subprocess.Popen[str]
        self.round = 0
        self.reached: Counter[str] = Counter()

    async def fresh(self, count: int) -> None:
        """Another wallet with a registry of its own, and hosts without secrets."""
        from k3s_daas.chain import SuiClient

        self.round += 1
        place = self.folder / str(self.round)
        self.hosts = {f"worker-{i}": place / f"worker-{i}" for i in range(count)}
        for host in self.hosts.values():
            host.mkdir(parents=True)
        key = Key.create(place / "key")
        request = {"FixedAmountRequest": {"recipient": key.address, "amount": 200 * SUI}}
        httpx.post(f"{self.faucet}/v2/gas", json=request).raise_for_status()
        self.chain = await SuiClient.connect([self.rpc], "localnet", key)
        deployment, _ = await create_registry(self.chain, self.package_id, TERMS)
        self.registry = Registry(self.chain, deployment)
        self.balance = await self.chain.balance(key.address)
        self.arguments = {
            "network": "localnet",
            "endpoints": [self.rpc],
            "key_file": str(place / "key"),
            "package_id": self.package_id,
            "registry_id": deployment.registry_id,
        }

    async def run(self, steps: str, **when: Any) -> dict[str, Any]:
        """Do the steps on all hosts, to the end or until killed."""
        hosts = {name: str(path) for name, path in self.hosts.items()}
        order = {"steps": steps, "hosts": hosts, "arguments": self.arguments, **when}

        def ask() -> str:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()

        answer: dict[str, Any] = json.loads(await asyncio.to_thread(ask))
        assert answer["killed"] or not answer["result"].get("failed"), answer
        if answer["killed"]:
            self.reached[answer["reached"].split()[0] if answer["reached"] else "start"] += 1
        return answer

    def commitments(self, node_id: str) -> dict[str, bytes]:
        """Of the secrets on a host, by file name."""
        found = {}
        for path in self.hosts[node_id].iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            found[path.name] = hashlib.sha256(path.read_text().strip().encode()).digest()
        return found

    async def nothing_is_lost(self) -> int:
        """Every token that the chain has is that of a secret on its host; returns how many it has."""
        tokens = await self.registry.worker_tokens(self.hosts)
        for node_id, token in tokens.items():
            assert token.commitment in self.commitments(node_id).values(), node_id
        return len(tokens)

    async def all_is_well(self, generations: set[int]) -> None:
        """One stake and one live token per worker, paid once, and exactly its secret on each host."""
        workers, tokens = await self.registry.workers(), await self.registry.worker_tokens(self.hosts)
        assert {worker.node_id for worker in workers} == set(tokens) == set(self.hosts)
        assert {worker.stake_mist for worker in workers} == {SUI}
        assert (await self.registry.config()).staked_mist == len(self.hosts) * SUI
        proof = f"{self.package_id}::worker_registry::StakeProof"
        proofs = [p async for p in self.chain.owned_objects(self.chain.require_address(), proof)]
        assert sorted(p.json["node_id"] for p in proofs) == sorted(self.hosts)
        paid = self.balance - await self.chain.balance(self.chain.require_address())
        assert len(self.hosts) * SUI < paid < len(self.hosts) * SUI + 5 * SUI  # the rest is gas
        now_ms = await self.registry.clock_ms()
        for node_id, token in tokens.items():
            assert not token.revoked
            assert token.expires_at_ms > now_ms
            assert self.commitments(node_id) == {"seal-token": token.commitment}
        assert {token.generation for token in tokens.values()} <= generations


@pytest_asyncio.fixture(loop_scope="session")
async def killer(
    request: Any, compiled: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Killer]:
    """With a parameter, that many workers are staked for in one transaction."""
    from k3s_daas.chain import SuiClient

    folder = tmp_path_factory.mktemp("killed")
    serve = ["-m", "k3s_daas_localnet", "serve", "--listen", "127.0.0.1:0", "--faucet-listen", "127.0.0.1:0"]
    serve += ["--state-dir", str(folder / "chain")]
    with subprocess.Popen([sys.executable, *serve], stdout=subprocess.PIPE, text=True) as net:
        try:
            assert net.stdout is not None
            where = json.loads(await asyncio.to_thread(net.stdout.readline))
            key = Key.generate()
            give = {"FixedAmountRequest": {"recipient": key.address, "amount": 10 * SUI}}
            httpx.post(f"{where['faucet']}/v2/gas", json=give).raise_for_status()
            async with await SuiClient.connect([where["rpc"]], "localnet", key) as publisher:
                package_id, _ = await publish(publisher, compiled)
            killer = Killer(where["rpc"], where["faucet"], package_id, folder)
            environment = os.environ | {"STAKE_BATCH": str(getattr(request, "param", 200))}
            command = [sys.executable, str(Path(__file__).with_name("killed_run.py"))]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(command, text=True, env=environment, **pipes) as killer.process:
                assert killer.process.stdout is not None
                assert await asyncio.to_thread(killer.process.stdout.readline) == "ready\n"
                yield killer
                assert killer.process.stdin is not None
                killer.process.stdin.close()
        finally:
            net.terminate()  # else an error above would wait for it


@pytest.mark.parametrize("killer", [200, 20], ids=["one-transaction", "three-transactions"], indirect=True)
async def test_staking_50_workers_killed_at_random_pays_once(killer: Killer) -> None:
    chance = random.Random(50)  # noqa: S311
    await killer.fresh(50)
    whole = (await killer.run("stake"))["seconds"]
    await killer.all_is_well({1})
    staked_then_killed = rounds = 0
    # A run may be over before it is killed, the more so when the machine was busy while the first was timed.
    while rounds < 3 or (killer.reached["seal"] + killer.reached["chain"] < 5 and rounds < 12):
        rounds += 1
        await killer.fresh(50)
        for _ in range(4):
            # Half of them from when the money is about to move, where it matters most.
            mark = chance.choice([None, "chain"])
            done = await killer.run(
                "stake", mark=mark, after_s=chance.uniform(0, whole * (0.6 if mark else 1))
            )
            known = await killer.nothing_is_lost()
            staked_then_killed += done["killed"] and known > 0
            if not done["killed"]:
                break
        await killer.run("stake")
        await killer.all_is_well({1})
        assert not (await killer.run("stake"))["result"]["changed"]
    print(f"killed at {dict(killer.reached)}, {staked_then_killed} times with stakes on-chain")
    print(f"an undisturbed run took {whole:.2f} s")
    assert killer.reached["seal"] + killer.reached["chain"] >= 5


async def test_rotating_killed_at_every_step_loses_no_secret(killer: Killer) -> None:
    chance = random.Random(9)  # noqa: S311
    await killer.fresh(1)
    await killer.run("stake")
    line, generation = 0, 1
    while True:
        # The nth line of the code that touches the files; K3S_DAAS_ALL_LINES=1 takes them all.
        line += 1 if os.environ.get("K3S_DAAS_ALL_LINES") else chance.randint(2, 9)
        done = await killer.run("rotate", at_line=line)
        await killer.nothing_is_lost()
        if not done["killed"]:
            break
        # Once the new secret is in place the rotation is over, and the next run makes another one.
        over = done["reached"] == "promote" and list(killer.commitments("worker-0")) == ["seal-token"]
        await killer.run("rotate")
        await killer.all_is_well(set(range(1, 500)))
        token = await killer.registry.worker_token("worker-0")
        assert token is not None
        assert token.generation - generation == (2 if over else 1)
        generation = token.generation
    assert line > 60
    assert set(killer.reached) == {"next", "promote"}
    for _ in range(6):
        mark = chance.choice(["next", "chain"])
        await killer.run("rotate", mark=mark, after_s=chance.uniform(0, 0.2))
        await killer.nothing_is_lost()
    await killer.run("rotate")
    await killer.all_is_well(set(range(1, 500)))
