"""Simulation can never pass as production: what the inventory's checks and the playbooks refuse.

What no configuration and no build may undo is in tests/attestation/test_simulation_rules.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from playbook_kit import PROJECT, ansible_playbook, failures

COMMON = {
    "k3s_daas_sui_endpoints": ["https://127.0.0.1:1"],
    "k3s_daas_wallet_key_file": "/nonexistent",
    "k3s_daas_registry_name": "fleet",
    "contracts_slasher_address": "0xa",
    "contracts_arbiter_address": "0xb",
    # Nobody is asked; one that is reached all the same would refuse.
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
}
CHECKS = {
    "gather_facts": False,
    "connection": "local",
    "tasks": [{"ansible.builtin.include_role": {"name": "contracts", "tasks_from": "preflight"}}],
}
ACCEPTED = {"k3s_daas_tee_mode": "simulated", "k3s_daas_accept_simulated": True}


def inventory(**groups: dict[str, Any]) -> dict[str, Any]:
    """Of {group: {host: its variables}}."""
    return {"all": {"vars": COMMON, "children": {name: {"hosts": hosts} for name, hosts in groups.items()}}}


def test_where_a_simulated_tee_passes(tmp_path: Path) -> None:
    """Each host is a case: its name says what is to come of it."""
    cases = {
        "ok-localnet": {"k3s_daas_network": "localnet", "k3s_daas_tee_mode": "simulated"},
        "ok-testnet": ACCEPTED | {"k3s_daas_network": "testnet"},
        "no-testnet-not-accepted": {"k3s_daas_network": "testnet", "k3s_daas_tee_mode": "simulated"},
        "no-testnet-attested-registry": ACCEPTED
        | {"k3s_daas_network": "testnet", "contracts_registry_require_attestation": True},
        "no-mainnet": ACCEPTED | {"k3s_daas_network": "mainnet"},
        "no-mainnet-open-registry": ACCEPTED
        | {"k3s_daas_network": "mainnet", "contracts_registry_require_attestation": False},
        "no-other-network": ACCEPTED | {"k3s_daas_network": "devnet"},
        "no-other-mode": {"k3s_daas_network": "mainnet", "k3s_daas_tee_mode": "none"},
    }
    hosts = inventory(cases=cases, k3s_daas_master={"master": None}, k3s_daas_workers={"worker-1": None})
    _, said = ansible_playbook(tmp_path, [CHECKS | {"hosts": "cases"}], hosts)
    refused = failures(said)
    assert set(refused) == {name for name in cases if name.startswith("no-")}, said
    for name, words in refused.items():
        assert f"Found k3s_daas_tee_mode {cases[name]['k3s_daas_tee_mode']} on" in words
        assert "on mainnet nothing lets it pass" in words


@pytest.mark.parametrize(("mode", "parents", "passes"), [
    ("nitro", ["parent"], True), ("nitro", [], False), ("simulated", ["parent"], False)
])  # fmt: skip
def test_an_enclave_has_a_parent_and_a_simulation_none(
    tmp_path: Path, mode: str, parents: list[str], passes: bool
) -> None:
    master = {"master": {"k3s_daas_network": "localnet", "k3s_daas_tee_mode": mode}}
    hosts = inventory(k3s_daas_master=master, nitro_parents=dict.fromkeys(parents))
    code, said = ansible_playbook(tmp_path, [CHECKS | {"hosts": "k3s_daas_master"}], hosts)
    assert (code == 0) is passes, said
    if not passes:
        assert f"Found k3s_daas_tee_mode {mode} and in the group nitro_parents" in failures(said)["master"]


def test_with_an_enclave_nothing_is_set_up_on_the_masters_host(tmp_path: Path) -> None:
    """Neither is it asked: in the inventory it stands for the enclave, or is its parent."""
    variables = {"k3s_daas_network": "localnet", "nitro_parent_pcr0": "ab" * 48}
    hosts = inventory(k3s_daas_master={"master": variables}, nitro_parents={"parent": variables})
    given: dict[str, Any] = {"contracts_deployment": {"registry_id": ""}}
    # Check mode: the chain is not waited for.
    code, said = ansible_playbook(tmp_path, "master", hosts, "--check", k3s_daas_tee_mode="nitro", **given)
    assert code == 0, said
    assert "UNREACHABLE" not in said
    assert "k3s_server" not in said
    code, said = ansible_playbook(
        tmp_path, "master", hosts, "--check", k3s_daas_tee_mode="simulated", **given
    )
    assert (code != 0, "UNREACHABLE" in said) == (True, True), "the test would see it"


def test_every_play_of_site_leaves_an_enclave_alone() -> None:
    """Each of its plays for the master's host ends for an enclave before anything is done there."""
    found = 0
    for name in ("site", "environment", "master", "workers"):
        for one in yaml.safe_load((PROJECT / f"playbooks/{name}.yml").read_text()):
            if "k3s_daas_master" not in one.get("hosts", ""):
                continue
            found += 1
            assert one["gather_facts"] is False
            tasks = [*one.get("pre_tasks", []), *one.get("tasks", [])]
            ends = next(i for i, task in enumerate(tasks) if task.get("ansible.builtin.meta") == "end_host")
            assert "k3s_daas_tee_mode == 'nitro'" in tasks[ends]["when"]
            for task in tasks[:ends]:
                assert task["ansible.builtin.include_role"]["apply"]["delegate_to"] == "localhost"
    assert found == 3


@pytest.mark.parametrize("path", sorted((PROJECT / "inventories").iterdir()), ids=lambda path: path.name)
def test_an_inventory_says_what_it_is(path: Path) -> None:
    """The mode stands in every inventory, and simulated only where the network is a localnet or testnet."""
    said: dict[str, list[str]] = {}
    for file in path.rglob("*.yml"):
        for key, value in re.findall(r"^ *(k3s_daas_(?:tee_mode|network)): *(\S+)", file.read_text(), re.M):
            said.setdefault(key, []).append(value)
    assert said.get("k3s_daas_tee_mode"), f"{path} leaves k3s_daas_tee_mode out; there is no default"
    if "simulated" in said["k3s_daas_tee_mode"]:
        assert set(said["k3s_daas_network"]) <= {"localnet", "testnet"}


def test_no_role_brings_the_emulator_to_a_host() -> None:
    for path in (PROJECT / "roles").rglob("*"):
        if path.is_file() and path.suffix in (".yml", ".j2", ".service", ".path", ".timer"):
            assert "k3s_daas_localnet" not in re.sub(r"#.*", "", path.read_text()), path
