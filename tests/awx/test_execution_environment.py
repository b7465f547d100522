"""execution-environment.yml and what it installs. That jobs run with it shows molecule/reset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from reach import PROJECT, load


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    found: dict[str, Any] = load(PROJECT / "execution-environment.yml")
    return found


def locked(name: str) -> dict[str, str]:
    text = (PROJECT / "requirements" / name).read_text()
    assert "--hash=sha256:" in text
    return dict(re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE))


def test_the_files_it_takes_are_there(described: dict[str, Any]) -> None:
    taken = [one["src"] for one in described["additional_build_files"]] + [
        described["dependencies"]["galaxy"]
    ]
    assert [name for name in taken if not (PROJECT / name).is_file()] == []


def test_what_the_steps_copy_was_taken(described: dict[str, Any]) -> None:
    taken = {f"_build/{one['dest']}/{Path(one['src']).name}" for one in described["additional_build_files"]}
    steps = [step for steps in described["additional_build_steps"].values() for step in steps]
    assert {word for step in steps for word in step.split() if word.startswith("_build/")} == taken


def test_python_comes_with_hashes_only(described: dict[str, Any]) -> None:
    assert {"python", "ansible_core", "ansible_runner"} & set(described["dependencies"]) == set()
    (step,) = (step for step in described["additional_build_steps"]["append_base"] if " pip install " in step)
    assert "--require-hashes" in step


def test_it_has_the_versions_that_the_tests_have() -> None:
    tested = locked("dev.txt") | locked("aws.txt")
    assert {name: (version, tested.get(name)) for name, version in locked("ee.txt").items()
            if tested.get(name) != version} == {}  # fmt: skip
    assert {"ansible-core", "ansible-runner", "hatchling", "pysui", "sui-sandbox", "boto3"} <= set(
        locked("ee.txt")
    )


def test_a_job_takes_this_project_s_code_out_of_its_checkout(described: dict[str, Any]) -> None:
    (path,) = (
        step.removeprefix("ENV PYTHONPATH=")
        for step in described["additional_build_steps"]["append_final"]
        if step.startswith("ENV PYTHONPATH=")
    )
    folders = [PROJECT / Path(one).relative_to("/runner/project") for one in path.split(":")]
    assert [(folder / package).is_dir() for folder, package in
            zip(folders, ("k3s_daas", "k3s_daas_localnet"), strict=True)] == [True, True]  # fmt: skip
