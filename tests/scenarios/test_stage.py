"""A stage of its own, killed and mended: what `make demo` stands on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testhosts import cgroups
from testhosts.names import Fleet

PROJECT = Path(__file__).parents[2]
# One stage for each process that pytest-xdist runs.
PLACE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-nspawn") is None,
    reason="test hosts need root and systemd-nspawn: run `make setup` as root",
)


class Stage:
    """The program as `make` calls it."""

    def __init__(self, fleet: Fleet) -> None:
        self.name, self.subnet = fleet.name, str(fleet.subnet)
        self.state = PROJECT / ".state" / self.name

    def __call__(self, command: str) -> None:
        # Only `up` is told the address range: taking a stage down goes by the one it has.
        subnet = ["--subnet", self.subnet] if command == "up" else []
        program = [sys.executable, PROJECT / "molecule/resources/stage", "--name", self.name]
        subprocess.run([*program, *subnet, command], check=True, capture_output=True, timeout=180)

    def described(self) -> dict[str, Any]:
        return json.loads((self.state / "stage.json").read_text())

    def kill(self, cgroup: str) -> None:
        for pid in cgroups.processes(f"testhosts/{self.name}{cgroup}"):
            os.kill(pid, signal.SIGKILL)

    def host_started(self, name: str) -> str:
        command = ["ssh", "-F", self.state / "ssh_config", name]
        command += ["systemctl show --value --property=UserspaceTimestamp"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def stage(own_stage: Callable[[str, int], Fleet]) -> Iterator[Stage]:
    stage = Stage(own_stage("s", PLACE))
    stage("down")
    yield stage
    stage("down")
    assert not stage.state.exists()
    running = [cgroups.processes(f"testhosts/{stage.name}{rest}") for rest in ("", "-localnet")]
    assert running == [set(), set()]
    assert not Path(f"/sys/class/net/br-{stage.name}").exists()
    stage("down")  # twice is fine


def test_a_whole_stage_is_left_alone_and_a_dead_chain_comes_back_with_its_state(stage: Stage) -> None:
    stage("up")
    before, started = stage.described(), stage.host_started("worker-1")
    stage("up")
    assert (stage.described(), stage.host_started("worker-1")) == (before, started)

    stage.kill("-localnet")
    stage("up")
    assert (stage.described(), stage.host_started("worker-1")) == (before, started)
    gift = {"FixedAmountRequest": {"recipient": before["operator"]}}
    assert httpx.post(f"{before['faucet']}/v2/gas", json=gift).is_success


def test_what_a_killed_run_left_half_is_made_anew(stage: Stage) -> None:
    stage("up")
    before = stage.described()
    stage.kill(f"/{stage.name}-12")  # worker-1, and with it its seal token
    stage("up")
    after = stage.described()
    assert after["chain_id"] != before["chain_id"]
    assert stage.host_started("worker-1")
