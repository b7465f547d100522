"""The tar that hosts get: whole, compiled, named by its content, built once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PROJECT_FILE = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "k3s-daas"
version = "0.1.0"
readme = "README.md"
[project.scripts]
k3s-daas = "k3s_daas:main"
[tool.hatch.build.targets.wheel]
packages = ["src/k3s_daas", "roles/master/files/k3s_daas_master", "roles/watcher/files/k3s_daas_watcher"]
"""


@pytest.fixture
def wheelhouse(ansible_module: Callable[[str], ModuleType]) -> ModuleType:
    return ansible_module("k3s_daas_wheelhouse")


@pytest.fixture
def project(wheelhouse: ModuleType, tmp_path: Path) -> Path:
    """A small project of the same shape."""
    folder = tmp_path / "project"
    for source in wheelhouse.SOURCES:
        (folder / source).mkdir(parents=True)
        (folder / source / "__init__.py").write_text("import needed\ndef main(): print(needed.WORD)\n")
    for name, text in (
        ("pyproject.toml", PROJECT_FILE),
        ("README.md", "About\n"),
        ("LICENSE", "Free\n"),
        ("hosts.txt", "needed==1 --hash=sha256:0\n"),
    ):
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def arguments(project: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "project": str(project),
        "requirements": str(project / "hosts.txt"),
        "cache_dir": str(tmp_path / "cache"),
        "python_version": PYTHON,
        "architecture": os.uname().machine,
    }


@pytest.fixture
def run(
    run_module: Run, wheelhouse: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str]
) -> Run:
    """The module, with a package index that has one package, `needed`."""
    real = wheelhouse.pip

    def pip(*words: str) -> None:
        if words[0] == "download":
            home = Path(words[words.index("--dest") + 1]).parent / "needed"
            home.mkdir()
            (home / "needed.py").write_text("WORD = 'found'\n")
            text = PROJECT_FILE.replace("k3s-daas", "needed").replace('readme = "README.md"\n', "")
            text = text.partition("[project.scripts]")[0]
            (home / "pyproject.toml").write_text(text)
            words = ("wheel", "--no-deps", "--no-build-isolation", "--no-index",
                     "--wheel-dir", words[words.index("--dest") + 1], str(home))  # fmt: skip
        real(*words)

    monkeypatch.setattr(wheelhouse, "pip", pip)
    return lambda **more: run_module("k3s_daas_wheelhouse", **arguments | more)


def install(tar: str, folder: Path) -> Path:
    """As the role runtime does it, and on this machine."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    unpack = ["tar", "--extract", "--gzip", "--ignore-zeros", "--file", tar, "--directory", folder]
    subprocess.run(unpack, check=True)
    return folder


def test_what_a_host_unpacks_runs(run: Run, tmp_path: Path) -> None:
    built = run()
    assert built["changed"], built
    environment = install(built["path"], tmp_path / "env")
    library = environment / f"lib/python{PYTHON}/site-packages"
    program = environment / "bin/k3s-daas"
    program.write_text(f"#!{environment}/bin/python\n" + program.read_text().partition("\n")[2])
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"
    for source in ("k3s_daas/__init__", "k3s_daas_master/__init__", "needed"):
        folder, _, stem = source.rpartition("/")
        assert list((library / folder / "__pycache__").glob(f"{stem}.*.pyc")), source
    assert not (library / "bin").exists()


def test_it_is_built_once_and_again_when_a_file_changes(run: Run, project: Path) -> None:
    first = run()
    again = run()
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["name"] == again["name"] == Path(again["path"]).name.removesuffix(".tar.gz")
    (project / "src/k3s_daas/__init__.py").write_text("def main(): pass\n")
    changed = run()
    assert changed["changed"]
    assert changed["name"] != first["name"]
    assert Path(first["path"]).exists()


def test_built_elsewhere_it_has_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first, second = run(), run(cache_dir=str(tmp_path / "another/cache"))
    assert first["changed"], first
    assert second["changed"], second
    assert first["path"] != second["path"]
    assert Path(first["path"]).read_bytes() == Path(second["path"]).read_bytes()


def test_check_mode_names_what_it_would_build(run: Run, tmp_path: Path) -> None:
    foretold = run(check=True)
    assert foretold["changed"]
    assert not (tmp_path / "cache").exists()
    assert run()["name"] == foretold["name"]


def test_another_python_compiles_for_itself(run: Run, tmp_path: Path) -> None:
    built = run(python_version="3.99")
    listed = subprocess.run(["tar", "tzif", built["path"]], capture_output=True, text=True, check=True).stdout
    assert "lib/python3.99/site-packages/needed.py" in listed.splitlines()
    assert ".pyc" not in listed


def test_a_missing_project_is_named(run: Run, tmp_path: Path) -> None:
    failed = run(project=str(tmp_path))
    assert f"Found no {tmp_path}/pyproject.toml" in failed["msg"]


def test_an_index_without_a_package_is_told_and_leaves_nothing(
    run_module: Run, arguments: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    failed = run_module("k3s_daas_wheelhouse", **arguments)
    assert "could not be built" in failed["msg"]
    assert "put a ready k3s-daas-cp" in failed["msg"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
