"""A host's release, kept and put back to the byte; killed in between, and what is in the way."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

OLD, NEW = "v1.33.0+k3s1", "v1.34.2+k3s1"


@dataclass
class Host:
    """A host's files below a temporary directory."""

    root: Path
    run: Callable[..., dict[str, Any]]

    def __call__(self, state: str = "looked", check: bool = False, **more: Any) -> dict[str, Any]:
        root = self.root
        places = {
            "folder": root / "kept here",
            "config": root / "etc/master.json",
            "record": root / "etc/release.json",
            "k3s": root / "bin/k3s",
            "environment": root / "opt/venv",
            "master_db": root / "master.db",
            "backups": root / "backups",
        }
        paths = [str(root / "etc/*.json"), str(root / "units/k3s*"), str(root / "units/*.wants/k3s*")]
        paths.append(str(root / "opt/venv"))
        given: dict[str, Any] = {name: str(path) for name, path in places.items()}
        given["datastore_keys"] = [str(root / "encryption.json")]
        return self.run("k3s_daas_way_back", check, state=state, paths=paths, **given | more)

    def well(self, state: str = "looked", **more: Any) -> dict[str, Any]:
        said = self(state, **more)
        assert not said["failed"], said
        return said

    def deploy(self, release: str, k3s: str = OLD, units: tuple[str, ...] = ("k3s-daas-a.service",)) -> None:
        """What a play would write."""
        for folder in ("etc", "bin", "opt", "units/x.wants"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        config = {"network": "localnet", "package_id": "0x1", "listens": release}
        (self.root / "etc/master.json").write_text(json.dumps(config))
        (self.root / "etc/master.json").chmod(0o640)
        (self.root / "etc/release.json").write_text(json.dumps({"name": release}))
        for path in (self.root / "units").glob("k3s*"):
            path.unlink()
        for unit in units:
            (self.root / "units" / unit).write_text(f"[Unit]\n# {release}\n")
        environment = self.root / "opt" / f"k3s-daas-{release}"
        environment.mkdir(exist_ok=True)
        new = self.root / "opt/new"
        new.symlink_to(f"k3s-daas-{release}/env")
        new.replace(self.root / "opt/venv")
        self.install(k3s)

    def install(self, version: str) -> None:
        new = self.root / "bin/k3s.new"
        new.write_text(f"#!/bin/sh\necho 'k3s version {version} (0123)'\n")
        new.chmod(0o755)
        new.replace(self.root / "bin/k3s")

    def files(self) -> dict[str, Any]:
        """All that a release writes, with modes."""
        found = {}
        for folder in ("etc", "units", "opt"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_symlink():
                    found[str(path)] = str(path.readlink())
                elif path.is_file():
                    found[str(path)] = f"{stat.S_IMODE(path.stat().st_mode):o} {path.read_text()}"
        return found

    def schema(self, number: int) -> None:
        with closing(sqlite3.connect(self.root / "master.db")) as db:
            db.execute(f"PRAGMA user_version={number}")
            db.commit()

    def backup(self, name: str, version: str, created_ms: int) -> None:
        folder = self.root / "backups" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"k3s_version": version, "created_ms": created_ms}))


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Host:
    return Host(tmp_path, run_module)


def test_a_look_changes_nothing(host: Host) -> None:
    said = host.well()
    assert (said["deployed"], said["release"], said["k3s_version"], said["way_back"]) == (
        False,
        None,
        "",
        None,
    )
    host.deploy("one")
    said = host.well()
    assert (said["deployed"], said["release"], said["k3s_version"]) == (True, {"name": "one"}, OLD)
    assert host("begun", check=True, to="two")["changed"] is False
    assert not (host.root / "kept here").exists()


def test_a_release_is_put_back_to_the_byte(host: Host) -> None:
    host.deploy("one", units=("k3s-daas-a.service", "k3s-daas-gone.timer"))
    (host.root / "units/x.wants/k3s-daas-a.service").symlink_to("../k3s-daas-a.service")
    before = host.files()
    assert host.well("begun", to="two")["changed"] is False
    host.deploy("two", units=("k3s-daas-a.service", "k3s-daas-new.service"))
    (host.root / "units/x.wants/k3s-daas-new.service").symlink_to("../k3s-daas-new.service")
    (host.root / "units/x.wants/k3s-daas-a.service").unlink()
    (host.root / "etc/master.json").chmod(0o666)
    way = host.well()["way_back"]
    assert way["units"] == ["k3s-daas-new.service"]
    assert (way["release"], way["replaces_k3s"], way["fresh"]) == ({"name": "one"}, False, False)
    said = host.well("back")
    assert said["changed"]
    assert str(host.root / "units/k3s-daas-new.service") in said["paths"]
    assert host.files() == before
    assert host.well("back")["changed"] is False
    assert host.well()["under_way"] == {"to": "two", "back": True}
    host.well("left")
    assert (host.well()["under_way"], host.well()["way_back"]) == (None, None)


def test_what_is_kept_is_for_root_alone(host: Host) -> None:
    host.deploy("one")
    host.well("begun", to="two")
    assert stat.S_IMODE((host.root / "kept here").stat().st_mode) == 0o700


def test_the_release_before_the_last_change_stays_for_a_way_back_by_hand(host: Host) -> None:
    host.deploy("one")
    before = host.files()
    host.well("begun", to="two")
    host.deploy("two")
    host.well("settled")
    # The same once more, which changes nothing but the record of where git has it.
    host.well("begun", to="two")
    (host.root / "etc/release.json").write_text(json.dumps({"name": "two", "ref": "later"}))
    assert host.well("settled")["changed"] is False
    assert host.well()["under_way"] is None
    assert host.well()["way_back"]["release"] == {"name": "one"}
    host.well("back")
    assert host.files() == before
    assert host.well()["under_way"] is not None, "until it is well"
    host.well("left")
    said = host("back")
    assert said["failed"]
    assert "Found no release from before; wanted one that was kept" in said["msg"]


def test_the_first_release_has_none_before_it(host: Host) -> None:
    host.well("begun", to="one")
    host.deploy("one")
    assert host.well()["way_back"]["fresh"]
    assert "Found no release from before" in host("back")["msg"]
    host.well("settled")
    assert host.well()["way_back"] is None


def test_a_run_that_was_killed_goes_back_to_what_it_began_with(host: Host) -> None:
    host.deploy("one")
    before = host.files()
    host.well("begun", to="two")
    host.deploy("two")
    # Of a run that was killed while it kept, or while it removed.
    for name in ("before.new", "gone"):
        (host.root / "kept here" / name).mkdir()
        (host.root / "kept here" / name / "k3s").write_text("half")
    host.well("begun", to="three")
    host.deploy("three")
    assert host.well()["under_way"] == {"to": "three", "back": False}
    host.well("back")
    assert host.files() == before
    assert sorted(path.name for path in (host.root / "kept here").iterdir()) == ["before"]


def test_k3s_is_kept_with_it(host: Host) -> None:
    host.deploy("one", OLD)
    host.well("begun", to="two")
    host.deploy("two", NEW)
    way = host.well()["way_back"]
    assert (way["replaces_k3s"], way["k3s_version"]) == (True, OLD)
    assert OLD in Path(way["program"]).read_text()
    assert host.well("back")["way_back"]["restarts_k3s"], "by a run that is killed before it did, too"
    host.install(OLD)
    assert host.well()["way_back"]["replaces_k3s"] is False
    assert host.well("back")["way_back"]["restarts_k3s"]


def test_where_nothing_of_k3s_changes_it_is_not_restarted(host: Host) -> None:
    host.deploy("one")
    host.well("begun", to="two")
    host.deploy("two")
    assert host.well("back")["way_back"]["restarts_k3s"] is False


def test_a_server_goes_back_with_the_backup_of_its_upgrade(host: Host) -> None:
    host.deploy("one", OLD)
    host.backup("of long ago", OLD, 1)
    host.well("begun", to="two")
    host.deploy("two", NEW)
    host.backup("by the new one", NEW, 9_000_000_000_001)
    assert "Found no backup in" in host(server=True)["way_back"]["refusals"][0]
    said = host("back", server=True)
    assert said["failed"]
    assert "Nothing was put back" in said["msg"]
    assert host.well()["under_way"] == {"to": "two", "back": False}
    host.backup("first", OLD, 9_000_000_000_000)
    host.backup("second", OLD, 9_000_000_000_002)
    assert host.well(server=True)["way_back"]["backup"] == str(host.root / "backups/second")
    assert host.well(server=True)["way_back"]["refusals"] == []
    (host.root / "encryption.json").write_text("another key")
    assert "they were rotated since" in host.well(server=True)["way_back"]["refusals"][0]
    # A worker has no datastore.
    shutil.rmtree(host.root / "backups")
    assert host.well()["way_back"]["refusals"] == []


def test_state_that_the_old_release_can_not_read_is_in_the_way(host: Host) -> None:
    host.deploy("one")
    host.schema(7)
    host.well("begun", to="two")
    host.deploy("two")
    host.well("back")
    host.schema(8)
    said = host("back")
    assert said["failed"]
    assert "with schema 8; wanted 7" in said["msg"]


def test_contracts_that_were_upgraded_since_are_in_the_way(host: Host) -> None:
    host.deploy("one")
    host.well("begun", to="two")
    host.deploy("two")
    path = host.root / "etc/master.json"
    path.write_text(path.read_text().replace("0x1", "0x2"))
    said = host("back")
    assert said["failed"]
    assert "Found another package_id" in said["msg"]
    # One that nobody can read says nothing.
    path.write_text("{")
    host.well("back")


def test_what_another_release_of_ours_kept_is_not_guessed_at(host: Host) -> None:
    host.deploy("one")
    host.well("begun", to="two")
    about = host.root / "kept here/before/about.json"
    about.write_text(about.read_text().replace('"format": 1', '"format": 2'))
    assert "has format 2, wanted 1" in host()["msg"]


def test_environments_that_nobody_goes_back_to_are_removed(host: Host) -> None:
    for number, (release, gone) in enumerate([("one", set()), ("two", set()), ("three", {"one"})]):
        host.well("begun", to=release)
        host.deploy(release)
        said = host.well("settled")
        assert {Path(path).name.removeprefix("k3s-daas-") for path in said["paths"]} == gone, number
    assert sorted(path.name for path in (host.root / "opt").iterdir()) == [
        "k3s-daas-three",
        "k3s-daas-two",
        "venv",
    ]


def test_on_another_file_system_the_binary_is_copied(
    host: Host, ansible_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    host.deploy("one")
    monkeypatch.setattr(os, "link", refuse)
    host.well("begun", to="two")
    host.install(NEW)
    program = Path(host.well()["way_back"]["program"])
    assert OLD in program.read_text()
    assert os.access(program, os.X_OK)


def test_an_upgrade_that_was_interrupted_is_seen(host: Host) -> None:
    host.deploy("one")
    assert host.well()["k3s_unfinished"] is False
    (host.root / "bin/k3s.previous").write_text("")
    assert host.well()["k3s_unfinished"] is True
