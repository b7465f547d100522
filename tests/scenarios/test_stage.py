"""A stage of its own, killed and mended: what `make demo` stands on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PROJECT = Path(__file__).parents[2]
# One stage for each process that pytest-xdist runs.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
NAME = f"tstage{WORKER}"
STATE = PROJECT / ".state" / NAME
STAGE = PROJECT / "molecule/resources/stage"
sys.path.insert(0, str(PROJECT / "molecule/resources"))

from testhosts import cgroups  # noqa: E402

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-nspawn") is None,
    reason="test hosts need root and systemd-nspawn: run `make setup` as root",
)


def stage(command: str) -> None:
    # Only `up` is told the address range: taking a stage down goes by the one it has.
    subnet = ["--subnet", f"10.123.{10 + int(WORKER)}.0/24"] if command == "up" else []
    subprocess.run(
        [sys.executable, STAGE, "--name", NAME, *subnet, command],
        check=True,
        capture_output=True,
        timeout=180,
    )


def described() -> dict[str, Any]:
    return json.loads((STATE / "stage.json").read_text())


def kill(cgroup: str) -> None:
    for pid in cgroups.processes(cgroup):
        os.kill(pid, signal.SIGKILL)


def host_started(name: str) -> str:
    done = subprocess.run(
        ["ssh", "-F", STATE / "ssh_config", name, "systemctl show --value --property=UserspaceTimestamp"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture(autouse=True)
def cleared() -> Iterator[None]:
    stage("down")
    yield
    stage("down")
    assert not STATE.exists()
    assert cgroups.processes(f"testhosts/{NAME}") | cgroups.processes(f"testhosts/{NAME}-localnet") == set()
    assert not Path(f"/sys/class/net/br-{NAME}").exists()
    stage("down")  # twice is fine


def test_a_whole_stage_is_left_alone_and_a_dead_chain_comes_back_with_its_state() -> None:
    stage("up")
    before, started = described(), host_started("worker-1")
    stage("up")
    assert (described(), host_started("worker-1")) == (before, started)

    kill(f"testhosts/{NAME}-localnet")
    stage("up")
    assert (described(), host_started("worker-1")) == (before, started)
    gift = {"FixedAmountRequest": {"recipient": before["operator"]}}
    assert httpx.post(f"{before['faucet']}/v2/gas", json=gift).is_success


def test_what_a_killed_run_left_half_is_made_anew() -> None:
    stage("up")
    before = described()
    kill(f"testhosts/{NAME}/{NAME}-12")  # worker-1, and with it its seal token
    stage("up")
    after = described()
    assert after["chain_id"] != before["chain_id"]
    assert host_started("worker-1")
