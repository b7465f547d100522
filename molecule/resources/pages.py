"""The commands that the documentation gives people, for the tests that type them.

A scenario takes a command from its page with `told`, so a page whose command is wrong fails it.
tests/docs/test_commands.py looks which commands nobody takes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
#: Fenced blocks in other languages are data or diagrams.
_SHELL = ("", "sh", "shell", "bash", "console")


@dataclass(frozen=True)
class Command:
    """One command of a page; its words as a shell splits them, without the comment."""

    page: str
    line: int
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]

    @property
    def playbook(self) -> str | None:
        """Its path in the project, where the command is `ansible-playbook`."""
        given = [word for word in self.words[1:] if word.endswith(".yml") and "=" not in word]
        return given[0] if self.program == "ansible-playbook" and given else None

    @property
    def inventories(self) -> tuple[str, ...]:
        return tuple(after for word, after in self._pairs() if word in ("-i", "--inventory"))

    @property
    def options(self) -> tuple[str, ...]:
        """All but program, playbook and inventory: what a scenario adds to its own inventory."""
        kept: list[str] = []
        skip = False
        for word in self.words[1:]:
            if skip or word in ("-i", "--inventory"):
                skip = not skip
            elif word != self.playbook:
                kept.append(word)
        return tuple(kept)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the extra variables."""
        given = [after for word, after in self._pairs() if word in ("-e", "--extra-vars")]
        plain = [text.partition("=")[0] for text in given if not text.startswith("{")]
        return (*plain, *(name for text in given if text.startswith("{") for name in json.loads(text)))

    def _pairs(self) -> Iterator[tuple[str, str]]:
        return zip(self.words, self.words[1:], strict=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def blocks(text: str) -> Iterator[tuple[str, int, list[str]]]:
    """(language, number of the first line, lines) of each code block, without its indent."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        fence = re.match(r"( *)```(\S*)", lines[at])
        start = at + 1 if fence else at
        at = start
        if fence:
            while at < len(lines) and lines[at].strip() != "```":
                at += 1
            found = [line.removeprefix(fence[1]) for line in lines[start:at]]
            yield fence[2], start + 1, found
            at += 1
        elif (
            lines[at].startswith("    ")
            and lines[at].strip()
            and (start == 0 or not lines[start - 1].strip())
        ):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            found = lines[start:at]
            while not found[-1].strip():
                found.pop()
            indent = min(len(line) - len(line.lstrip()) for line in found if line.strip())
            yield "", start + 1, [line[indent:] for line in found]
        else:
            at += 1


def shell_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of each block that may hold commands; continued lines are joined."""
    for language, number, lines in blocks(text):
        if language in _SHELL:
            joined = "\n".join(lines).replace("\\\n", " ")
            yield number, joined.split("\n")


def commands(page: str, program: str = "ansible-playbook") -> list[Command]:
    """Commands of the page (a path in the project) that begin with the program."""
    found = []
    for number, lines in shell_lines((PROJECT / page).read_text()):
        for line in lines:
            if line.split(" ")[0].rpartition("/")[2] == program:
                found.append(Command(page, number, tuple(shlex.split(line, comments=True))))
    return found


def find(page: str, playbook: str, *having: str) -> Command:
    """The page's shortest command that runs the playbook and has these words, or variables of these names.

    Raises:
        LookupError: there is none; the message lists those that there are.
    """
    there = [one for one in commands(page) if one.playbook == playbook]
    fitting = [
        one
        for one in there
        if all(any(w == word or w.startswith(f"{word}=") for w in one.options) for word in having)
    ]
    if not fitting:
        listed = "\n  ".join(map(str, there)) or "none"
        raise LookupError(f"{page}: found no command with {playbook} {' '.join(having)}, but:\n  {listed}")
    return min(fitting, key=lambda one: len(one.options))


def told(page: str, playbook: str, *having: str, **instead: str) -> tuple[str, ...]:
    """(playbook, option, …): the page's command for `scenario.play`, with other values for these variables.

    Call it with literals: tests/docs/test_commands.py reads the calls. The inventory is the scenario's.
    """
    options = list(find(page, playbook, *having).options)
    for name, value in instead.items():
        places = [n for n, word in enumerate(options) if word.startswith(f"{name}=")]
        if not places:
            raise LookupError(f"{page}: the command with {playbook} {' '.join(having)} sets no {name}")
        options[places[0]] = f"{name}={value}"
    return (playbook, *options)
