"""The master is killed at random moments and loses all it has, while somebody writes into the cluster.

Each time it starts as an enclave does: with what its image has, and no state. What was written and
acknowledged before, and isn't there after, was lost: its age at the kill is the loss. At last another master
goes on from its state, as one that was restored elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from lightkube import Client
from lightkube.resources.core_v1 import ConfigMap
from testinfra.host import Host

from k3s_daas.chain import Key, MoveAbort, SuiClient
from k3s_daas.registry import AgreedRegistry, Deployment
from k3s_daas.registry.snapshots import Anchors
from restored import AGENT, OnChain, Writer, ask_chain, is_ready

WORKER = "worker-1"
# As molecule.yml says.
STORE, INTERVAL_S = "/srv/parent", 15
KILLS = 3
UNITS = "k3s.service k3s-daas-master.service k3s-daas-master-snapshot.service"
# All but what an image has: units, programs, configuration, and the sealing key of this simulation.
WIPE = f"""
systemctl stop {UNITS}
rm -rf /var/lib/rancher/k3s/server /var/lib/k3s-daas-master /var/lib/k3s-daas /run/k3s-daas-snapshot
rm -rf /etc/k3s-daas/tls/* /etc/k3s-daas/kubernetes/*
rm -f /etc/rancher/k3s/agent-token /etc/rancher/k3s/encryption.json /etc/rancher/k3s/k3s.yaml
"""


@dataclass(frozen=True)
class Round:
    """One kill: how much was lost, how long until the service was ready again, and what the chain said after.

    `lived_s` is how long the master ran before; `lost` how many of the acknowledged writes are gone.
    """

    lived_s: float
    lost: int
    loss_s: float
    back_s: float
    agent: str
    node: dict[str, Any]
    chain: OnChain


@dataclass(frozen=True)
class Story:
    agent: str
    node: dict[str, Any]
    chain: OnChain
    rounds: list[Round]
    # The newest snapshot is hidden from the master: what its unit said, and whether k3s ran.
    rolled_back: str
    k3s_then: str
    # Told to stop, not killed.
    stopped: Round
    # Another has overtaken it: why it ended, after how long, whether its API server answers, and what a start
    # says.
    overtaken: str
    ended_s: float
    answers_then: bool
    started_then: str
    server_token: str
    stored: list[str]
    secrets_found: str


@pytest.fixture(scope="session")
def story(
    request: pytest.FixtureRequest,
    hosts: dict[str, Host],
    stage: dict[str, Any],
    nodes: Callable[[], dict[str, dict[str, Any]]],
    kubernetes: Callable[[], Client],
    deployment: Deployment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    master, on_chain = hosts["master"], ask_chain(stage, deployment)
    seed = random.randrange(10**6)  # noqa: S311  moments, no secrets
    dice = random.Random(seed)  # noqa: S311
    plugins = request.config.pluginmanager

    def say(line: str) -> None:
        with plugins.getplugin("capturemanager").global_and_fixture_disabled():
            plugins.getplugin("terminalreporter").write_line(line)

    say(f"\nseed of the moments: {seed}; wanted at most {INTERVAL_S} s lost")
    writer = Writer(kubernetes())
    url = f"https://{stage['hosts']['master']}:8443/readyz"
    settled = time.time()

    def start() -> float:
        """Seconds from its boot until the service is ready."""
        began = time.time()
        master.check_output("systemctl start k3s-daas-master")
        while time.time() - began < 120:
            with contextlib.suppress(httpx.HTTPError):
                # Whether the certificate is the right one is the default scenario's matter.
                if httpx.get(url, verify=False, timeout=3).status_code == 200:  # noqa: S501
                    return time.time() - began
            time.sleep(0.2)
        raise AssertionError(master.run("journalctl -u k3s-daas-master* -u k3s -n 60").stdout)

    def kept() -> set[str]:
        found = kubernetes().list(ConfigMap, namespace="default")
        return {str(one.metadata.name) for one in found if one.metadata is not None}

    def end(command: str, *, told: bool = False) -> tuple[float, dict[str, float]]:
        """(when it ended, what was acknowledged by then), or by when it was told to."""
        with writer.writing():
            time.sleep(dice.uniform(1, INTERVAL_S + 5))
            at, acknowledged = time.time(), dict(writer.acknowledged)
            master.check_output(command)
            if not told:
                at, acknowledged = time.time(), dict(writer.acknowledged)
        master.check_output(WIPE)
        return at, acknowledged

    def after(at: float, acknowledged: dict[str, float]) -> Round:
        nonlocal settled
        back_s = start()
        there = kept()
        lost = {name: then for name, then in acknowledged.items() if name not in there}
        # What is lost once is lost for good, and counts once.
        writer.acknowledged = {name: then for name, then in acknowledged.items() if name in there}
        loss_s = at - min(lost.values(), default=at)
        found = Round(
            at - settled,
            len(lost),
            loss_s,
            back_s,
            hosts[WORKER].check_output(AGENT),
            ready_node(),
            on_chain(),
        )
        say(
            f"lived {found.lived_s:.1f} s, lost {loss_s:.1f} s ({len(lost)} of {len(acknowledged)} writes), "
            f"back after {back_s:.1f} s, snapshot {found.chain.anchor.counter}"
        )
        settled = time.time()
        return found

    def ready_node() -> dict[str, Any]:
        until = time.time() + 60
        while time.time() < until:
            found = nodes()
            if set(found) == {WORKER} and is_ready(found[WORKER]):
                return found[WORKER]
            time.sleep(0.5)
        raise AssertionError(f"after 60 s {WORKER} isn't Ready: {json.dumps(nodes())[:2000]}")

    def overtake() -> None:
        """Anchor the next snapshot, as one that was restored from the same snapshot does, with its wallet."""
        file = tmp_path_factory.mktemp("other") / "sui.key"
        file.write_text(master.check_output("cat /var/lib/k3s-daas-master/sui.key"))
        file.chmod(0o600)
        key = Key.load(file)
        file.unlink()

        async def anchor() -> None:
            rpc, chain_id = stage["rpc"], stage["chain_id"]
            async with await SuiClient.connect([rpc], "localnet", key, chain_id=chain_id) as chain:
                anchors = Anchors(AgreedRegistry(chain, deployment))
                newest = await anchors.newest()
                assert newest is not None
                await anchors.anchor(newest.counter + 1, newest.hash, b"o" * 32)

        # The master itself may be faster.
        for _ in range(3):
            with contextlib.suppress(MoveAbort):
                asyncio.run(anchor())
                return
        raise AssertionError("the master anchored each time before the other")

    def ended() -> float:
        """Seconds until k3s has ended."""
        began = time.time()
        while time.time() - began < INTERVAL_S + 30:
            if master.run("systemctl is-active k3s").stdout.strip() == "inactive":
                return time.time() - began
            time.sleep(0.2)
        raise AssertionError(master.run("journalctl -u k3s-daas-master* -u k3s -n 60").stdout)

    before = hosts[WORKER].check_output(AGENT), ready_node(), on_chain()
    token = master.check_output("cat /var/lib/rancher/k3s/server/token").strip()
    kill = f"systemctl kill --signal=KILL {UNITS}"
    rounds = []
    for number in range(KILLS):
        killed = end(kill)
        rolled_back = k3s_then = ""
        if number == KILLS - 1:
            newest = sorted(master.check_output(f"ls {STORE}").split())
            anchored = f"{on_chain().anchor.counter:012d}-{on_chain().anchor.hash.hex()}.sealed"
            assert anchored in newest
            master.check_output(f"mv {STORE}/{anchored} /root/hidden")
            master.run("systemctl start k3s-daas-master")
            rolled_back = master.run("journalctl -u k3s-daas-master-restore -n 5 -o cat").stdout
            k3s_then = master.run("systemctl is-active k3s").stdout.strip()
            master.check_output(f"mv /root/hidden {STORE}/{anchored}")
        rounds.append(after(*killed))
    with writer.writing():
        time.sleep(1)
    stopped = after(*end("systemctl stop k3s-daas-master", told=True))
    stored = master.check_output(f"ls {STORE}").split()
    overtake()
    ended_s = ended()
    say(f"overtaken: k3s ended after {ended_s:.1f} s")
    try:
        httpx.get(f"https://{stage['hosts']['master']}:6443/readyz", verify=False, timeout=3)  # noqa: S501
        answers_then = True
    except httpx.HTTPError:
        answers_then = False
    master.run("systemctl start k3s")
    return Story(
        *before,
        rounds,
        rolled_back,
        k3s_then,
        stopped,
        master.check_output("cat /var/lib/k3s-daas-master/overtaken"),
        ended_s,
        answers_then,
        master.run("systemctl is-active k3s").stdout
        + master.run("journalctl -u k3s-daas-master-restore -n 5 -o cat").stdout,
        token,
        stored,
        master.run(f"grep -l --fixed-strings '{token.rpartition(':')[2]}' -r {STORE}").stdout,
    )
