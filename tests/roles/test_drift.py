"""playbooks/drift.yml without a fleet: its exit codes, what it knows of the roles, what it keeps of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_kit import PROJECT, ansible_playbook

from k3s_daas.chain import Key

#: Looked at in another way: an environment's name is made of its content, and is compared (look.yml).
ELSEWHERE = {("runtime", "install"), ("runtime", "main")}
#: Only there with sealed state, whose own health is in /readyz.
SEALED = {"k3s-daas-master-restore.service", "k3s-daas-master-snapshot.path"}
#: What a role's tasks write files with.
WRITES = {
    f"ansible.builtin.{name}"
    for name in ("copy", "file", "template", "lineinfile", "blockinfile", "get_url", "unarchive", "user")
} | {"k3s_daas_files"}


def inventory(folder: Path, **hosts: dict[str, Any]) -> dict[str, Any]:
    """Hosts with nothing behind their ports, and a chain that nobody serves."""
    key = folder / "operator.key"
    Key.create(key)
    variables = {
        "k3s_daas_network": "localnet",
        "k3s_daas_sui_endpoints": ["http://127.0.0.1:1"],
        "k3s_daas_wallet_key_file": str(key),
        "k3s_daas_registry_name": "nowhere",
        "k3s_daas_tee_mode": "simulated",
        "contracts_registry_open": True,
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
    }
    groups = {name: {"hosts": members} for name, members in hosts.items()}
    return {"all": {"vars": variables, "children": groups}}


def drift(folder: Path, hosts: dict[str, Any], *more: str) -> tuple[int, str, Any]:
    """(exit code, output as one line, the report or None)"""
    report = folder / "report.json"
    code, output = ansible_playbook(folder, "drift", hosts, *more, drift_report=str(report))
    return code, output, json.loads(report.read_text()) if report.exists() else None


def test_where_nobody_answers_it_ends_with_4_and_names_everybody(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, k3s_daas_master={"master": None}, k3s_daas_workers={"worker-1": None})
    code, output, report = drift(tmp_path, hosts)
    assert code == 4, output
    assert "gave no answer" in output
    assert report["exit_code"] == 4
    assert {one["who"] for one in report["not_asked"]} == {"chain", "master", "worker-1"}
    assert report["differences"] == []


def test_an_inventory_that_names_no_master_is_no_agreement_and_no_difference(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"exit_code": 0}')
    code, output, report = drift(tmp_path, inventory(tmp_path, k3s_daas_workers={"worker-1": None}))
    assert code == 4, output
    assert "Nothing could be compared" in output
    # Not what an earlier run left there.
    assert report["exit_code"] == 4


@pytest.mark.parametrize("limit", ["worker-1", "master,localhost"])
def test_a_part_of_the_fleet_is_not_compared(tmp_path: Path, limit: str) -> None:
    hosts = inventory(tmp_path, k3s_daas_master={"master": None}, k3s_daas_workers={"worker-1": None})
    code, output, report = drift(tmp_path, hosts, f"--limit={limit}")
    assert code == 4, output
    assert "Run this without --limit" in output
    assert report is None


def tasks_of(path: Path) -> Iterator[dict[str, Any]]:
    """All tasks of a file, those of blocks too."""
    todo = yaml.safe_load(path.read_text()) or []
    while todo:
        task = todo.pop()
        todo += [one for key in ("block", "rescue", "always") for one in task.get(key, [])]
        yield task


def included(role: str, file: str) -> set[str]:
    """The task files of a role that `file` leads to, itself among them."""
    found = {file}
    for task in tasks_of(PROJECT / "roles" / role / "tasks" / f"{file}.yml"):
        name = task.get("ansible.builtin.include_tasks") or task.get("ansible.builtin.import_tasks")
        if isinstance(name, str):
            found |= included(role, name.removesuffix(".yml"))
    return found


def looked_at() -> dict[str, set[str]]:
    """By role, the task files that drift runs in check mode."""
    plays = yaml.safe_load((PROJECT / "playbooks/drift.yml").read_text())
    found: dict[str, set[str]] = {}
    for play in plays:
        for task in play["tasks"]:
            for role in task.get("vars", {}).get("drift_roles", []):
                found.setdefault(role["name"], set()).update(included(role["name"], role["tasks"]))
    return found


def test_it_looks_at_every_file_that_site_writes() -> None:
    """Of each role, every task file that main.yml leads to and that writes something."""
    looked = looked_at()
    assert set(looked) == {"k3s_server", "runtime", "master", "watcher", "k3s_agent"}
    for role, files in looked.items():
        for file in included(role, "main"):
            writes = [
                task["name"]
                for task in tasks_of(PROJECT / "roles" / role / "tasks" / f"{file}.yml")
                if WRITES & set(task)
            ]
            assert file in files or writes == [] or (role, file) in ELSEWHERE, (role, file, writes)


def test_what_it_looks_at_does_nothing_in_check_mode() -> None:
    """Nothing of it runs for real in spite of check mode."""
    for role, files in looked_at().items():
        for file in files:
            for task in tasks_of(PROJECT / "roles" / role / "tasks" / f"{file}.yml"):
                assert task.get("check_mode") is not False, (role, file, task["name"])


def test_every_unit_that_a_role_keeps_up_is_looked_at() -> None:
    plays = yaml.safe_load((PROJECT / "playbooks/drift.yml").read_text())
    asked = {
        unit
        for play in plays
        for task in play["tasks"]
        for unit in task.get("vars", {}).get("drift_units", [])
    }
    texts = {
        path.name.removesuffix(".j2"): path.read_text()
        for role in looked_at()
        for path in (PROJECT / "roles" / role / "templates").glob("*.j2")
    }
    enabled = {unit for unit, text in texts.items() if "[Install]" in text}
    upheld = re.findall(r"^Upholds=(.+)$", "\n".join(texts.values()), re.MULTILINE)
    assert upheld, "wanted the watcher to uphold its path units"
    assert asked == (enabled | set(" ".join(upheld).split())) - SEALED


PLAYS = """
- name: Gather
  hosts: all
  gather_facts: false
  check_mode: true
  vars: {drift_gathers: true}
  tasks:
    - name: Write a file
      ansible.builtin.copy: {content: "{{ canary }}", dest: FOLDER/a, mode: "0600"}
      notify: Act
      vars: {canary: canary-of-a-secret}
    - name: Make directories
      ansible.builtin.file: {path: "FOLDER/{{ item }}", state: directory, mode: "0755"}
      loop: [there, b, c]
    - name: Write elsewhere
      ansible.builtin.copy: {content: x, dest: FOLDER/elsewhere, mode: "0600"}
      delegate_to: localhost
    - name: Look
      ansible.builtin.command: {argv: ["true"]}
      changed_when: false
      check_mode: false
  handlers:
    - name: Act
      ansible.builtin.command: {argv: ["false"]}
- name: Something else
  hosts: all
  gather_facts: false
  check_mode: true
  tasks:
    - name: Write another
      ansible.builtin.copy: {content: x, dest: FOLDER/z, mode: "0600"}
- name: Show
  hosts: localhost
  gather_facts: false
  vars: {drift_changes: []}
  tasks:
    - name: Keep it
      ansible.builtin.copy: {content: "{{ drift_changes | to_json }}", dest: FOLDER/kept.json, mode: "0600"}
"""


def test_what_would_change_is_kept_for_the_play_that_asks(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    # Ansible takes it from where the playbook is.
    (tmp_path / "callback_plugins").symlink_to(PROJECT / "playbooks/callback_plugins")
    plays = yaml.safe_load(PLAYS.replace("FOLDER", str(tmp_path)))
    hosts = {"all": {"hosts": {"one": None, "two": None}, "vars": {"ansible_connection": "local"}}}
    code, output = ansible_playbook(tmp_path, plays, hosts)
    assert code == 0, output
    kept = json.loads((tmp_path / "kept.json").read_text())
    wanted = [(host, f"{tmp_path}/{name}") for host in ("one", "two") for name in "abc"]
    assert sorted((one["host"], one["what"]) for one in kept) == wanted
    assert "canary" not in json.dumps(kept)
    assert {one["task"] for one in kept} == {"Write a file", "Make directories"}
