"""Samples of inventories on the pages."""

from __future__ import annotations

import re

import pytest
import yaml
from page_kit import PROJECT, written_pages

import pages

PAGES = written_pages()


def test_variables_of_the_samples_are_known() -> None:
    """In YAML blocks: each variable with a role's name in front is one that the role documents."""
    roles = [path.name for path in (PROJECT / "roles").iterdir()]
    known = set()
    for role in roles:
        specs = yaml.safe_load((PROJECT / "roles" / role / "meta/argument_specs.yml").read_text())
        known |= {name for point in specs["argument_specs"].values() for name in point.get("options") or {}}
    unknown, seen = [], 0
    for page in PAGES:
        for language, number, lines in pages.blocks((PROJECT / page).read_text()):
            if language not in ("yaml", ""):
                continue
            for name in re.findall(r"(?m)^ *(?:- )?([a-z0-9_]+): ", "\n".join(lines)):
                if any(name.startswith(f"{role}_") for role in roles) and "_" in name:
                    seen += 1
                    unknown += [f"{page}:{number}: {name}"] if name not in known else []
    assert seen > 20
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_yaml_samples_are_yaml(page: str) -> None:
    for language, number, lines in pages.blocks((PROJECT / page).read_text()):
        if language in ("yaml", "yml"):
            try:
                list(yaml.safe_load_all("\n".join(lines)))
            except yaml.YAMLError as error:
                pytest.fail(f"{page}:{number}: {error}")
