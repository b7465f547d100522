"""Every scenario in molecule/, whole: real hosts, the real playbook."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testhosts.names import Fleet

PROJECT = Path(__file__).parents[2]
# Of these the stand-in is none of the parties.
REAL_ONLY = {"real-k3s"}
SCENARIOS = sorted(path.parent.name for path in (PROJECT / "molecule").glob("*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, own_stage: Callable[[str, int], Fleet]) -> None:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("test hosts need root and systemd-nspawn: run `make setup` as root")
    if scenario == "upgrade" and os.environ.get("K3S_BINARY") and not os.environ.get("K3S_BINARY_OLD"):
        pytest.skip("upgrade needs two real k3s: set K3S_BINARY_OLD to one that is older than K3S_BINARY")
    if scenario in REAL_ONLY and not os.environ.get("K3S_BINARY"):
        pytest.skip(
            f"{scenario} is about a real k3s: set K3S_BINARY=/path/to/k3s, and K3S_IMAGES=/dir for pods"
        )
    if scenario == "image" and not (PROJECT / ".state/enclave-image/image.json").exists():
        pytest.skip("image builds the enclave image, which takes minutes: run `molecule test -s image` once")
    stage = own_stage("m", SCENARIOS.index(scenario))
    done = subprocess.run(
        ["molecule", "test", "--scenario-name", scenario],
        cwd=PROJECT,
        env=os.environ | {"K3S_DAAS_STAGE": stage.name, "K3S_DAAS_STAGE_SUBNET": str(stage.subnet)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    report = PROJECT / ".state/logs" / f"molecule-{scenario}.log"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(done.stdout)
    tail = "\n".join(done.stdout.splitlines()[-80:])
    assert done.returncode == 0, f"{tail}\n(all of it: {report}; the hosts' journals are beside it)"
