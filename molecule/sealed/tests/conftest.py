"""The master is killed at random moments and loses all it has, while somebody writes into the cluster.

Each time it starts as an enclave does: with what its image has, and no state. What was written and
acknowledged before, and isn't there after, was lost: its age at the kill is the loss.
"""

from __future__ import annotations

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

from k3s_daas.registry import Deployment
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
    return Story(
        *before,
        rounds,
        rolled_back,
        k3s_then,
        stopped,
        token,
        master.check_output(f"ls {STORE}").split(),
        master.run(f"grep -l --fixed-strings '{token.rpartition(':')[2]}' -r {STORE}").stdout,
    )
