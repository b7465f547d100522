"""What the scenarios' tests share, as a pytest plugin.

Hosts and chain are seen from outside, over ssh and the chain's own RPC; playbooks are run by the command that
an operator types. A master in an enclave has no ssh, and no playbook goes there: the tests look into it as
only the root of the machine can that simulates it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from lightkube import Client, KubeConfig
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from k3s_daas.chain import SuiClient
from k3s_daas.registry import Deployment, Master, Registry, Worker
from stage import nitro
from stage.stage import Stage
from testhosts import cgroups, registry
from testhosts.names import Fleet

PROJECT = Path(__file__).parents[2]
STAGE = PROJECT / ".state" / os.environ["K3S_DAAS_STAGE"]
# What each playbook said that a test ran. Not beside the journals: their folder is made anew at the end.
RUNS = PROJECT / ".state/logs" / f"{os.environ['K3S_DAAS_STAGE']}-runs"
# Molecule wants colours; who reads the output here doesn't.
# As an operator's shell has it: a checkout's own ansible.cfg counts, not the one that molecule names.
_PLAIN = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"} | {
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_NOCOLOR": "1",
}


@dataclass(frozen=True)
class Run:
    """How a playbook's run ended, and all that it printed."""

    code: int
    output: str

    @property
    def words(self) -> str:
        """The output on one line: Ansible folds where it likes."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> dict[str, int]:
        """The recap's count of changed tasks by host."""
        recap = self.output.rpartition("PLAY RECAP")[2]
        return {name: int(n) for name, n in re.findall(r"^(\S+) .*?changed=(\d+)", recap, re.MULTILINE)}


def pytest_sessionstart() -> None:
    """The last session's runs are none of this one's."""
    shutil.rmtree(RUNS, ignore_errors=True)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Tell destroy.yml whether it has to keep what explains a failure."""
    if exitstatus == pytest.ExitCode.OK:
        (STAGE / "verified").touch()


def _command(playbook: str, arguments: tuple[str, ...], project: Path = PROJECT) -> list[str]:
    program = Path(sys.executable).parent / "ansible-playbook"
    options = [f"--inventory={PROJECT / 'inventories/local'}"]
    if is_enclave(json.loads((STAGE / "stage.json").read_text())):
        options.append("--limit=localhost:k3s_daas_workers")
    return [str(program), *options, *arguments, f"{project / playbook}"]


def play(playbook: str, *arguments: str, project: Path = PROJECT) -> Run:
    """Run `ansible-playbook PLAYBOOK ARGUMENTS`, the playbook's path being the project's, to its end.

    `project` may be another checkout, as `checkout` makes one.
    `play(*told("docs/exit.md", "playbooks/exit.yml"))` runs a page's command: see `pages.told`.
    """
    done = subprocess.run(
        _command(playbook, arguments, project),
        cwd=project,
        env=_PLAIN,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    RUNS.mkdir(parents=True, exist_ok=True)
    kept = RUNS / f"{len(list(RUNS.iterdir())):02}-{Path(playbook).stem}.log"
    kept.write_text(f"$ ansible-playbook {shlex.join([playbook, *arguments])}\n{done.stdout}{done.stderr}")
    return Run(done.returncode, done.stdout + done.stderr)


def checkout(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """A copy of this checkout in `folder`, with each (path, found, wanted) replaced in it."""
    passing = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "tests", "docs", "molecule")
    shutil.copytree(PROJECT, folder, ignore=passing, dirs_exist_ok=True)
    # The wheels of others are the same; the inventory's stage is found there, too.
    (folder / ".state").symlink_to(PROJECT / ".state")
    for path, found, wanted in changes:
        text = (folder / path).read_text()
        assert found in text, f"{path} has no {found!r}"
        (folder / path).write_text(text.replace(found, wanted))
    return folder


def play_killed_at(task: str, playbook: str, *arguments: str) -> None:
    """SIGKILL for the whole run as soon as its output has `task`, which is when that task begins."""
    process = subprocess.Popen(
        _command(playbook, arguments),
        cwd=PROJECT,
        env=_PLAIN,
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


class EnclaveBackend(BaseBackend):
    """Runs testinfra's commands in a simulated enclave."""

    NAME = "enclave"

    def __init__(self, fleet: Fleet, address: str) -> None:
        super().__init__("master")
        self._entering = shlex.join(nitro.entering(fleet, address))

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        return self.run_local(f"{self._entering} /bin/sh -c %s", self.get_command(command, *args))


@dataclass(frozen=True)
class Chain:
    """What the chain knows of the scenario's registry."""

    stage: dict[str, Any]
    deployment: Deployment

    def workers(self) -> dict[str, Worker]:
        """By node id."""

        async def ask(chain: SuiClient) -> list[Worker]:
            return await Registry(chain, self.deployment).workers()

        return {one.node_id: one for one in self._ask(ask)}

    def master_account(self) -> str:
        """Address of the live master's wallet."""

        async def ask(chain: SuiClient) -> Master | None:
            return await Registry(chain, self.deployment).master()

        return str(self._ask(ask).account)

    def balance_mist(self, address: str) -> int:
        async def ask(chain: SuiClient) -> int:
            return await chain.balance(address)

        return self._ask(ask)

    def _ask(self, question: Callable[[SuiClient], Any]) -> Any:
        async def connected() -> Any:
            stage = self.stage
            async with await SuiClient.connect(
                [stage["rpc"]], "localnet", chain_id=stage["chain_id"]
            ) as chain:
                return await question(chain)

        return asyncio.run(connected())


@pytest.fixture(scope="session")
def stage() -> dict[str, Any]:
    """Content of the stage's description, .state/STAGE/stage.json."""
    return json.loads((STAGE / "stage.json").read_text())


def is_enclave(stage: dict[str, Any]) -> bool:
    """Whether the master runs from the enclave image, so that nobody can log in to it."""
    return bool(stage["enclave"])


@pytest.fixture(scope="session")
def hosts(stage: dict[str, Any]) -> dict[str, Host]:
    """Every host of the stage, by name."""
    found = {
        name: testinfra.get_host(f"ssh://root@{name}", ssh_config=stage["ssh_config"])
        for name in stage["hosts"]
    }
    if is_enclave(stage):
        fleet = Fleet.parse(stage["name"], stage["subnet"])
        found["master"] = Host(EnclaveBackend(fleet, stage["hosts"]["master"]))
    return found


@pytest.fixture(scope="session")
def deployment(hosts: dict[str, Host]) -> Deployment:
    """Which contracts the master serves, as its configuration says."""
    found = json.loads(hosts["master"].check_output("cat /etc/k3s-daas/master.json"))
    return Deployment(found["package_id"], found["registry_id"])


@pytest.fixture(scope="session")
def chain(stage: dict[str, Any], deployment: Deployment) -> Chain:
    return Chain(stage, deployment)


@pytest.fixture(scope="session")
def nodes(hosts: dict[str, Host]) -> Callable[[], dict[str, dict[str, Any]]]:
    """`nodes()`: the cluster's Node objects now, by name."""

    def ask() -> dict[str, dict[str, Any]]:
        found = json.loads(hosts["master"].check_output("k3s kubectl get nodes -o json"))
        return {node["metadata"]["name"]: node for node in found["items"]}

    return ask


@pytest.fixture(scope="session")
def renew(stage: dict[str, Any]) -> Callable[[str], None]:
    """`renew(NAME)`: that host is lost with all it has, and a fresh one of that name and address is there."""

    def lose(name: str) -> None:
        fleet = Fleet.parse(stage["name"], stage["subnet"])
        running = registry.entry(fleet.name)
        assert running is not None
        cgroups.destroy(fleet.host(name, stage["hosts"][name]).cgroup)
        wanted = (f"{one}={address}" for one, address in stage["hosts"].items())
        options = ["--kubernetes"] if running.kubernetes else []
        Stage(fleet.name, fleet.subnet).testhosts(fleet.subnet, "up", *wanted, options=options)

    return lose


@pytest.fixture(scope="session")
def kubernetes(stage: dict[str, Any], hosts: dict[str, Host]) -> Callable[[], Client]:
    """`kubernetes()`: a client of the API server as it is now, with k3s' own admin certificate."""

    def connect() -> Client:
        text = hosts["master"].check_output("cat /etc/rancher/k3s/k3s.yaml")
        content = yaml.safe_load(text.replace("127.0.0.1", stage["hosts"]["master"]))
        return Client(config=KubeConfig.from_dict(content))

    return connect
