"""Simulation can never pass as production: what the inventory's checks and the playbooks refuse.

What no configuration and no build may undo is in tests/attestation/test_simulation_rules.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
Play = Callable[..., Any]
CHECKS = {
    "gather_facts": False,
    "connection": "local",
    "tasks": [{"ansible.builtin.include_role": {"name": "contracts", "tasks_from": "preflight"}}],
}
ACCEPTED = {"k3s_daas_tee_mode": "simulated", "k3s_daas_accept_simulated": True}


def test_where_a_simulated_tee_passes(play: Play) -> None:
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
    groups = {"cases": cases, "k3s_daas_master": {"master": None}, "k3s_daas_workers": {"worker-1": None}}
    ran = play(CHECKS | {"hosts": "cases"}, groups)
    assert set(ran.refused) == {name for name in cases if name.startswith("no-")}, ran.output
    for name, words in ran.refused.items():
        assert f"Found k3s_daas_tee_mode {cases[name]['k3s_daas_tee_mode']} on" in words
        assert "on mainnet nothing lets it pass" in words


@pytest.mark.parametrize(("mode", "parents", "passes"), [
    ("nitro", ["parent"], True), ("nitro", [], False), ("simulated", ["parent"], False)
])  # fmt: skip
def test_an_enclave_has_a_parent_and_a_simulation_none(
    play: Play, mode: str, parents: list[str], passes: bool
) -> None:
    groups = {
        "k3s_daas_master": {"master": {"k3s_daas_network": "localnet", "k3s_daas_tee_mode": mode}},
        "nitro_parents": dict.fromkeys(parents),
    }
    ran = play(CHECKS | {"hosts": "k3s_daas_master"}, groups)
    assert (ran.code == 0) is passes, ran.output
    if not passes:
        assert f"Found k3s_daas_tee_mode {mode} and in the group nitro_parents" in ran.refused["master"]


def test_with_an_enclave_nothing_is_set_up_on_the_masters_host(play: Play) -> None:
    """Neither is it asked: in the inventory it stands for the enclave, or is its parent."""
    variables = {"k3s_daas_network": "localnet", "k3s_daas_tee_mode": "nitro", "nitro_parent_pcr0": "ab" * 48}
    groups = {"k3s_daas_master": {"master": variables}, "nitro_parents": {"parent": variables}}
    # Check mode: the chain is not waited for.
    given = {"contracts_deployment": {"registry_id": ""}, "k3s_daas_tee_mode": "nitro"}
    ran = play(PROJECT / "playbooks/master.yml", groups, "--check", "-e", json.dumps(given))
    assert ran.code == 0, ran.output
    assert "UNREACHABLE" not in ran.output
    assert "k3s_server" not in ran.output
    given["k3s_daas_tee_mode"] = "simulated"
    ran = play(PROJECT / "playbooks/master.yml", groups, "--check", "-e", json.dumps(given))
    assert (ran.code != 0, "UNREACHABLE" in ran.output) == (True, True), "the test would see it"


def test_every_play_of_site_leaves_an_enclave_alone() -> None:
    """Each of its plays for the master's host ends for an enclave before anything is done there."""
    found = 0
    for name in ("site", "master", "workers"):
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


@pytest.mark.parametrize("inventory", sorted((PROJECT / "inventories").iterdir()), ids=lambda path: path.name)
def test_an_inventory_says_what_it_is(inventory: Path) -> None:
    """The mode stands in every inventory, and simulated only where the network is a localnet or testnet."""
    files = [path for path in inventory.rglob("*") if path.suffix in (".yml", ".yaml") or path.name == "all"]
    said: dict[str, list[str]] = {}
    for path in files:
        if path.is_file():
            for key, value in re.findall(
                r"^ *(k3s_daas_(?:tee_mode|network)): *(\S+)", path.read_text(), re.M
            ):
                said.setdefault(key, []).append(value)
    assert said.get("k3s_daas_tee_mode"), f"{inventory} leaves k3s_daas_tee_mode out; there is no default"
    if "simulated" in said["k3s_daas_tee_mode"]:
        assert set(said["k3s_daas_network"]) <= {"localnet", "testnet"}


def test_no_role_brings_the_emulator_to_a_host() -> None:
    for path in (PROJECT / "roles").rglob("*"):
        if path.is_file() and path.suffix in (".yml", ".j2", ".service", ".path", ".timer"):
            assert "k3s_daas_localnet" not in re.sub(r"#.*", "", path.read_text()), path
