"""What every role of this project keeps to."""

from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
ROLES = sorted(path for path in (PROJECT / "roles").iterdir() if path.is_dir())


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_defaults_and_argument_specs_have_the_same_keys(self, role: Path) -> None:
        options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
        optional = {name for name, option in options.items() if not option.get("required")}
        assert set(load(role / "defaults/main.yml")) == optional

    def test_every_option_has_a_type_and_a_description(self, role: Path) -> None:
        options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
        assert [name for name, option in options.items() if not {"type", "description"} <= set(option)] == []

    def test_variables_carry_the_name_of_their_role(self, role: Path) -> None:
        names = [*load(role / "defaults/main.yml")]
        if (role / "vars/main.yml").exists():
            names += load(role / "vars/main.yml")
        assert [name for name in names if not name.removeprefix("_").startswith(f"{role.name}_")] == []

    def test_task_files_are_short(self, role: Path) -> None:
        lengths = {path.name: len(path.read_text().splitlines()) for path in (role / "tasks").glob("*.yml")}
        assert lengths.get("main.yml", 0) <= 60
        assert {name: length for name, length in lengths.items() if length > 150} == {}
