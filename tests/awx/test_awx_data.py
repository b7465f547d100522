"""What awx/ says, held against the playbooks."""

from __future__ import annotations

import re

import pytest
from awx_kit import APPROVED, FLEETS, LEFT_OUT, SETTINGS, TEMPLATES
from controller import want_survey
from reach import PLAYBOOKS, PROJECT, Reach, signers


@pytest.fixture(scope="module")
def reached() -> dict[str, Reach]:
    return {name: Reach(name) for name in TEMPLATES}


def test_each_playbook_has_a_template_or_a_reason() -> None:
    """A new playbook is told of in awx/templates.yml."""
    playbooks = {path.stem for path in PLAYBOOKS.glob("*.yml")}
    assert playbooks - set(TEMPLATES) - set(LEFT_OUT) == set()
    assert (set(TEMPLATES) | set(LEFT_OUT)) - playbooks == set()
    assert set(TEMPLATES) & set(LEFT_OUT) == set()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_survey_s_variables_are_the_playbook_s(name: str, reached: dict[str, Reach]) -> None:
    asked = [question["variable"] for question in TEMPLATES[name].get("survey", [])]
    assert [variable for variable in asked if not re.search(rf"\b{variable}\b", reached[name].text)] == []


@pytest.mark.parametrize("name", [name for name in TEMPLATES if "survey" in TEMPLATES[name]])
def test_awx_takes_the_survey(name: str) -> None:
    want_survey({"name": "", "description": "", "spec": TEMPLATES[name]["survey"]})


def test_what_sends_transactions_waits_for_a_yes(reached: dict[str, Reach]) -> None:
    sends = {name for name, reach in reached.items() if reach.modules & signers()}
    assert {"site", "slash", "exit", "upgrade_contracts", "rotate", "master", "workers"} <= sends
    assert sends - set(APPROVED) == set()


def test_what_sends_transactions_has_the_wallet(reached: dict[str, Reach]) -> None:
    sends = {name for name, reach in reached.items() if reach.modules & signers()}
    assert [name for name in sends if "wallet" not in TEMPLATES[name].get("signs_with", [])] == []


@pytest.mark.parametrize("key", ["slasher", "arbiter"])
def test_only_what_uses_such_a_key_has_it(key: str) -> None:
    having = [name for name, template in TEMPLATES.items() if key in template.get("signs_with", [])]
    assert having == [{"slasher": "slash", "arbiter": "cancel_slash"}[key]]


def test_verifying_is_a_template_too() -> None:
    assert {TEMPLATES[name]["verify"] for name in APPROVED} <= set(TEMPLATES)


def test_what_is_scheduled_is_a_template_or_waits_for_a_yes() -> None:
    what = {name: one["what"] for name, one in SETTINGS["awx_schedules"].items()}
    assert what == {"drift": "drift", "rotate": "rotate, approved"}
    assert {"drift", "rotate"} <= set(TEMPLATES)
    assert {name for fleet in FLEETS.values() for name in fleet["schedules"]} <= set(what)


def test_the_inventories_are_there() -> None:
    assert [name for name, fleet in FLEETS.items() if not (PROJECT / fleet["inventory"]).is_dir()] == []


def test_the_chain_s_variables_are_the_plugin_s() -> None:
    plugin = (PROJECT / "inventory_plugins/sui_workers.py").read_text()
    env = {name for one in SETTINGS["awx_own_credential_types"] for name in one["injectors"].get("env", {})}
    env |= {name for fleet in FLEETS.values() for name in fleet["chain"]}
    assert {"SUI_WORKERS_KEY_FILE", "SUI_WORKERS_NETWORK", "SUI_WORKERS_NAME"} <= env
    assert [name for name in env if f"- name: {name}\n" not in plugin] == []


@pytest.mark.parametrize("kind", SETTINGS["awx_own_credential_types"], ids=lambda kind: kind["name"])
def test_of_a_key_only_its_file_s_path_is_told(kind: dict) -> None:
    """What AWX puts into extra vars and environment shows in its jobs; the file doesn't."""
    secret = {field["id"] for field in kind["inputs"]["fields"] if field["secret"]}
    told = {**kind["injectors"].get("extra_vars", {}), **kind["injectors"].get("env", {})}
    assert secret == {"key"}
    assert kind["injectors"]["file"] == {"template": "{{ key }}"}
    assert set(told.values()) == {"{{ tower.filename }}"}
