"""docs/reference is what the code says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("k3s_daas_reference", PROJECT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(reference: ModuleType) -> None:
    written = {path.name: path.read_text() for path in reference.FOLDER.glob("*")}
    wanted = reference.pages()
    outdated = sorted(name for name in {*written, *wanted} if written.get(name) != wanted.get(name))
    assert outdated == [], "run make docs"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("C(a) and O(b)=V(c)", "`a` and `b`=`c`"),
        ("RV(preview), RV(ignore:preview)", "`preview`, `preview`"),
        (r"C(f\(x\)) is B(not) I(it)", "`f(x)` is *not* *it*"),
        ("M(sui_slash), M(ansible.builtin.copy)", "[sui_slash](sui_slash.md), `ansible.builtin.copy`"),
        ("a DNS(1) name,\n  broken", "a DNS(1) name, broken"),
    ],
)
def test_markup_becomes_markdown(reference: ModuleType, said: str, shown: str) -> None:
    assert reference.text(said) == shown


def test_tables_stay_tables(reference: ModuleType) -> None:
    table = reference.options_table(
        {
            "a": {"type": "list", "elements": "dict", "description": ["One | two.", "Three."], "default": []},
            "b": {"description": "B", "required": True, "choices": ["x", "y"], "env": [{"name": "B"}]},
            "c": {"description": "C", "default": "{{ x |\n y }}", "options": {"d": {"description": "D"}}},
        }
    )
    assert table.splitlines()[2:] == [
        r"| `a` | list of dict | `[]` | One \| two.<br>Three. |",
        "| `b` | str | **required** | B<br>One of `x`, `y`.<br>In the environment: `B`. |",
        r"| `c` | str | `{{ x \| y }}` | C |",
        "| `c.d` | str |  | D |",
    ]
