"""What playbooks/rotate.yml asks for before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from playbook_kit import ansible_playbook

INVENTORY = {
    "k3s_daas_master": {"hosts": {"master": None}},
    "k3s_daas_workers": {"hosts": {"worker-1": None, "worker-2": None}},
}


def rotate(folder: Path, **given: str) -> tuple[int, str]:
    """(exit code, output as one line) of playbooks/rotate.yml; no host or chain is there to be asked."""
    return ansible_playbook(folder, "rotate", INVENTORY, **given)


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
