"""docs/troubleshooting.md has all that `k3s-daas doctor` can print, and nothing that it can't."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from findings_kit import GAP, SOURCES, Told, findings
from page_kit import PROJECT

PAGE = PROJECT / "docs/troubleshooting.md"
#: What the playbook says of a host on which the doctor didn't run: playbooks/templates/doctor.txt.j2.
OF_THE_PLAYBOOK = {"reachable", "doctor"}


def rows() -> list[tuple[str, str, str]]:
    """(check, what is printed, why) of each finding on the page."""
    found = re.findall(r"^\| ([a-z-]+) \| (.+?) \| (.+?) \| .+? \|$", PAGE.read_text(), re.MULTILINE)
    return [one for one in found if one[0] != "check"]


def squeezed(text: str) -> str:
    return re.sub(f"{GAP}+", GAP, text)


def told_by(row: tuple[str, str, str], finding: Told) -> bool:
    check, printed, why = row
    whole = f"`{squeezed(printed.strip('`'))}`"
    own = {squeezed(text) for text in finding.found if text.strip(GAP)}
    # Where what was found is somebody else's words as a whole, the page says whose.
    others = GAP in finding.found and not printed.startswith("`")
    return (
        check == finding.check
        and (others or whole.strip("`") in own)
        and any(squeezed(cause) == squeezed(why) for cause in finding.cause)
    )


@pytest.mark.parametrize("finding", list(findings()), ids=lambda one: one.where)
def test_every_finding_is_on_the_page(finding: Told) -> None:
    wanted = f"| {finding.check} | {sorted(finding.found)} | {sorted(finding.cause)} |"
    assert any(told_by(row, finding) for row in rows()), f"{PAGE.name} has no row {wanted}"
    printed = {squeezed(row[1].strip("`")) for row in rows() if row[0] == finding.check}
    assert {squeezed(text) for text in finding.found if text.strip(GAP)} <= printed


@pytest.mark.parametrize("row", [one for one in rows() if one[0] not in OF_THE_PLAYBOOK], ids=" ".join)
def test_every_row_can_be_printed(row: tuple[str, str, str]) -> None:
    assert any(told_by(row, finding) for finding in findings())


def test_what_the_playbook_adds_is_there() -> None:
    template = (PROJECT / "playbooks/templates/doctor.txt.j2").read_text()
    assert set(re.findall(r"'error', '(\w+)'", template)) == OF_THE_PLAYBOOK
    assert {row[0] for row in rows()} >= OF_THE_PLAYBOOK


def test_every_cause_of_a_finding_has_a_row_of_its_own() -> None:
    """One `error(...)` may say one of several things: `a if x else b`."""
    whys = {(check, squeezed(why)) for check, _, why in rows()}
    for finding in findings():
        if finding.check == "endpoint":
            assert {(finding.check, cause) for cause in finding.cause} <= whys
    assert len([row for row in rows() if row[0] == "status"]) == 5


def test_the_source_is_read_whole() -> None:
    calls = sum(len(re.findall(r"\byield (?:error|warning|level)\(", path.read_text())) for path in SOURCES)
    assert len(list(findings())) == calls > 50


def test_a_finding_is_read_as_it_is_printed(tmp_path: Path) -> None:
    source = tmp_path / "checks_x.py"
    source.write_text(
        "WHY = 'because'\n"
        "def x(facts):\n"
        "    yield error('x', f'{facts.a} is {facts.b:.1f} s', WHY, 'mend it')\n"
        "    yield warning('y', facts.said, 'one' if facts.a else 'two', 'mend it')\n"
        "    found, why = facts.said, 'three'\n"
        "    yield warning('z', found, why, 'mend it', coming=True)\n"
    )
    one, two, three = findings([source])
    assert (three.check, three.found, three.cause) == ("z", {GAP}, {"three"})
    assert (one.check, one.found, one.cause) == ("x", {"… is … s"}, {"because"})
    assert (two.check, two.found, two.cause) == ("y", {GAP}, {"one", "two"})
