"""What restore.yml, reset.yml and abandon_snapshots.yml want to be told before any host or chain is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from playbook_kit import ansible_playbook

INVENTORY = {
    "all": {"vars": {"k3s_daas_registry_name": "my-fleet"}},
    "k3s_daas_master": {"hosts": {"the-master": None}},
    "k3s_daas_workers": {"hosts": {"a-worker": None}},
}
SURE = {"confirm": "my-fleet"}


def run(playbook: str, folder: Path, given: dict[str, str]) -> str:
    """The output as one line of a run that is refused."""
    code, output = ansible_playbook(folder, playbook, INVENTORY, **given)
    assert code != 0, output
    assert "PLAY [Find the contracts]" not in output
    assert "PLAY [Ask the chain" not in output
    return output


@pytest.mark.parametrize("playbook", ["restore", "reset", "abandon_snapshots"])
@pytest.mark.parametrize(("given", "found"), [({}, "nothing"), ({"confirm": "my-flee"}, "my-flee")])
def test_it_wants_the_registrys_name(
    tmp_path: Path, playbook: str, given: dict[str, str], found: str
) -> None:
    output = run(playbook, tmp_path, given)
    assert f"Found confirm={found}, wanted the registry's name" in output
    assert "-e confirm=my-fleet" in output


def test_a_reset_names_the_hosts(tmp_path: Path) -> None:
    assert "data and backups on the-master, a-worker, and can't be undone" in run("reset", tmp_path, {})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"backup_name": "20261121T160501Z", "backup_file": "a.age", "backup_key_file": "k"},
        {"backup_file": "a.age"},
    ],
    ids=["none", "two", "without its key"],
)
def test_a_restore_wants_one_backup(tmp_path: Path, given: dict[str, str]) -> None:
    output = run("restore", tmp_path, SURE | given)
    assert f"Found backup_name={given.get('backup_name', 'nothing')}" in output
    assert "wanted backup_name, of a backup on the master, or backup_file and backup_key_file" in output
