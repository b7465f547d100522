"""What a module says of itself is what it does: options, defaults and choices are compared with its code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

MODULES = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "library").glob("*.py")
    if path.stem.startswith("sui_") or path.stem == "seal_commitment"
)


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
    name: str, ansible_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ansible_module(name)
    spec, check_mode = argument_spec(module, monkeypatch)
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert documented["module"] == name
    assert set(documented["options"]) == set(spec)
    for option, told in documented["options"].items():
        assert told["description"], option
        for key in ("type", "elements", "choices", "default", "required"):
            assert told.get(key) == spec[option].get(key), (option, key)
    assert check_mode
    assert documented["attributes"]["check_mode"]["support"] == "full"


@pytest.mark.parametrize("name", MODULES)
def test_examples_and_returns_are_complete(name: str, ansible_module: Callable[[str], ModuleType]) -> None:
    module = ansible_module(name)
    options = yaml.safe_load(module.DOCUMENTATION)["options"]
    tasks = [task[name] for task in yaml.safe_load(module.EXAMPLES) if name in task]
    assert tasks
    for task in tasks:
        assert set(task) <= set(options)
        assert {option for option, told in options.items() if told.get("required")} <= set(task)
    for field, told in yaml.safe_load(module.RETURN).items():
        assert {"description", "type", "returned"} <= set(told), field


@pytest.mark.parametrize("name", MODULES)
def test_modules_stay_thin(name: str) -> None:
    lines = (Path(__file__).parents[2] / "library" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 250


@pytest.mark.parametrize("name", [name for name in MODULES if name != "seal_commitment"])
def test_no_option_takes_a_key(name: str, ansible_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = argument_spec(ansible_module(name), monkeypatch)
    keys = {option: entry["type"] for option, entry in spec.items() if "key" in option}
    assert keys in ({}, {"key_file": "path"})
