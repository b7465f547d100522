"""What comes from elsewhere comes with a hash: Python, npm, Debian's packages of the image."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
REQUIREMENTS = sorted((PROJECT / "requirements").glob("*.txt"))
LOCKS = sorted(
    path
    for top in ("localnet", "tests")
    for path in (PROJECT / top).rglob("package-lock.json")
    if "node_modules" not in path.parts
)
MAKEFILE = (PROJECT / "Makefile").read_text()


def unlocked(requirements: str) -> list[str]:
    """Lines of a requirements file that pin no exact version, or name no SHA-256."""
    joined = requirements.replace("\\\n", " ")
    lines = [line.partition(" #")[0].strip() for line in joined.splitlines()]
    wanted = re.compile(r"[\w.-]+(?:\[[\w,-]+\])?==[\w.!+-]+(?: *;[^-]*)?(?: +--hash=sha256:[0-9a-f]{64})+")
    return [line for line in lines if line and not line.startswith("#") and not wanted.fullmatch(line)]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_python_package_has_version_and_hash(path: Path) -> None:
    assert unlocked(path.read_text()) == []
    assert path.read_text().count("--hash=") > 3


@pytest.mark.parametrize(
    "line",
    [
        "httpx",
        "httpx>=0.28 --hash=sha256:" + "0" * 64,
        "httpx==0.28",
        "httpx==0.28 --hash=md5:" + "0" * 32,
        "-e .",
        "--index-url https://a.example",
        "httpx @ https://a.example/httpx.whl",
    ],
)
def test_another_line_is_seen(line: str) -> None:
    good = "anyio==4.16.0 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via httpx\n"
    assert unlocked(good + line) == [line]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_what_the_project_asks_for_is_locked(path: Path) -> None:
    """Each dependency that pyproject.toml names is in the file that its command makes of it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    made = next(line for line in path.read_text().splitlines() if "uv pip compile" in line).split()
    assert "--generate-hashes" in made
    asked = list(project["project"]["dependencies"]) if "pyproject.toml" in made else []
    for word, name in pairwise(made):
        asked += project["dependency-groups"][name] if word == "--group" else []
    assert asked
    locked = set(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", path.read_text(), re.MULTILINE))
    names = {re.split(r"[<>=!\[;~ ]", one)[0].lower().replace("_", "-") for one in asked}
    assert names - locked == set()


def test_every_command_that_locks_is_written_down() -> None:
    told = (PROJECT / "requirements/README.md").read_text()
    for path in REQUIREMENTS:
        made = next(line for line in path.read_text().splitlines() if "uv pip compile" in line)
        assert made.removeprefix("#").strip() in told, path.name


def test_hosts_and_control_node_run_the_same_versions() -> None:
    versions: dict[str, set[str]] = {}
    for name in ("hosts.txt", "dev.txt"):
        for package, version in re.findall(
            r"^([\w.-]+)==(\S+)", (PROJECT / "requirements" / name).read_text(), re.MULTILINE
        ):
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_npm_package_has_its_integrity(path: Path) -> None:
    lock = json.loads(path.read_text())
    wanted = json.loads((path.parent / "package.json").read_text())
    assert lock["lockfileVersion"] >= 3
    for group in ("dependencies", "devDependencies"):
        assert lock["packages"][""].get(group) == wanted.get(group)
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages
    for name, one in packages.items():
        assert re.match(r"sha512-[A-Za-z0-9+/]{86}==$", one.get("integrity", "")), name
        assert not one.get("link"), name


def test_every_lock_is_found() -> None:
    folders = {path.parent for top in ("localnet", "tests") for path in (PROJECT / top).rglob("package.json")}
    assert {path.parent for path in LOCKS} == {one for one in folders if "node_modules" not in one.parts}
    assert len(LOCKS) == 2


def test_make_installs_by_hash() -> None:
    recipes = MAKEFILE.replace("\\\n", " ")
    pip = [line.strip() for line in recipes.splitlines() if re.search(r"bin/pip|\(BIN\)/pip", line)]
    assert len(pip) >= 4
    for line in pip:
        # Our own two packages: no dependency comes with them, and the build's own back end is locked, too.
        ours = "--no-deps --no-build-isolation -e . -e localnet" in line
        assert ours or "--require-hashes" in line, line
    assert re.findall(r"\bnpm (?!ci )\w+", recipes) == []
    assert len(re.findall(r"\bnpm ci ", recipes)) == len(LOCKS)


def test_the_wheelhouse_is_of_hashes() -> None:
    """What hosts run is downloaded by hash here, and installed there without an index."""
    text = (PROJECT / "library/k3s_daas_wheelhouse.py").read_text()
    assert '"download", "--require-hashes", "--no-deps"' in text
    assert 'pip("install", "--no-index"' in text.replace("*how, ", "") or '["--no-index", "--no-deps"' in text


def test_the_images_packages_have_hashes() -> None:
    locks = sorted((PROJECT / "roles/enclave_image/files").glob("packages-*.json"))
    assert locks
    for path in locks:
        text = path.read_text()
        packages = json.loads(text)
        listed = packages["packages"] if isinstance(packages, dict) and "packages" in packages else packages
        assert len(listed) > 50
        assert len(re.findall(r'"[0-9a-f]{64}"', text)) >= len(listed)
