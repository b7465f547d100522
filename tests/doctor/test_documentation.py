"""docs/doctor.md names every check, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from k3s_daas.doctor import checks_chain, checks_host, checks_worker

REPOSITORY = Path(__file__).parents[2]


def test_every_check_is_in_the_table() -> None:
    page = (REPOSITORY / "docs/doctor.md").read_text()
    told = set(re.findall(r"^\| ([a-z-]+) \| ", page.split("## Findings")[1], re.M)) - {"check"}
    sources = "".join(inspect.getsource(module) for module in (checks_chain, checks_host, checks_worker))
    made = set(re.findall(r"\b(?:ok|error|warning|level)\(\s*\"([a-z-]+)\"", sources))
    assert told == made
