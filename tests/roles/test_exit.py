"""What playbooks/exit.yml asks for before anything is touched, and what the role wipe knows of a host."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from playbook_kit import PROJECT, ansible_playbook

INVENTORY = {
    "k3s_daas_master": {"hosts": {"master": None, "both": None}},
    "k3s_daas_workers": {"hosts": {"worker-1": None, "both": None}},
}


def leave(folder: Path, **given: str) -> tuple[int, str]:
    """(exit code, output as one line) of playbooks/exit.yml; no host or chain is there to be asked."""
    return ansible_playbook(folder, "exit", INVENTORY, **given)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "Found node_id=nothing and confirm=nothing"),
        ({"node_id": "worker-1"}, "Found node_id=worker-1 and confirm=nothing"),
        ({"node_id": "worker-1", "confirm": "worker-2"}, "Found node_id=worker-1 and confirm=worker-2"),
    ],
)
def test_it_wants_a_name_and_its_confirmation(tmp_path: Path, given: dict[str, str], found: str) -> None:
    code, output = leave(tmp_path, **given)
    assert code != 0
    assert found in output
    assert "-e node_id=NAME -e confirm=NAME" in output
    assert "Find the contracts" not in output


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("worker-9", "Found worker-9 in no group"),
        # A pattern that would match every host is a name like any other.
        ("all", "Found all in no group"),
        ("master", "Found master in k3s_daas_master"),
        ("both", "Found both in k3s_daas_master, k3s_daas_workers"),
    ],
)
def test_it_takes_one_worker_that_is_not_the_master(tmp_path: Path, name: str, found: str) -> None:
    code, output = leave(tmp_path, node_id=name, confirm=name)
    assert code != 0
    assert found in output
    assert "wanted a host of k3s_daas_workers" in output
    assert "Find the contracts" not in output


def test_the_wipe_knows_every_unit() -> None:
    known = yaml.safe_load((PROJECT / "roles/wipe/vars/main.yml").read_text())
    units = {
        path.name.removesuffix(".j2"): path.read_text()
        for role in ("watcher", "k3s_agent", "master", "k3s_server")
        for path in (PROJECT / "roles" / role / "templates").iterdir()
        if path.suffixes[-2:] in ([".service", ".j2"], [".path", ".j2"], [".timer", ".j2"])
    }
    assert units
    enabled = {name for name, text in units.items() if "[Install]" in text}
    assert set(known["_wipe_enabled_units"]) == enabled
    assert set(known["_wipe_static_units"]) == set(units) - enabled
