"""The inventory is checked before any host or chain is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from playbook_kit import ansible_playbook

PLAY = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.include_role": {"name": "contracts", "tasks_from": "preflight"}},
        ],
    }
]


def preflight(folder: Path, masters: list[str], workers: list[str]) -> tuple[int, str]:
    """(exit code, output as one line) of the checks over an inventory of these host names."""
    groups = {"k3s_daas_master": masters, "k3s_daas_workers": workers}
    inventory = {
        "all": {
            "vars": {"k3s_daas_network": "localnet", "k3s_daas_tee_mode": "simulated"},
            "children": {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items()},
        }
    }
    return ansible_playbook(folder, PLAY, inventory)


@pytest.mark.parametrize("name", ["a" * 253, "wörker", "ansible_host"])
def test_a_host_name_that_is_no_node_id_is_named(tmp_path: Path, name: str) -> None:
    code, output = preflight(tmp_path, ["master"], ["worker-1", name])
    assert code != 0
    for words in (f"k3s_daas_workers worker-1, {name}", "wanted one master", "RFC 1123", "Rename the hosts"):
        assert words in output


@pytest.mark.parametrize("masters", [[], ["master-1", "master-2"]])
def test_there_is_one_master(tmp_path: Path, masters: list[str]) -> None:
    code, output = preflight(tmp_path, masters, ["worker-1"])
    assert code != 0
    assert f"Found {len(masters)} hosts in the group k3s_daas_master" in output


def test_a_good_inventory_passes(tmp_path: Path) -> None:
    code, output = preflight(tmp_path, ["Master_1"], ["a", "a" * 63, "worker-1"])
    assert code == 0, output
