"""The pages about operations have one shape."""

from __future__ import annotations

import re

import pytest
from page_kit import PROJECT, headings

import pages

#: nitro.md and image.md are about machines as much as about a playbook.
OPERATIONS = (
    "abandon-snapshots",
    "aws",
    "backup",
    "doctor",
    "drift",
    "exit",
    "kubectl",
    "monitoring",
    "requests",
    "reset",
    "rotate",
    "scaling",
    "slash",
    "status",
    "support",
    "upgrade",
    "upgrade-contracts",
)
SHAPE = ["The inventory", "What it does", "What you see", "Undo"]
#: Nothing of ansible-playbook: what is asked of a program, and not of a playbook.
WITHOUT_RECAP = {"requests"}


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operations_page_has_it(name: str) -> None:
    text = (PROJECT / f"docs/{name}.md").read_text()
    there = [title for level, title in headings(text) if level == 2]
    assert [title for title in there if title in SHAPE] == SHAPE
    begin = text.split("\n## ", 1)[0]
    assert list(pages.shell_lines(begin)), "the command stands before the first heading"
    assert [level for level, _ in headings(text)].count(1) == 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_inventory_is_the_same_or_shown_twice(name: str) -> None:
    said = section((PROJECT / f"docs/{name}.md").read_text(), "The inventory")
    samples = [lines for language, _, lines in pages.blocks(said) if language == "yaml"]
    same = re.search(r"[Tt]he same before and after|None is needed|inventories are there to start from", said)
    assert same or len(samples) >= 2
    assert not same or not re.search(r"(?m)^Before:$", said) or len(samples) >= 2


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in WITHOUT_RECAP])
def test_the_recap_is_told(name: str) -> None:
    said = section((PROJECT / f"docs/{name}.md").read_text(), "What you see")
    assert re.search(r"changed=\d", said)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_page_says_how_to_undo(name: str) -> None:
    assert len(section((PROJECT / f"docs/{name}.md").read_text(), "Undo").split()) > 4
