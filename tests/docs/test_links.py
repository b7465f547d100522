"""Every link leads somewhere, offline: files, headings, and pages that code and playbooks name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_kit import PROJECT, all_pages, anchors, links, written_pages

# What people read on the way: errors, comments, alerts.
_SPEAKING = (
    "playbooks",
    "roles",
    "src",
    "library",
    "inventories",
    "inventory_plugins",
    "molecule",
    "Makefile",
)
_NAMED = re.compile(r"\bdocs/[\w./-]+\.md(?:#[\w-]+)?")


def broken(page: str) -> list[str]:
    """Links of the page that lead nowhere. What is on the network isn't asked."""
    text = (PROJECT / page).read_text()
    found = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (PROJECT / page).parent / target if target else PROJECT / page
        if not path.exists() or not path.resolve().is_relative_to(PROJECT):
            found.append(f"{page}: {link}: there is no such file")
        elif anchor and anchor not in anchors(path.read_text()):
            found.append(f"{page}: {link}: {path.name} has no such heading")
    return found


@pytest.mark.parametrize("page", all_pages())
def test_links_lead_somewhere(page: str) -> None:
    assert broken(page) == []


def test_pages_that_code_names_are_there() -> None:
    files = [
        path
        for top in _SPEAKING
        for path in ([PROJECT / top] if (PROJECT / top).is_file() else (PROJECT / top).rglob("*"))
        if path.suffix in {".py", ".yml", ".j2", ".json", ""}
        and path.is_file()
        and "__pycache__" not in path.parts
    ]
    assert len(files) > 100
    lost = []
    for path in files:
        for named in _NAMED.findall(path.read_text(errors="replace")):
            target, _, anchor = named.partition("#")
            page = PROJECT / target
            if not page.exists() or (anchor and anchor not in anchors(page.read_text())):
                lost.append(f"{path.relative_to(PROJECT)}: {named}")
    assert lost == []


def test_the_index_has_every_page_once() -> None:
    index = (PROJECT / "docs/README.md").read_text()
    listed = sorted(link.partition("#")[0] for link in links(index))
    assert len(listed) == len(set(listed)), "a page is listed twice"
    pages = {path.name for path in (PROJECT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(listed) == set(), "pages that docs/README.md doesn't list"


def test_other_pages_than_the_index_are_reached() -> None:
    """From the README, by links alone."""
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links((PROJECT / page).read_text()):
            target = link.partition("#")[0]
            if target.endswith(".md") and not re.match(r"[a-z]+:", target):
                waiting.append(str(((PROJECT / page).parent / target).resolve().relative_to(PROJECT)))
    assert set(written_pages()) - reached == set()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("# A page\n## What you *see*\n## What you see\n", {"a-page", "what-you-see", "what-you-see-1"}),
        ("## `status`: [the](x.md) fleet, 1.34 & more\n", {"status-the-fleet-134--more"}),
        ("## 무엇을 하나\n", {"무엇을-하나"}),
        ("```sh\n# no heading\n```\n\n    # nor this\n", set()),
    ],
)
def test_anchors_are_made_as_a_git_host_makes_them(text: str, names: set[str]) -> None:
    assert anchors(text) == names


def test_it_sees_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.md").write_text("# There\n")
    (tmp_path / "a.md").write_text(
        "[fine](b.md#there) [lost](c.md) [no heading](b.md#here) [out](../x.md) `[code](d.md)` "
        "[web](https://a.example/#b) ![image](i.png)\n\n    [block](e.md)\n"
    )
    monkeypatch.setitem(broken.__globals__, "PROJECT", tmp_path)
    assert [line.split(": ")[1] for line in broken("a.md")] == ["c.md", "b.md#here", "../x.md", "i.png"]
