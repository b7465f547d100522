"""What playbooks/scale.yml asks for before chain and hosts are asked anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
INVENTORY = {"k3s_daas_master": {"hosts": {"master": None}}}


def scale(folder: Path, inventory: dict[str, Any] = INVENTORY, **given: Any) -> tuple[int, str]:
    """(exit code, output as one line); no host or chain is there to be asked."""
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    command = [
        *(Path(sys.executable).parent / "ansible-playbook", PROJECT / "playbooks/scale.yml"),
        *("-i", folder / "inventory.yml", "--extra-vars", json.dumps(given)),
    ]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "HOME": str(folder), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "Found scale_maximum nothing and 1 hosts in k3s_daas_master"),
        ({"scale_maximum": 5, "scale_minimum": 6}, "found minimum 6 over maximum 5"),
        ({"scale_maximum": 5, "scale_cost": "much"}, "scale_cost: Input should be a valid decimal"),
        ({"scale_maximum": 5, "scale_provisioner": "provision.yml"}, "Found scale_provisioner provision.yml"),
        (
            {"scale_maximum": 5, "scale_provisioner": "/nowhere/p.yml"},
            "Found scale_provisioner /nowhere/p.yml",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_first(tmp_path: Path, given: dict[str, Any], found: str) -> None:
    code, output = scale(tmp_path, **given)
    assert code != 0
    assert found in output
    assert "Find the contracts" not in output


def test_it_wants_a_master(tmp_path: Path) -> None:
    code, output = scale(tmp_path, {"k3s_daas_workers": {"hosts": {"worker-1": None}}}, scale_maximum=5)
    assert code != 0
    assert "0 hosts in k3s_daas_master" in output


def test_limits_that_make_sense_lead_to_the_chain(tmp_path: Path) -> None:
    provisioner = tmp_path / "provision.yml"
    provisioner.write_text("[]")
    code, output = scale(tmp_path, scale_maximum="5", scale_provisioner=str(provisioner))
    assert code != 0, "there is no chain"
    assert "PLAY [Find the contracts]" in output
