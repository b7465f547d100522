"""No rule without a test: every named error of the contracts is provoked somewhere in this folder."""

from __future__ import annotations

import re
from pathlib import Path

from contract_fleet import MOVE_DIR


def test_every_named_error_is_expected_by_a_test() -> None:
    named = {
        (path.stem, name)
        for path in (MOVE_DIR / "sources").glob("*.move")
        for name in re.findall(r"#\[error\]\s*const (E\w+)", path.read_text("utf-8"))
    }
    assert len(named) > 40
    tests = "\n".join(
        path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)
    )
    assert sorted(f"{module}::{name}" for module, name in named if f'"{name}"' not in tests) == []


def test_every_abort_has_a_named_error() -> None:
    for path in (MOVE_DIR / "sources").glob("*.move"):
        text = re.sub(r"//.*", "", path.read_text("utf-8"))
        for code in re.findall(r"\babort\s+(\w+)|,\s*(\w+),?\s*\);", text):
            name = "".join(code)
            if name.startswith("E") and name[1:2].isupper():
                assert re.search(rf"#\[error\]\s*const {name}:", text), f"{path.name}: {name}"
