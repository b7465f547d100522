"""The outcome of a comparison: for programs as JSON, for people as one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Side = Literal["inventory", "host", "cluster", "chain"]

AGREE, DISAGREE, UNKNOWN = 0, 2, 4

#: Of the table; what a log or Ansible's output shows without wrapping it.
WIDTH = 118


@dataclass(frozen=True, order=True)
class Difference:
    """Two sides that disagree about `what` of `who`: the first has `found`, the second `wanted`."""

    who: str
    what: str
    found: str
    wanted: str
    between: tuple[Side, Side]
    fix: str


@dataclass(frozen=True, order=True)
class NotAsked:
    """Somebody who gave no answer, and why: nothing is known of that side."""

    who: str
    why: str


@dataclass(frozen=True)
class Report:
    differences: tuple[Difference, ...]
    not_asked: tuple[NotAsked, ...]

    @property
    def exit_code(self) -> int:
        """2 when sides disagree; 4 when none do as far as seen, but not all could be asked; 0 when all agree.

        They are Ansible's own: a failed host, an unreachable one.
        """
        if self.differences:
            return DISAGREE
        return UNKNOWN if self.not_asked else AGREE

    def as_json(self) -> dict[str, Any]:
        return {
            "exit_code": self.exit_code,
            "differences": [asdict(one) | {"between": list(one.between)} for one in self.differences],
            "not_asked": [asdict(one) for one in self.not_asked],
        }

    def table(self) -> str:
        """Text, without blanks at the ends of lines: Ansible shows such text as it is, other text quoted."""
        if not self.differences and not self.not_asked:
            return "Inventory, hosts, cluster and chain agree."
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for name, share in (("who", 3), ("what", 5), ("found", 6), ("wanted", 6), ("what to do", 7)):
            table.add_column(name, overflow="fold", ratio=share)
        for one in self.differences:
            # Text, not markup: names come from a chain where anybody may write.
            cells = (
                one.who,
                one.what,
                f"{one.between[0]}: {one.found}",
                f"{one.between[1]}: {one.wanted}",
                one.fix,
            )
            table.add_row(*map(_plain, cells))
        for silent in self.not_asked:
            table.add_row(
                *map(
                    _plain,
                    (silent.who, "not asked", silent.why, "an answer", "run it again when that is mended"),
                )
            )
        console = Console(width=WIDTH, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(table)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _plain(text: str) -> Text:
    return Text("".join(c if c.isprintable() else "?" for c in text))
