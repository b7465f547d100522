"""worker-1 leaves before the tests look: an operator's runs of playbooks/exit.yml, one of them killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from k3s_daas.chain import SuiClient
from k3s_daas.registry import Deployment, Registry, Worker

PROJECT = Path(__file__).parents[3]
STAGE = PROJECT / ".state" / os.environ["K3S_DAAS_STAGE"]
LEAVER, STAYER = "worker-1", "worker-2"
# As molecule.yml says.
WITHDRAWAL_ADDRESS = "0x" + "e7174".rjust(64, "0")
COMMAND = [
    Path(sys.executable).parent / "ansible-playbook",
    f"--inventory={PROJECT / 'inventories/local'}",
    f"--extra-vars=node_id={LEAVER} confirm={LEAVER}",
    PROJECT / "playbooks/exit.yml",
]

# Molecule wants colours.
PLAIN = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


@pytest.fixture(scope="session")
def stage() -> dict[str, Any]:
    return json.loads((STAGE / "stage.json").read_text())


@pytest.fixture(scope="session")
def hosts(stage: dict[str, Any]) -> dict[str, Host]:
    return {
        name: testinfra.get_host(f"ssh://root@{name}", ssh_config=stage["ssh_config"])
        for name in stage["hosts"]
    }


@pytest.fixture(scope="session")
def deployment(hosts: dict[str, Host]) -> Deployment:
    """Which contracts the master serves, as its configuration says."""
    found = json.loads(hosts["master"].check_output("cat /etc/k3s-daas/master.json"))
    return Deployment(found["package_id"], found["registry_id"])


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
class Run:
    code: int
    output: str

    @property
    def words(self) -> str:
        return " ".join(self.output.split())

    @property
    def changed(self) -> dict[str, int]:
        recap = self.output.rpartition("PLAY RECAP")[2]
        return {name: int(n) for name, n in re.findall(r"^(\S+) .*?changed=(\d+)", recap, re.MULTILINE)}


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


def exit_play(*arguments: str) -> Run:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=PROJECT,
        env=PLAIN,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def exit_play_killed_at(task: str) -> None:
    """SIGKILL for the whole run as soon as it says that it begins `task`."""
    process = subprocess.Popen(
        COMMAND,
        cwd=PROJECT,
        env=PLAIN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line)
            if task in line:
                break
        else:
            pytest.fail("".join(["the run ended before it was killed:\n", *seen]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


async def ask_chain(stage: dict[str, Any], deployment: Deployment) -> tuple[dict[str, Worker], int, int]:
    async with await SuiClient.connect([stage["rpc"]], "localnet", chain_id=stage["chain_id"]) as chain:
        workers = await Registry(chain, deployment).workers()
        wallet, paid_back = [await chain.balance(at) for at in (stage["operator"], WITHDRAWAL_ADDRESS)]
    return {one.node_id: one for one in workers}, wallet, paid_back


@pytest.fixture(scope="session")
def story(
    hosts: dict[str, Host],
    stage: dict[str, Any],
    deployment: Deployment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    def look() -> Look:
        found = json.loads(hosts["master"].check_output("k3s kubectl get nodes -o json"))
        workers, wallet_mist, paid_back_mist = asyncio.run(ask_chain(stage, deployment))
        return Look(
            {node["metadata"]["name"]: node for node in found["items"]},
            workers,
            wallet_mist,
            paid_back_mist,
            hosts[LEAVER].run("systemctl is-active k3s-daas-watcher k3s-agent").stdout,
            hosts[LEAVER].run("ls /etc/k3s-daas /etc/rancher/node").stdout,
        )

    before = look()
    checked = exit_play("--check"), look()
    # Watcher and agent are stopped, and nothing is sent yet.
    exit_play_killed_at("TASK [contracts : Request the unstake")
    killed = look()
    # Nothing listens on that port of the host: for this run it is lost.
    lost = tmp_path_factory.mktemp("lost") / "hosts.json"
    lost.write_text(json.dumps({"k3s_daas_workers": {"hosts": {LEAVER: {"ansible_port": 1}}}}))
    resumed = exit_play(f"--inventory={lost}"), look()
    until_ms = resumed[1].workers[LEAVER].unbonding_until_ms
    assert until_ms is not None, resumed[0].output
    time.sleep(max(0.0, until_ms / 1000 - time.time()) + 1)
    left = exit_play(), look()
    return Story(before, checked, killed, resumed, left, (exit_play(), look()))
