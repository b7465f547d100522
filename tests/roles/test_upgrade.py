"""What playbooks/upgrade.yml asks for before any host is asked, and which k3s the role k3s_binary lets in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_kit import PROJECT, ansible_playbook

INVENTORY = {
    "k3s_daas_master": {"hosts": {"master": None}},
    "k3s_daas_workers": {"hosts": {"worker-1": None, "worker-2": None}},
}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("worker-9", "Found worker-9 in upgrade_workers"),
        ("worker-1,master", "Found master in upgrade_workers"),
        # A pattern is a name like any other.
        ("all", "Found all in upgrade_workers"),
    ],
)
def test_it_takes_workers_of_the_inventory(tmp_path: Path, given: str, found: str) -> None:
    code, output = ansible_playbook(tmp_path, "upgrade", INVENTORY, upgrade_workers=given)
    assert code != 0
    assert found in output
    assert "wanted names of k3s_daas_workers (which are worker-1, worker-2)" in output
    assert "Look at every host" not in output


def test_a_host_that_is_out_of_reach_ends_it(tmp_path: Path) -> None:
    # Nothing listens there.
    unreachable = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory = {
        group: {"hosts": dict.fromkeys(hosts["hosts"], unreachable)} for group, hosts in INVENTORY.items()
    }
    code, output = ansible_playbook(tmp_path, "upgrade", inventory)
    assert code != 0
    for name in ("master", "worker-1", "worker-2"):
        assert f"{name} is out of reach (Task failed: Failed to connect to the host via ssh" in output
    assert "-e upgrade_workers=NAME,NAME has those to upgrade." in output
    assert "Nothing was changed." in output
    assert "Bring the new k3s" not in output


class TestWanted:
    """What the role k3s_binary says is wanted, for a file on the control node."""

    PLAY: list[dict[str, Any]] = [  # noqa: RUF012
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"set_fact": {"ansible_facts": {"service_mgr": "systemd", "architecture": "x86_64"}}},
                {"include_role": {"name": "k3s_binary", "tasks_from": "wanted"}},
                {"debug": {"msg": "{{ k3s_binary_wanted | to_json }}"}},
            ],
        }
    ]

    def wanted(self, folder: Path, script: str, **given: str) -> tuple[int, str]:
        binary = folder / "k3s of mine"
        binary.write_text(script)
        binary.chmod(0o755)
        return ansible_playbook(folder, self.PLAY, {}, k3s_binary_path=str(binary), **given)

    def test_the_file_says_its_version(self, tmp_path: Path) -> None:
        script = (
            '#!/bin/sh\necho "$(basename "$0") version v1.34.2+k3s1 (0123abcd)"; echo go version go1.26.8\n'
        )
        code, output = self.wanted(tmp_path, script)
        assert code == 0, output
        assert "v1.34.2+k3s1" in output
        assert hashlib.sha256(script.encode()).hexdigest() in output

    def test_of_a_file_that_does_not_run_here_the_inventory_says_it(self, tmp_path: Path) -> None:
        code, output = self.wanted(tmp_path, "#!/bin/sh\nexit 1\n", k3s_binary_version="v1.34.9+k3s1")
        assert code == 0, output
        assert "v1.34.9+k3s1" in output


def test_what_the_role_leaves_is_known_to_those_who_look_for_it() -> None:
    role = PROJECT / "roles/k3s_upgrade"
    mine = yaml.safe_load((role / "vars/main.yml").read_text())
    look = (role / "files/look.py").read_text()
    assert f'CORDONED = "{mine["_k3s_upgrade_annotation"]}"' in look
    assert list(mine["_k3s_upgrade_cordon"]["metadata"]["annotations"]) == [mine["_k3s_upgrade_annotation"]]
    assert list(mine["_k3s_upgrade_uncordon"]["metadata"]["annotations"]) == [mine["_k3s_upgrade_annotation"]]
    wiped = yaml.safe_load((PROJECT / "roles/wipe/vars/main.yml").read_text())["_wipe_paths"]
    assert [
        path for path in mine["_k3s_upgrade_files"] if not {path, *map(str, Path(path).parents)} & {*wiped}
    ] == []
