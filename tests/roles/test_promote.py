"""What playbooks/promote.yml wants before it touches anything, and what the role release keeps."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_kit import PROJECT, ansible_playbook

RELEASE = "0123456789abcdef-v1.34.2+k3s1"
# Nothing listens there.
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1}
FLEET = {
    "all": {"vars": {"k3s_daas_registry_name": "production", "k3s_daas_tee_mode": "simulated"}},
    "k3s_daas_master": {"hosts": {"master": NOWHERE}},
    "k3s_daas_workers": {"hosts": {"worker-1": NOWHERE}},
}
#: A host's own, which no release brings or takes.
OWN = {"/etc/k3s-daas/heartbeat.key", "/etc/rancher/k3s/agent-token", "/var/lib/k3s-daas-master/sui.key"}


def test_an_enclave_has_no_way_back(tmp_path: Path) -> None:
    code, output = ansible_playbook(tmp_path, "promote", FLEET, k3s_daas_tee_mode="nitro")
    assert code != 0
    assert "Found k3s_daas_tee_mode nitro" in output
    assert "Nothing was touched" in output
    assert "PLAY [Look at every host]" not in output


@pytest.mark.parametrize("playbook", ["promote", "rollback"])
def test_a_host_that_is_out_of_reach_ends_it(tmp_path: Path, playbook: str) -> None:
    code, output = ansible_playbook(tmp_path, playbook, FLEET)
    assert code != 0
    assert "UNREACHABLE" in output
    assert "PLAY [Plan the promotion" not in output
    assert "PLAY [Publish the contracts" not in output
    assert "PLAY [Go back" not in output


def test_health_names_who_can_not_be_asked_and_does_not_end_well(tmp_path: Path) -> None:
    code, output = ansible_playbook(tmp_path, "health", FLEET)
    assert code == 2
    for host in ("master", "worker-1"):
        assert f"{host}: reachable: no ssh to this host" in output
    assert "Wanted every host well within 120 s" in output


def look(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "deployed": True,
        "release": None,
        "k3s_version": "v1.34.2+k3s1",
        "k3s_unfinished": False,
        "under_way": None,
        "way_back": None,
        "wanted": RELEASE,
        "wanted_k3s": "v1.34.2+k3s1",
    }
    return usual | changes


def on_localhost(
    folder: Path, tasks: str, looked: dict[str, Any], missing: bool = False, **variables: Any
) -> tuple[int, str]:
    """One of the role's task files for localhost, after the hosts were seen so; `missing`: not worker-1."""
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"set_fact": {"release_here": {"content": RELEASE[:16], "ref": ""}}},
                {"include_role": {"name": "release", "tasks_from": tasks}},
            ],
        }
    ]
    hosts = {name: {"release_look": looked} for name in ("master", "worker-1")}
    inventory = FLEET | {
        "k3s_daas_master": {"hosts": {"master": hosts["master"]}},
        "k3s_daas_workers": {"hosts": {"worker-1": None if missing else hosts["worker-1"]}},
    }
    return ansible_playbook(folder, play, inventory, **{"release_records_dir": str(folder)} | variables)


@pytest.mark.parametrize("tasks", ["plan", "back_plan"])
def test_a_fleet_is_promoted_as_a_whole(tmp_path: Path, tasks: str) -> None:
    code, output = on_localhost(tmp_path, tasks, look(), missing=True)
    assert code != 0
    assert "Found no answer of worker-1; wanted every host's" in output
    assert "Nothing was touched" in output


def test_a_host_that_could_not_be_prepared_ends_it(tmp_path: Path) -> None:
    code, output = on_localhost(tmp_path, "begun", look())
    assert code != 0
    assert "Found master, worker-1 not ready for the release" in output


class TestElsewhere:
    """A release comes to production only when it is healthy on stage."""

    def plan(self, folder: Path, **variables: Any) -> tuple[int, str]:
        return on_localhost(folder, "plan", look(), release_after="stage", **variables)

    def test_what_nobody_saw_healthy_is_refused(self, tmp_path: Path) -> None:
        code, output = self.plan(tmp_path)
        assert code != 0
        assert f"Found no release healthy on stage; wanted {RELEASE}" in output
        assert "Promote it there first" in output
        assert f"{tmp_path}/stage.json" in output

    def test_another_release_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "stage.json").write_text('{"release": "another", "ref": ""}')
        code, output = self.plan(tmp_path)
        assert code != 0
        assert "Found another healthy on stage" in output

    def test_what_is_recorded_here_is_let_through(self, tmp_path: Path) -> None:
        (tmp_path / "stage.json").write_text(json.dumps({"release": RELEASE, "ref": ""}))
        code, output = self.plan(tmp_path)
        assert code == 0, output
        assert f"master: an unrecorded release -> {RELEASE}" in output

    def test_what_a_controller_says_counts_more(self, tmp_path: Path) -> None:
        (tmp_path / "stage.json").write_text('{"release": "another", "ref": ""}')
        code, output = self.plan(tmp_path, release_healthy={"stage": RELEASE})
        assert code == 0, output
        code, output = self.plan(tmp_path, release_healthy={"stage": "yet another"})
        assert "Found yet another healthy on stage" in output

    def test_a_fleet_that_waits_for_none_takes_any(self, tmp_path: Path) -> None:
        code, output = on_localhost(tmp_path, "plan", look())
        assert code == 0, output


class TestWayBack:
    WAY: dict[str, Any] = {  # noqa: RUF012
        "fresh": False,
        "release": None,
        "k3s_version": "v1.33.0+k3s1",
        "replaces_k3s": True,
        "backup": "/backups/1",
        "refusals": [],
    }

    def test_what_is_in_the_way_is_said_after_what_went_wrong(self, tmp_path: Path) -> None:
        looked = look(way_back=self.WAY | {"refusals": ["Found a; wanted b."]})
        because = ["master: it never came up."]
        code, output = on_localhost(tmp_path, "back_plan", looked, way_back_because=because)
        assert code != 0
        assert "master: it never came up. master: Found a; wanted b." in output
        assert "No host went back." in output

    def test_by_hand_a_datastore_wants_a_confirmation(self, tmp_path: Path) -> None:
        looked = look(way_back=self.WAY)
        code, output = on_localhost(tmp_path, "back_plan", looked, confirm="stage")
        assert code != 0
        assert "k3s goes back to v1.33.0+k3s1, and its datastore to the backup /backups/1" in output
        assert "Found confirm=stage" in output
        assert on_localhost(tmp_path, "back_plan", looked, confirm="production")[0] == 0
        # Nobody has used a release that is on trial.
        assert on_localhost(tmp_path, "back_plan", looked, way_back_because=["x"])[0] == 0
        assert on_localhost(tmp_path, "back_plan", look(way_back=self.WAY | {"backup": ""}))[0] == 0


def test_all_that_the_roles_write_is_kept() -> None:
    kept = yaml.safe_load((PROJECT / "roles/release/vars/main.yml").read_text())["_release_paths"]
    written = re.compile(
        r"""(?:path|dest|creates)'?: ['"]?(/(?:etc|var|opt)/[^\s'",}]+\.[a-z]+|/etc/[^\s'",}]+)"""
    )
    roles = ("k3s_server", "k3s_agent", "k3s_binary", "master", "watcher", "runtime", "release")
    found = set()
    for role in roles:
        for path in (*PROJECT.glob(f"roles/{role}/tasks/*.yml"), *PROJECT.glob(f"roles/{role}/vars/*.yml")):
            found |= set(written.findall(path.read_text()))
    directories = {"/etc/k3s-daas", "/etc/k3s-daas/kubernetes", "/etc/k3s-daas/tls"}
    directories |= {"/etc/rancher/k3s", "/etc/rancher/node"}
    # Only read: where the master's certificate comes from.
    found -= directories | {"/var/lib/rancher/k3s/server/tls/server-ca.crt"}
    assert {"/etc/k3s-daas/watcher.json", "/etc/systemd/system/k3s.service"} < found
    assert {path for path in found if not any(fnmatch.fnmatch(path, one) for one in kept)} == OWN


def test_nothing_secret_of_a_host_is_kept() -> None:
    kept = yaml.safe_load((PROJECT / "roles/release/vars/main.yml").read_text())["_release_paths"]
    secret = {"/etc/k3s-daas/seal-token", "/etc/k3s-daas/sealing.key", "/etc/rancher/node/password"}
    secret |= {"/etc/rancher/k3s/encryption.json", "/etc/rancher/k3s/join-token", *OWN}
    for path in secret:
        assert [one for one in kept if fnmatch.fnmatch(path, one)] == []
