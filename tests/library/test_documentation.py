"""What a module says of itself is what it does: options, defaults and choices are compared with its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

REPOSITORY = Path(__file__).parents[2]
# Of the standard library alone: what runs on the hosts.
ON_HOSTS = {"seal_commitment", "k3s_daas_way_back", "k3s_encryption", "k3s_secrets", "k3s_server_token"}
MODULES = sorted(
    path.stem for path in (REPOSITORY / "library").glob("*.py") if path.stem != "k3s_daas_wheelhouse"
)


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    """What `ansible-doc` says of each module: with the fragments, found by ansible.cfg."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-doc", "--type=module", "--json", *MODULES],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def argument_spec(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], bool]:
    class Seen(Exception):
        pass

    def capture(self: Any, **kwargs: Any) -> None:
        raise Seen(kwargs["argument_spec"], kwargs.get("supports_check_mode", False))

    monkeypatch.setattr(basic.AnsibleModule, "__init__", lambda self, **kwargs: capture(self, **kwargs))
    with pytest.raises(Seen) as seen:
        module.main()
    return seen.value.args


def test_there_are_all_of_them() -> None:
    assert {"sui_package", "sui_registry", "sui_master", "sui_stake", "sui_registry_info", "sui_slash"} < set(
        MODULES
    )


@pytest.mark.parametrize("name", MODULES)
def test_options_are_those_of_the_code(
    name: str,
    ansible_module: Callable[[str], ModuleType],
    documented: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, check_mode = argument_spec(ansible_module(name), monkeypatch)
    doc = documented[name]["doc"]
    assert doc["module"] == name
    compare(doc["options"], spec)
    assert check_mode
    assert doc["attributes"]["check_mode"]["support"] == "full"
    assert doc["author"]


def compare(options: dict[str, Any], spec: dict[str, Any]) -> None:
    assert set(options) == set(spec)
    for option, told in options.items():
        assert told["description"], option
        for key in ("type", "elements", "choices", "default"):
            assert told.get(key) == spec[option].get(key), (option, key)
        assert told.get("required", False) == spec[option].get("required", False), option
        compare(told.get("suboptions", {}), spec[option].get("options", {}))


@pytest.mark.parametrize("name", MODULES)
def test_examples_and_returns_are_complete(name: str, documented: dict[str, Any]) -> None:
    options = documented[name]["doc"]["options"]
    tasks = [task[name] for task in yaml.safe_load(documented[name]["examples"]) if name in task]
    assert tasks
    for task in tasks:
        assert set(task) <= set(options)
        assert {option for option, told in options.items() if told.get("required")} <= set(task)
    for field, told in documented[name]["return"].items():
        assert {"description", "type", "returned"} <= set(told), field


@pytest.mark.parametrize("name", MODULES)
def test_modules_stay_thin(name: str) -> None:
    lines = (REPOSITORY / "library" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 250


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ON_HOSTS])
def test_no_option_takes_a_key(name: str, ansible_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = argument_spec(ansible_module(name), monkeypatch)
    keys = {option: entry["type"] for option, entry in spec.items() if "key" in option}
    assert keys in ({}, {"key_file": "path"})
