"""README.ko.md says what README.md says: the same headings, code, tables, lists and links."""

from __future__ import annotations

import re

from page_kit import PROJECT, code_spans, headings, links, prose

import pages

ENGLISH, KOREAN = ((PROJECT / name).read_text() for name in ("README.md", "README.ko.md"))
LANGUAGES = {"README.md", "README.ko.md"}


def code(text: str) -> list[tuple[str, list[str]]]:
    """(language, lines) of each block, without what is for readers: comments and the texts of a diagram."""
    found = []
    for language, _, lines in pages.blocks(text):
        plain = (
            re.sub(r'"[^"]*"', '""', line) if language == "mermaid" else line.split(" #")[0] for line in lines
        )
        found.append((language, [line.rstrip() for line in plain]))
    return found


def test_they_have_the_same_headings() -> None:
    assert [level for level, _ in headings(KOREAN)] == [level for level, _ in headings(ENGLISH)]
    assert headings(KOREAN)[0] == headings(ENGLISH)[0]


def test_they_have_the_same_code() -> None:
    assert code(KOREAN) == code(ENGLISH)


def test_they_have_the_same_links() -> None:
    one, other = ([link for link in links(text) if link not in LANGUAGES] for text in (KOREAN, ENGLISH))
    assert one == other


def test_they_name_the_same_commands_variables_and_paths() -> None:
    assert sorted(code_spans(KOREAN)) == sorted(code_spans(ENGLISH))


def test_they_have_the_same_tables_and_lists() -> None:
    def form(text: str) -> list[str]:
        lines = prose(text).splitlines()
        marks = (re.match(r" *(- |\d+\. |\|)", line) for line in lines)
        return [mark[1] for mark in marks if mark]

    assert form(KOREAN) == form(ENGLISH)


def test_they_lead_to_each_other() -> None:
    assert "README.ko.md" in links(ENGLISH)
    assert "README.md" in links(KOREAN)


def test_it_is_korean() -> None:
    text = re.sub(r"`[^`]*`|\([^)]*\)", "", prose(KOREAN))
    assert len(re.findall(r"[가-힣]", text)) > len(re.findall(r"[A-Za-z]", text))
