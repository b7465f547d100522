"""What playbooks/rotate.yml asks for before anything is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
INVENTORY = {
    "k3s_daas_master": {"hosts": {"master": None}},
    "k3s_daas_workers": {"hosts": {"worker-1": None, "worker-2": None}},
}


def rotate(folder: Path, **given: str) -> tuple[int, str]:
    """(exit code, output as one line) of playbooks/rotate.yml; no host or chain is there to be asked."""
    (folder / "inventory.yml").write_text(yaml.safe_dump(INVENTORY))
    command = [
        *(Path(sys.executable).parent / "ansible-playbook", PROJECT / "playbooks/rotate.yml"),
        *("-i", folder / "inventory.yml"),
        *(f"--extra-vars={name}={value}" for name, value in given.items()),
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
        ({}, "Found rotate=nothing"),
        ({"rotate": "everything"}, "Found rotate=everything"),
        ({"rotate": ""}, "Found rotate="),
        ({"rotate": "../site"}, "Found rotate=../site"),
    ],
)
def test_it_wants_to_be_told_what(tmp_path: Path, given: dict[str, str], found: str) -> None:
    code, output = rotate(tmp_path, **given)
    assert code != 0
    for words in (found, "seal_tokens", "server_token", "encryption_key", "-e rotate=WHAT", "Nothing was"):
        assert words in output
    assert "ok=0" in output


@pytest.mark.parametrize("names", ["worker-9", "worker-1,worker-9", "all", "master", "worker-*"])
def test_it_wants_workers_of_the_inventory(tmp_path: Path, names: str) -> None:
    code, output = rotate(tmp_path, rotate="seal_tokens", rotate_workers=names)
    assert code != 0
    assert f"Found {names.rpartition(',')[2]} in rotate_workers" in output
    assert "which are worker-1, worker-2," in output
    assert "Find the contracts" not in output
