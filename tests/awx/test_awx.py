"""playbooks/awx.yml against a double of the controller: what it makes, does a second time, and tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from awx_kit import FLEETS, MADE, TOKEN, Run, Story
from controller import Controller, Served
from reach import PROJECT

OWN = "K3s-DaaS"


@pytest.fixture(scope="module")
def made(story: Story) -> Controller:
    """The controller after the run that made it all."""
    assert story.made.code == 0, story.made.output[-6000:]
    return story.after()


# --- in check mode, on an empty controller ------------------------------------------------------------------


def test_check_mode_only_asks(story: Story) -> None:
    assert story.checked.code == 0, story.checked.output
    assert story.checked.calls != []
    assert story.checked.wrote == []
    assert "changed=1" in story.checked.words.rpartition("PLAY RECAP")[2]


def test_check_mode_says_where_it_ends(story: Story) -> None:
    assert "what refers to it wasn't looked at" in story.checked.words


# --- what is made -------------------------------------------------------------------------------------------


def test_every_fleet_has_a_template_for_every_playbook(made: Controller) -> None:
    templates = made.named("job_templates")
    wanted = {f"{fleet} {name}": f"playbooks/{name}.yml" for fleet in FLEETS for name in MADE}
    assert {name: one["playbook"] for name, one in templates.items()} == wanted


def test_no_template_mixes_fleets(made: Controller) -> None:
    for name, template in made.named("job_templates").items():
        fleet = name.split()[0]
        assert made.objects["inventories"][template["inventory"]]["name"] == fleet
        credentials = [made.objects["credentials"][one]["name"] for one in template["credentials"]]
        assert {one.split()[0] for one in credentials} == {fleet}


def test_a_template_has_the_keys_that_it_needs_and_no_other(made: Controller) -> None:
    def keys(name: str) -> set[str]:
        template = made.named("job_templates")[name]
        return {made.objects["credentials"][one]["name"] for one in template["credentials"]}

    assert keys("production health") == {"production ssh"}
    assert keys("production rotate") == {"production ssh", "production wallet"}


def test_templates_ask_what_the_survey_has(made: Controller) -> None:
    for name, template in made.named("job_templates").items():
        survey = MADE[name.split()[1]].get("survey", [])
        assert template["survey_enabled"] is bool(survey)
        assert template.get("survey_spec", {}).get("spec", []) == survey


def test_nobody_is_waited_for_within_a_job(made: Controller) -> None:
    told = {
        json.loads(one["extra_vars"])["contracts_confirm"] for one in made.named("job_templates").values()
    }
    assert told == {False}


def test_an_inventory_has_its_hosts_and_what_the_chain_says(made: Controller) -> None:
    sources = made.named("inventory_sources")
    assert set(sources) == {f"{fleet} {what}" for fleet in FLEETS for what in ("hosts", "chain")}
    for name, source in sources.items():
        assert made.objects["inventories"][source["inventory"]]["name"] == name.split()[0]
        assert made.objects["projects"][source["source_project"]]["name"] == OWN
        assert (PROJECT / source["source_path"]).exists()
        assert source["update_on_launch"] is True
    chain = sources["production chain"]
    assert made.objects["credentials"][chain["credential"]]["name"] == "production wallet"
    assert json.loads(chain["source_vars"]) == FLEETS["production"]["chain"]
    assert sources["production hosts"].get("credential") is None


# --- workflows ----------------------------------------------------------------------------------------------


def course(controller: Controller, workflow: str) -> dict[str, dict[str, list[str]]]:
    """Where each node of a workflow leads to."""
    nodes = controller.nodes(workflow)
    names = {node["id"]: name for name, node in nodes.items()}
    return {
        name: {kind: [names[one] for one in node[kind]] for kind in sorted(node) if kind.endswith("_nodes")}
        for name, node in nodes.items()
    }


def runs(controller: Controller, workflow: str) -> dict[str, str]:
    """What each node of a workflow runs."""
    found = {}
    for name, node in controller.nodes(workflow).items():
        number = node["unified_job_template"]
        question = controller.objects["workflow_approval_templates"].get(number)
        template = controller.objects["job_templates"].get(number)
        found[name] = f"yes? ({question['timeout']} s)" if question else template["name"] if template else ""
    return found


@pytest.mark.parametrize("name", [name for name in MADE if "verify" in MADE[name]])
@pytest.mark.parametrize("fleet", FLEETS)
def test_it_is_shown_approved_done_and_looked_at(made: Controller, fleet: str, name: str) -> None:
    workflow = f"{fleet} {name}, approved"
    own, verify = f"{fleet} {name}", f"{fleet} {MADE[name]['verify']}"
    assert runs(made, workflow) == {
        "preview": own,
        "approve": "yes? (86400 s)",
        "execute": own,
        "verify": verify,
    }
    assert course(made, workflow) == {
        "preview": {"success_nodes": ["approve"]},
        "approve": {"success_nodes": ["execute"]},
        "execute": {"success_nodes": ["verify"]},
        "verify": {},
    }
    nodes = made.nodes(workflow)
    assert nodes["preview"]["job_type"] == "check"
    assert "job_type" not in nodes["execute"]
    assert nodes["verify"]["job_type"] == ("check" if verify == own else "run")
    asked = made.named("workflow_job_templates")[workflow].get("survey_spec", {}).get("spec", [])
    assert asked == MADE[name].get("survey", []), "nodes get from the workflow what their survey asks for"


def test_a_release_goes_to_stage_then_to_production(made: Controller) -> None:
    assert runs(made, "promote") == {
        "promote-first": "stage promote",
        "health-first": "stage health",
        "approve": "yes? (86400 s)",
        "promote-second": "production promote",
        "health-second": "production health",
        "rollback": "production rollback",
    }
    assert course(made, "promote") == {
        "promote-first": {"success_nodes": ["health-first"]},
        "health-first": {"success_nodes": ["approve"]},
        "approve": {"success_nodes": ["promote-second"]},
        "promote-second": {"success_nodes": ["health-second"]},
        "health-second": {"failure_nodes": ["rollback"]},
        "rollback": {},
    }


def test_which_release_is_asked_at_launch(made: Controller) -> None:
    assert made.named("workflow_job_templates")["promote"]["ask_scm_branch_on_launch"] is True
    asking = {name for name, one in made.named("job_templates").items() if one["ask_scm_branch_on_launch"]}
    assert {"stage promote", "production promote"} <= asking
    assert made.named("projects")[OWN]["allow_override"] is True


def test_a_rollback_nobody_is_asked_for_has_its_confirmation(made: Controller) -> None:
    registry = FLEETS["production"]["chain"]["SUI_WORKERS_NAME"]
    assert made.nodes("promote")["rollback"]["extra_data"] == {"confirm": registry}


def test_drift_and_rotation_have_their_times(made: Controller) -> None:
    jobs = made.named("job_templates") | made.named("workflow_job_templates")
    names = {one["id"]: name for name, one in jobs.items()}
    schedules = made.named("schedules")
    assert {name: names[one["unified_job_template"]] for name, one in schedules.items()} == {
        "stage drift": "stage health",  # awx_kit.SCHEDULES
        "production drift": "production health",
        "production rotate": "production rotate, approved",
    }
    assert schedules["production rotate"]["extra_data"] == {"rotate": "seal_tokens", "rotate_serial": 1}


# --- a second run -------------------------------------------------------------------------------------------


def test_a_second_run_mends_what_was_changed_by_hand_and_nothing_else(story: Story, made: Controller) -> None:
    assert story.again.code == 0, story.again.output[-6000:]
    templates = made.named("job_templates")
    lost = templates["production rotate"]["credentials"][-1]
    wrote = {(method, path): body for method, path, body in story.again.wrote}
    given = f"/api/v2/job_templates/{templates['production rotate']['id']}/credentials/"
    assert set(wrote) == {
        ("POST", given),
        ("PATCH", f"/api/v2/job_templates/{templates['production health']['id']}/"),
        ("POST", "/api/v2/schedules/"),
    }
    assert wrote["POST", given] == {"id": lost}
    # Loops count as one task.
    assert "changed=2 " in story.again.words.rpartition("PLAY RECAP")[2]


def test_afterwards_all_is_as_before(story: Story) -> None:
    def told(objects: dict[str, dict[int, Any]]) -> dict[str, Any]:
        return {
            endpoint: sorted(
                json.dumps({key: value for key, value in one.items() if key != "id"}, sort_keys=True)
                for one in kept.values()
            )
            for endpoint, kept in objects.items()
        }

    assert told(story.repaired) == told(story.objects)


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_key_is_in_its_credential(story: Story, made: Controller) -> None:
    kept = {name: list(one["inputs"].values()) for name, one in made.named("credentials").items()}
    assert kept == {name: [story.keys[name]] for name in kept}
    assert len(kept) == 4
    types = {name: made.objects["credential_types"][one["credential_type"]]["name"] for name, one in
             made.named("credentials").items()}  # fmt: skip
    assert types["production wallet"] == "K3s-DaaS wallet"
    assert types["production ssh"] == "Machine"


def test_no_key_and_no_token_is_anywhere_else(story: Story) -> None:
    secrets = [*(key.strip() for key in story.keys.values()), TOKEN]
    assert "module_args" in story.made.output, "the run was not made with -vvv"
    for run in (story.checked, story.made, story.again):
        assert [secret for secret in secrets if secret in run.output] == []
    others = [call for call in story.made.calls if not call[1].startswith("/api/v2/credentials/")]
    assert [secret for secret in secrets if secret in json.dumps(others)] == []


def test_a_second_run_sends_no_key(story: Story) -> None:
    assert [key for key in story.keys.values() if key.strip() in json.dumps(story.again.wrote)] == []


# --- what can be wrong --------------------------------------------------------------------------------------


def test_a_wrong_token(refused: Callable[..., Run], collection: Path) -> None:
    controller = Controller(TOKEN)
    with Served(controller) as url:
        run = refused({"CONTROLLER_HOST": url, "CONTROLLER_OAUTH_TOKEN": "another"})
    assert run.code != 0
    assert "Invalid authentication credentials for /api/v2/organizations/ (HTTP 401)" in run.words
    assert "another" not in run.output
    assert controller.wrote() == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "Found CONTROLLER_HOST=nothing and no CONTROLLER_OAUTH_TOKEN"),
        (
            {"CONTROLLER_HOST": "http://awx.example.com", "CONTROLLER_OAUTH_TOKEN": TOKEN},
            "Found CONTROLLER_HOST=http://awx.example.com and a CONTROLLER_OAUTH_TOKEN",
        ),
    ],
    ids=["nothing", "in-plain-text"],
)
def test_no_controller(
    refused: Callable[..., Run], collection: Path, environment: dict[str, str], said: str
) -> None:
    run = refused(environment)
    assert run.code != 0
    assert said in run.words
    assert TOKEN not in run.output


def test_no_image(refused: Callable[..., Run], collection: Path) -> None:
    run = refused(
        {"CONTROLLER_HOST": "https://awx.example.com", "CONTROLLER_OAUTH_TOKEN": TOKEN}, awx_image=""
    )
    assert run.code != 0
    assert "and awx_image=nothing; wanted" in run.words


def test_no_key(refused: Callable[..., Run], collection: Path, tmp_path: Path) -> None:
    (tmp_path / "production-wallet").unlink()
    run = refused({"CONTROLLER_HOST": "https://awx.example.com", "CONTROLLER_OAUTH_TOKEN": TOKEN})
    assert run.code != 0
    assert (
        f"Found no file {tmp_path}/production-wallet; wanted the wallet key of the fleet production"
        in run.words
    )
