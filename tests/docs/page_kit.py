"""The project's pages and what stands in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pages

PROJECT = pages.PROJECT
#: Made by tools, or fetched.
_NOT_OURS = {".venv", ".state", ".git", "node_modules", ".pytest_cache", ".ansible"}
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?)\)")


def all_pages() -> list[str]:
    """Paths in the project, of every page."""
    found = (path.relative_to(PROJECT) for path in PROJECT.rglob("*.md"))
    return sorted(str(path) for path in found if not _NOT_OURS & set(path.parts))


def written_pages() -> list[str]:
    """Those that somebody wrote: not what `make docs` makes."""
    return [page for page in all_pages() if not page.startswith("docs/reference/")]


def prose(text: str) -> str:
    """The text with every code block emptied, and each line where it was."""
    lines = text.splitlines()
    for language, number, block in pages.blocks(text):
        del language
        lines[number - 1 : number - 1 + len(block)] = [""] * len(block)
    return "\n".join(lines)


def headings(text: str) -> list[tuple[int, str]]:
    """(level, text) of each."""
    found = re.findall(r"^(#{1,6}) +(.*?) *#*$", prose(text), re.MULTILINE)
    return [(len(marks), title) for marks, title in found]


def anchors(text: str) -> set[str]:
    """Names that a link may go to, as GitHub and GitLab make them of headings."""
    made: set[str] = set()
    for _, title in headings(text):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        kept = (c for c in plain if c in " -_" or unicodedata.category(c)[0] in "LNM")
        name = stem = "".join(kept).replace(" ", "-")
        number = 0
        while name in made:
            number += 1
            name = f"{stem}-{number}"
        made.add(name)
    return made | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def links(text: str) -> Iterator[str]:
    """Targets of links and images, code apart."""
    yield from _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(text)))


def code_spans(text: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))
