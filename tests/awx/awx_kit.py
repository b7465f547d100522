"""What the tests of awx/ share: its data, and playbooks/awx.yml run as an operator runs it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller import Controller, Served
from reach import PROJECT, load

COLLECTIONS = PROJECT / ".state/collections"
TOKEN = "canary-of-the-token"  # noqa: S105
SETTINGS = load(PROJECT / "awx/controller.yml")
TEMPLATES = load(PROJECT / "awx/templates.yml")["awx_templates"]
LEFT_OUT = load(PROJECT / "awx/templates.yml")["awx_left_out"]
FLEETS: dict[str, dict[str, Any]] = {fleet["name"]: fleet for fleet in SETTINGS["awx_fleets"]}
APPROVED = [name for name, template in TEMPLATES.items() if "verify" in template]
# What is made in the runs against the controller, where each costs half a second: one of every kind. The
# others differ in data, which the tests look at without a run.
MADE = {
    "health": TEMPLATES["health"],
    "promote": TEMPLATES["promote"],
    "rollback": {key: value for key, value in TEMPLATES["rollback"].items() if key != "verify"},
    "rotate": TEMPLATES["rotate"] | {"verify": "rotate"},  # its check mode once more, as with reset
}
SCHEDULES = SETTINGS["awx_schedules"] | {"drift": SETTINGS["awx_schedules"]["drift"] | {"what": "health"}}


@dataclass
class Run:
    code: int
    output: str
    calls: list[tuple[str, str, Any]] = field(default_factory=list)

    @property
    def words(self) -> str:
        return " ".join(self.output.split())

    @property
    def wrote(self) -> list[tuple[str, str, Any]]:
        return [call for call in self.calls if call[0] != "GET"]


@dataclass
class Story:
    """Each run, and what the controller holds after the second and the third.

    The third one is about production only.
    """

    keys: dict[str, str]
    checked: Run
    made: Run
    objects: dict[str, dict[int, Any]]
    again: Run
    repaired: dict[str, dict[int, Any]]

    def after(self) -> Controller:
        """The controller as the second run left it."""
        controller = Controller(TOKEN)
        controller.objects = self.objects
        return controller


def keys_of(folder: Path) -> dict[str, str]:
    """Content of the key files that `settings` names, which are made in `folder`."""
    keys = {}
    for fleet in FLEETS:
        for one in ("wallet", "ssh"):
            keys[f"{fleet} {one}"] = f"canary-of-{one}-of-{fleet}\n"
            (folder / f"{fleet}-{one}").write_text(keys[f"{fleet} {one}"])
    return keys


def settings(folder: Path) -> dict[str, Any]:
    """What an operator fills in."""
    fleets = []
    for fleet in SETTINGS["awx_fleets"]:
        kinds = ["wallet", "ssh"]
        files = [{"of": kind, "file": str(folder / f"{fleet['name']}-{kind}")} for kind in kinds]
        fleets.append(fleet | {"key_files": files})
    return {
        "awx_project_url": "https://git.example.com/me/k3s-daas.git",
        "awx_image": "registry.example.com/k3s-daas@sha256:" + "0" * 64,
        "awx_fleets": fleets,
        "awx_templates": MADE,
        "awx_schedules": SCHEDULES,
    }


def play(folder: Path, environment: dict[str, str], given: dict[str, Any], *options: str) -> Run:
    """playbooks/awx.yml with an empty home, and of this machine's environment where programs are."""
    own = {"ANSIBLE_NOCOLOR": "1", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    own |= {"ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    (folder / "given.json").write_text(json.dumps(given))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "playbooks/awx.yml"]
    done = subprocess.run(
        [*command, f"--extra-vars=@{folder / 'given.json'}", *options],
        cwd=PROJECT,
        env=inherited | own | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr)


def tell(folder: Path) -> Story:
    keys, given = keys_of(folder), settings(folder)
    controller = Controller(TOKEN)
    with Served(controller) as url:
        environment = {"CONTROLLER_HOST": url, "CONTROLLER_OAUTH_TOKEN": TOKEN}

        def run(*options: str, **changed: Any) -> Run:
            controller.calls = []
            done = play(folder, environment, given | changed, *options)
            done.calls = json.loads(json.dumps(controller.calls))
            return done

        checked = run("--check", "--diff")
        # All that Ansible could say of a secret is said.
        made = run("-vvv")
        objects = pickle.loads(pickle.dumps(controller.objects))  # noqa: S301
        if made.code == 0:
            # What somebody changed by hand.
            controller.named("job_templates")["production rotate"]["credentials"].pop()
            controller.named("job_templates")["production health"]["description"] = "by hand"
            del controller.objects["schedules"][controller.named("schedules")["production drift"]["id"]]
        again = run(awx_fleets=given["awx_fleets"][1:])
    return Story(keys, checked, made, objects, again, controller.objects)
