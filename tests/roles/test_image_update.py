"""What a run for another image does, by what the chain says and what earlier runs noted."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from playbook_kit import PROJECT, ansible_playbook

_SPEC = importlib.util.spec_from_file_location(
    "filters_of_image_update", PROJECT / "roles/image_update/filter_plugins/image_update.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
filters = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)

ROLE = "ab" * 48


def image(name: str, file: str = "") -> dict[str, str]:
    return {"pcr0": name * 48, "pcr3": ROLE, "image": file}


def measured(name: str) -> dict[str, str]:
    return {"pcr0": name * 48, "pcr3": ROLE}


ONE, TWO, THREE = image("11", "/one.eif"), image("22"), image("33")


def updated() -> dict[str, Any]:
    """The note after an update from ONE to TWO."""
    note: dict[str, Any] = filters.image_update_plan(None, ONE, TWO)["note"]
    return note | {"switching": False, "promoted_ms": 5}


class TestAnUpdate:
    def test_goes_from_the_live_image_to_another(self) -> None:
        plan = filters.image_update_plan(None, ONE, TWO)
        assert plan["switch"]
        assert plan["note"] == {
            **TWO,
            "previous": ONE,
            "retired": [measured("11")],
            "switching": False,
            "promoted_ms": 0,
            "rolled_back": False,
        }
        json.dumps(plan)

    def test_that_was_killed_goes_on_where_it_was(self) -> None:
        note = filters.image_update_plan(None, ONE, TWO)["note"] | {"switching": True}
        # The chain has the old one still; which file it had nobody can say any more.
        assert filters.image_update_plan(note, image("11"), TWO) == {"note": note, "switch": True}
        assert filters.image_update_plan(note, TWO, TWO) == {"note": note, "switch": False}

    def test_that_is_done_has_nothing_to_switch(self) -> None:
        assert filters.image_update_plan(updated(), TWO, TWO) == {"note": updated(), "switch": False}

    def test_to_what_has_always_run_does_nothing(self) -> None:
        assert filters.image_update_plan(None, ONE, ONE) == {"note": None, "switch": False}

    def test_within_the_grace_period_of_the_last_retires_both(self) -> None:
        note = filters.image_update_plan(updated(), TWO, THREE)["note"]
        assert (note["previous"], note["retired"]) == (TWO, [measured("11"), measured("22")])

    def test_back_to_an_image_that_was_to_be_retired_keeps_it(self) -> None:
        note = filters.image_update_plan(updated(), TWO, ONE)["note"]
        assert note["retired"] == [measured("22")]

    def test_that_was_begun_and_given_up_retires_what_it_allowed(self) -> None:
        note = filters.image_update_plan(None, ONE, TWO)["note"]
        plan = filters.image_update_plan(note, ONE, ONE)
        assert not plan["switch"]
        assert (plan["note"]["pcr0"], plan["note"]["retired"]) == (ONE["pcr0"], [measured("22")])

    def test_that_failed_leaves_the_old_image_and_nothing_to_take_back(self) -> None:
        note = filters.image_update_withdrawn(filters.image_update_plan(None, ONE, TWO)["note"], 7)
        assert (note["pcr0"], note["image"], note["promoted_ms"]) == (ONE["pcr0"], "/one.eif", 7)
        assert (note["previous"], note["retired"], note["rolled_back"]) == (None, [], True)


class TestARollback:
    def test_goes_to_the_image_of_before_and_retires_the_other(self) -> None:
        plan = filters.image_update_plan_back(updated(), TWO)
        assert plan["switch"]
        assert (plan["note"]["pcr0"], plan["note"]["image"]) == (ONE["pcr0"], "/one.eif")
        assert (plan["note"]["retired"], plan["note"]["rolled_back"]) == ([measured("22")], True)

    def test_that_was_killed_goes_on_and_a_second_changes_nothing(self) -> None:
        note = filters.image_update_plan_back(updated(), TWO)["note"]
        assert filters.image_update_plan_back(note, TWO) == {"note": note, "switch": True}
        assert filters.image_update_plan_back(note, ONE) == {"note": note, "switch": False}

    @pytest.mark.parametrize("note", [None, {"rolled_back": False, "previous": None}])
    def test_wants_an_update_that_can_be_taken_back(self, note: Any) -> None:
        with pytest.raises(AnsibleFilterError, match="Found no update on this host"):
            filters.image_update_plan_back(note, ONE)


class TestTheNote:
    def test_is_read_as_it_was_written(self) -> None:
        assert filters.image_update_note(json.dumps(updated())) == updated()
        assert filters.image_update_note("\n") is None

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "{}",
            json.dumps(updated() | {"promoted_ms": "5"}),
            json.dumps(updated() | {"previous": {"pcr0": "11"}}),
            json.dumps(updated() | {"more": 1}),
        ],
    )
    def test_is_refused_when_it_is_damaged(self, text: str) -> None:
        with pytest.raises(AnsibleFilterError, match=r"image-update\.json damaged"):
            filters.image_update_note(text)


COMMON = {
    "k3s_daas_network": "localnet",
    "k3s_daas_sui_endpoints": ["http://127.0.0.1:1"],
    "k3s_daas_wallet_key_file": "/nonexistent",
    "k3s_daas_registry_name": "fleet",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
}
SIMULATED = COMMON | {"k3s_daas_tee_mode": "simulated", "image_update_simulate": ["true"]}


def hosts(variables: dict[str, Any], **groups: list[str]) -> dict[str, Any]:
    children = {name: {"hosts": dict.fromkeys(names)} for name, names in groups.items()}
    return {"all": {"vars": variables, "children": children}}


class TestWhatIsRefusedBeforeAnybodyIsAsked:
    def update(self, folder: Path, variables: dict[str, Any], record: str, **groups: list[str]) -> str:
        inventory = hosts(variables, **({"k3s_daas_master": ["master"]} | groups))
        code, said = ansible_playbook(folder, "update_image", inventory, image_update_record=record)
        assert code != 0
        return said

    def test_a_simulated_master_without_anything_that_measures_it(self, tmp_path: Path) -> None:
        said = self.update(tmp_path, SIMULATED | {"image_update_simulate": []}, "x")
        assert "and no image_update_simulate; wanted an enclave" in said

    def test_an_image_without_a_record(self, tmp_path: Path) -> None:
        assert "/nonexistent.json, which is no file; wanted image.json" in self.update(
            tmp_path, SIMULATED, "/nonexistent.json"
        )

    def test_a_record_without_the_enclave_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "image.json").write_text(json.dumps({"pcrs": {"PCR0": "11" * 48}}))
        said = self.update(
            tmp_path,
            COMMON | {"k3s_daas_tee_mode": "nitro"},
            str(tmp_path / "image.json"),
            nitro_parents=["parent-1"],
        )
        assert "wanted image.json of an image" in said

    def test_nobody_but_standbys(self, tmp_path: Path) -> None:
        said = self.update(tmp_path, SIMULATED, "x", k3s_daas_standby=["master"])
        assert "wanted one that isn't a standby" in said


@pytest.mark.parametrize(
    ("groups", "confirm", "found"),
    [
        ({"k3s_daas_master": ["b"], "k3s_daas_standby": ["a"]}, "", "confirm=nothing"),
        ({"k3s_daas_master": ["b"], "k3s_daas_standby": ["a"]}, "a", "confirm=a"),
        ({"k3s_daas_master": ["b"]}, "b", "in k3s_daas_standby nobody"),
        ({"k3s_daas_master": ["a"], "k3s_daas_standby": ["a"]}, "a", "in k3s_daas_master a"),
    ],
)
def test_a_takeover_wants_two_hosts_and_a_confirmation(
    tmp_path: Path, groups: dict[str, list[str]], confirm: str, found: str
) -> None:
    given = {"confirm": confirm} if confirm else {}
    code, said = ansible_playbook(tmp_path, "takeover", hosts(SIMULATED, **groups), **given)
    assert code != 0
    assert found in said
    assert "Wanted the host that takes over outside of k3s_daas_standby" in said
