"""The role's side: what the registry's records become, what is printed, and how bad input is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from k3s_daas.scaling.journal import Journal

ROLE = Path(__file__).parents[2] / "roles/scale"
_SPEC = importlib.util.spec_from_file_location("filters_of_scale", ROLE / "filter_plugins/scale.py")
assert _SPEC is not None
assert _SPEC.loader is not None
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)

WALLET, OTHER = "0x" + "a" * 64, "0x" + "b" * 64
NOW = 1_800_000_000_000


def policy(**changes: Any) -> dict[str, Any]:
    """The role's defaults."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    names = ("provisioner", "forget", "journal")
    found = {key.removeprefix("scale_"): value for key, value in defaults.items()}
    return {key: value for key, value in found.items() if key not in names} | {"maximum": 4} | changes


def registry(**loads: int) -> dict[str, Any]:
    workers = {
        name.replace("_", "-"): {"owner": WALLET, "status": "active", "workload": load, "reputation": 100}
        for name, load in loads.items()
    }
    return {"wallet": WALLET, "chain": {"timestamp_ms": NOW}, "workers": workers}


def decide(registry: dict[str, Any], journal: str = "", forget: Any = (), **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = filters.scale_decision(
        policy(**changes),
        registry=registry,
        names=["master", *registry["workers"]],
        pods={"running": 0, "unplaced": 0},
        journal=journal,
        forget=forget,
    )
    return found


def test_a_queue_makes_hosts_and_says_what_comes_next() -> None:
    found = decide(registry(worker_1=9))
    assert found["add"] == ["worker-2"]
    assert found["summary"] == "1 workers serve or are about to; 2 are wanted."
    assert found["next"] == ["playbooks/workers.yml, with worker-2 in the inventory: it stakes for them."]
    assert json.loads(found["before"])["made"] == {"worker-2": {"at_ms": NOW, "joined": False}}
    json.dumps(found)


def test_somebody_elses_workers_are_no_concern_but_their_names_are_taken() -> None:
    found = registry(worker_1=9)
    found["workers"]["worker-2"] = {"owner": OTHER, "status": "active", "workload": 9, "reputation": 1}
    assert decide(found)["add"] == ["worker-3"]


def test_who_is_to_go_is_named_with_the_command() -> None:
    journal = Journal.parse('{"made": {"worker-2": {"at_ms": 1, "joined": true}}}').text()
    found = decide(registry(worker_1=1, worker_2=0), journal)
    assert found["let_go"] == ["worker-2"]
    assert found["next"] == ["playbooks/exit.yml -e node_id=worker-2 -e confirm=worker-2, then this again."]


def test_a_host_that_is_forgotten_is_made_no_more() -> None:
    journal = decide(registry(worker_1=9))["before"]
    assert decide(registry(worker_1=0), journal)["add"] == ["worker-2"]
    assert decide(registry(worker_1=0), journal, forget=["worker-2"])["add"] == []


@pytest.mark.parametrize(
    "journal", ["text", "[]", '{"made": {"Worker 2": {"at_ms": 1}}}', '{"spent": [{"at_ms": 1}]}', '{"x": 1}']
)
def test_a_journal_that_cant_be_read_ends_the_run(journal: str) -> None:
    with pytest.raises(AnsibleFilterError, match="Found a journal of scaling in which"):
        decide(registry(worker_1=9), journal)


def test_a_policy_is_refused_with_every_finding() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        filters.scale_policy(policy(step_up=0, cost="much"))
    for words in ("scale_step_up", "found 0", "scale_cost", "found 'much'", "correct the inventory"):
        assert words in str(caught.value)
    with pytest.raises(AnsibleFilterError, match="found minimum 5 over maximum 4"):
        filters.scale_policy(policy(minimum=5))


def test_the_defaults_are_a_policy() -> None:
    assert filters.scale_policy(policy())["cost"] == "1"
