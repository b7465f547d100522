"""The public CI's file: what it runs is pinned, and it may read the code and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.y*ml"))


def loose(text: str) -> list[str]:
    """Actions that aren't pinned by a full commit, with the version it stands for in a comment."""
    used = re.findall(r"^\s*(?:- )?uses: *(.*)$", text, re.MULTILINE)
    return [one for one in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)]


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load(path.read_text())["jobs"].items()


def test_there_is_one() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
class TestEach:
    def test_every_action_is_pinned(self, path: Path) -> None:
        assert loose(path.read_text()) == []
        assert "uses:" in path.read_text()

    def test_it_may_read_the_code_alone(self, path: Path) -> None:
        assert yaml.safe_load(path.read_text())["permissions"] == {}
        for name, job in jobs(path):
            assert job["permissions"] == {"contents": "read"}, name
        assert "secrets." not in path.read_text()

    def test_it_gives_no_stranger_the_rights_of_the_repository(self, path: Path) -> None:
        # YAML 1.1 reads `on` as true.
        assert set(yaml.safe_load(path.read_text())[True]) <= {"push", "pull_request"}

    def test_no_token_stays_in_the_checkout(self, path: Path) -> None:
        checkouts = [
            step
            for _, job in jobs(path)
            for step in job["steps"]
            if step.get("uses", "").startswith("actions/checkout@")
        ]
        assert checkouts
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)

    def test_it_ends(self, path: Path) -> None:
        assert all(0 < job["timeout-minutes"] <= 90 for _, job in jobs(path))

    def test_nothing_of_an_event_is_put_into_a_shell(self, path: Path) -> None:
        for _, job in jobs(path):
            assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []


def test_it_runs_what_ci_runs_in_a_debian_12() -> None:
    steps = [step.get("run", "") for _, job in jobs(WORKFLOWS[0]) for step in job["steps"]]
    (tests,) = [run for run in steps if run.startswith("docker run")]
    assert re.search(r"node:\d+-bookworm \.ci/run$", tests)
    for needed in ("--privileged", "--cgroupns=host", "/sys/fs/cgroup:/sys/fs/cgroup:rw"):
        assert needed in tests
    assert (PROJECT / ".ci/run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "line",
    [
        "actions/checkout@v7",
        "actions/checkout@main # v7.0.1",
        "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1",
        "actions/checkout@3d3c42e # v7.0.1",
        "docker://debian:12",
        "./.github/actions/mine",
    ],
)
def test_a_loose_action_is_seen(line: str) -> None:
    assert loose(f"    steps:\n      - uses: {line}\n") == [line]
