"""The name of what a checkout deploys: the same for the same files, and another for any other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]
FILES = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements/hosts.txt",
    "roles/master/tasks/main.yml",
    "src/k3s_daas/cli.py",
    "playbooks/site.yml",
)


def make(folder: Path) -> Path:
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def content(run: Run, folder: Path) -> str:
    said = run("k3s_daas_release", project=str(folder))
    assert not said["failed"], said
    return str(said["content"])


def test_two_checkouts_of_the_same_are_one_release(run_module: Run, tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "elsewhere/two")
    name = content(run_module, one)
    assert len(name) == 16
    assert content(run_module, two) == name
    # What a run leaves there, and what is deployed to nobody.
    for path in ("roles/master/__pycache__/x.cpython-311.pyc", "src/k3s_daas.egg-info/PKG-INFO", "docs/x.md"):
        (two / path).parent.mkdir(parents=True, exist_ok=True)
        (two / path).write_text("x")
    assert content(run_module, two) == name


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_another_release(run_module: Run, tmp_path: Path, name: str) -> None:
    folder = make(tmp_path)
    before = content(run_module, folder)
    (folder / name).write_text("other")
    assert content(run_module, folder) != before


def test_a_moved_file_is_another_release(run_module: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    before = content(run_module, folder)
    (folder / "roles/master/tasks/main.yml").rename(folder / "roles/master/tasks/other.yml")
    assert content(run_module, folder) != before


def test_git_says_where_it_is(run_module: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "checkout")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    assert run_module("k3s_daas_release", project=str(folder))["ref"] == ""
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    assert run_module("k3s_daas_release", project=str(folder))["ref"] == "v1"
    (folder / "README.md").write_text("other")
    assert run_module("k3s_daas_release", project=str(folder))["ref"] == "v1-dirty"


def test_what_is_no_checkout_is_refused(run_module: Run, tmp_path: Path) -> None:
    said = run_module("k3s_daas_release", project=str(tmp_path))
    assert said["failed"]
    assert "Wanted the project's checkout at" in said["msg"]
