"""Directories and files of a role in one run: made once, mended when they differ, foretold in check mode."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]

ME, MINE = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def run(run_module: Run) -> Run:
    return functools.partial(run_module, "k3s_daas_files")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, Any]:
    return {
        "directories": [{"path": str(tmp_path / "etc"), "mode": "0750", "owner": ME}],
        "files": [
            {
                "path": str(tmp_path / "etc/config.json"),
                "content": '{"a": 1}\n',
                "mode": "0640",
                "group": MINE,
            },
            {"path": str(tmp_path / "etc/unit.service"), "content": "[Unit]\n"},
        ],
    }


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_everything_is_made_once(run: Run, wanted: dict[str, Any], tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        made = run(**wanted)
    finally:
        os.umask(old)
    etc = tmp_path / "etc"
    assert made["changed"]
    assert made["paths"] == [str(etc), str(etc / "config.json"), str(etc / "unit.service")]
    assert (etc / "config.json").read_text() == '{"a": 1}\n'
    assert [mode(etc), mode(etc / "config.json"), mode(etc / "unit.service")] == [0o750, 0o640, 0o644]
    assert sorted(path.name for path in etc.iterdir()) == ["config.json", "unit.service"]
    again = run(**wanted)
    assert (again["changed"], again["paths"], again["diff"]) == (False, [], [])


def test_only_what_differs_is_written(run: Run, wanted: dict[str, Any], tmp_path: Path) -> None:
    run(**wanted)
    config, unit = tmp_path / "etc/config.json", tmp_path / "etc/unit.service"
    config.write_text("another\n")
    kept = unit.stat().st_ino
    made = run(**wanted)
    assert made["paths"] == [str(config)]
    assert [(one["before"], one["after"]) for one in made["diff"]] == [("another\n", '{"a": 1}\n')]
    assert (config.read_text(), mode(config)) == ('{"a": 1}\n', 0o640)
    assert unit.stat().st_ino == kept


def test_directories_above_get_the_same_mode_and_those_that_are_there_keep_theirs(
    run: Run, tmp_path: Path
) -> None:
    tmp_path.chmod(0o711)
    made = run(directories=[{"path": str(tmp_path / "a/b/c"), "mode": "0700"}])
    assert made["paths"] == [str(tmp_path / "a/b/c")]
    assert [mode(tmp_path / name) for name in ("", "a", "a/b", "a/b/c")] == [0o711, 0o700, 0o700, 0o700]


@pytest.mark.parametrize("name", ["etc", "etc/config.json"])
def test_a_mode_is_mended(run: Run, wanted: dict[str, Any], tmp_path: Path, name: str) -> None:
    run(**wanted)
    before = mode(tmp_path / name)
    (tmp_path / name).chmod(0o777)
    assert run(**wanted)["paths"] == [str(tmp_path / name)]
    assert mode(tmp_path / name) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_is_mended_and_one_that_nobody_names_is_kept(
    run: Run, wanted: dict[str, Any], tmp_path: Path
) -> None:
    run(**wanted)
    etc, unit = tmp_path / "etc", tmp_path / "etc/unit.service"
    for path in (etc, unit):
        os.chown(path, 12345, 12345)
    unit.write_text("another\n")
    assert run(**wanted)["paths"] == [str(etc), str(unit)]
    assert (etc.stat().st_uid, etc.stat().st_gid) == (os.getuid(), 12345)
    assert (unit.stat().st_uid, unit.stat().st_gid) == (12345, 12345)


def test_check_mode_foretells_and_writes_nothing(run: Run, wanted: dict[str, Any], tmp_path: Path) -> None:
    # Neither the user nor the directory is there yet: earlier tasks of the run would make them.
    wanted["files"][0]["owner"] = "nobody-of-that-name"
    foretold = run(check=True, **wanted)
    assert foretold["changed"]
    assert len(foretold["paths"]) == 3
    assert foretold["diff"][1]["after"] == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_owner_is_named(run: Run, wanted: dict[str, Any], tmp_path: Path) -> None:
    wanted["files"][0]["owner"] = "nobody-of-that-name"
    failed = run(**wanted)
    assert failed["failed"]
    assert "nobody-of-that-name" in failed["msg"]
    assert not (tmp_path / "etc/config.json").exists()


def test_a_directory_is_never_replaced_by_a_file(run: Run, tmp_path: Path) -> None:
    failed = run(files=[{"path": str(tmp_path), "content": ""}])
    assert f"Found the directory {tmp_path}" in failed["msg"]
    (tmp_path / "file").touch()
    failed = run(directories=[{"path": str(tmp_path / "file")}])
    assert "which is no directory" in failed["msg"]


def test_a_missing_directory_is_named_and_nothing_is_left(run: Run, tmp_path: Path) -> None:
    failed = run(files=[{"path": str(tmp_path / "no/file"), "content": "a"}])
    assert failed["failed"]
    assert str(tmp_path / "no/file") in failed["msg"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_to_be_there_is_removed(run: Run, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to("nowhere")
    absent = [str(file), str(link), str(tmp_path / "never-was")]
    assert run(check=True, absent=absent)["paths"] == absent[:2]
    assert file.exists()
    assert run(absent=absent)["paths"] == absent[:2]
    assert list(tmp_path.iterdir()) == []
    assert not run(absent=absent)["changed"]


def test_a_directory_is_never_removed(run: Run, tmp_path: Path) -> None:
    assert f"Found the directory {tmp_path}" in run(absent=[str(tmp_path)])["msg"]
    assert tmp_path.is_dir()
