"""worker-1 leaves before the tests look: an operator's runs of playbooks/exit.yml, one of them killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from k3s_daas.registry import Worker
from pages import told
from scenario import Chain, Run, play, play_killed_at

LEAVER, STAYER = "worker-1", "worker-2"
# As molecule.yml says.
WITHDRAWAL_ADDRESS = "0x" + "e7174".rjust(64, "0")
EXIT = told("docs/exit.md", "playbooks/exit.yml", node_id=LEAVER, confirm=LEAVER)
CHECK = told("docs/exit.md", "playbooks/exit.yml", "--check", node_id=LEAVER, confirm=LEAVER)


@dataclass(frozen=True)
class Look:
    """What is true between two runs."""

    nodes: dict[str, dict[str, Any]]
    workers: dict[str, Worker]
    wallet_mist: int
    paid_back_mist: int
    units: str
    files: str


@dataclass(frozen=True)
class Story:
    """Each run, and what was true after it."""

    before: Look
    checked: tuple[Run, Look]
    killed: Look
    # With the host out of reach.
    resumed: tuple[Run, Look]
    left: tuple[Run, Look]
    again: tuple[Run, Look]
    # What `exit_report` held after those two of the runs that came to their end.
    reports: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    chain: Chain,
    nodes: Callable[[], dict[str, dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    def look() -> Look:
        return Look(
            nodes(),
            chain.workers(),
            chain.balance_mist(stage["operator"]),
            chain.balance_mist(WITHDRAWAL_ADDRESS),
            hosts[LEAVER].run("systemctl is-active k3s-daas-watcher k3s-agent").stdout,
            hosts[LEAVER].run("ls /etc/k3s-daas /etc/rancher/node").stdout,
        )

    before = look()
    checked = play(*CHECK), look()
    # Watcher and agent are stopped, and nothing is sent yet.
    play_killed_at("PLAY [Request the unstake", *EXIT)
    killed = look()
    # Nothing listens on that port of the host: for this run it is lost.
    lost = tmp_path_factory.mktemp("lost") / "hosts.json"
    lost.write_text(json.dumps({"k3s_daas_workers": {"hosts": {LEAVER: {"ansible_port": 1}}}}))
    report = lost.with_name("report.json")
    kept = (*EXIT, f"--extra-vars=exit_report={report}")
    resumed = play(*kept, f"--inventory={lost}"), look()
    first = json.loads(report.read_text())
    until_ms = resumed[1].workers[LEAVER].unbonding_until_ms
    assert until_ms is not None, resumed[0].output
    time.sleep(max(0.0, until_ms / 1000 - time.time()) + 1)
    left = play(*kept), look()
    second = json.loads(report.read_text())
    return Story(before, checked, killed, resumed, left, (play(*EXIT), look()), (first, second))
