"""What the playbooks that promote make of what hosts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import promotion, release
from k3s_daas.promotion import plan, way_back

OLD, NEW = "0123456789abcdef-v1.33.0+k3s1", "fedcba9876543210-v1.34.2+k3s1"


def record(name: str = OLD, ref: str = "v0.1.0") -> dict[str, str]:
    return {"name": name, "ref": ref, "k3s": name.partition("-")[2], "environment": "k3s-daas-cp311"}


def doctor(*findings: dict[str, Any], name: str | None = OLD) -> dict[str, Any]:
    report = {"release": None if name is None else record(name), "findings": list(findings)}
    return {"rc": 0, "stdout": json.dumps(report)}


def finding(level: str, **more: Any) -> dict[str, Any]:
    return {
        "check": "watcher",
        "level": level,
        "found": "it is silent",
        "cause": "broken",
        "fix": "mend it",
    } | more


def look(**changes: Any) -> dict[str, Any]:
    usual = {
        "deployed": True,
        "release": record(),
        "k3s_version": "v1.33.0+k3s1",
        "k3s_unfinished": False,
        "under_way": None,
        "way_back": None,
        "wanted": NEW,
        "wanted_k3s": "v1.34.2+k3s1",
    }
    return usual | changes


def way(**changes: Any) -> dict[str, Any]:
    usual = {
        "fresh": False,
        "release": record(),
        "k3s_version": "v1.33.0+k3s1",
        "replaces_k3s": False,
        "backup": "",
        "refusals": [],
    }
    return usual | changes


def judge(said: dict[str, Any], wanted: dict[str, str], number: int = 1) -> dict[str, Any]:
    return promotion.judge({host: {"round": 1, "said": one} for host, one in said.items()}, wanted, number)


class TestHealth:
    def test_a_fleet_that_is_well_runs_one_release(self) -> None:
        said = judge({"master": doctor(), "worker-1": doctor(finding("ok"), finding("warning"))}, {})
        assert (said["healthy"], said["release"], said["ref"]) == (True, OLD, "v0.1.0")
        assert said["lines"] == [f"{host}: {OLD} (v0.1.0): well" for host in ("master", "worker-1")]

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (doctor(finding("error")), "worker-1: watcher: it is silent (broken) -> mend it."),
            (doctor(finding("warning", coming=True)), "worker-1: watcher: it is silent (broken) -> mend it."),
            ({"unreachable": True, "msg": "no route"}, "worker-1: reachable: no ssh to this host"),
            (
                {"rc": 1, "stdout": "", "stderr": "Traceback\nModuleNotFoundError"},
                "it said Traceback ModuleNot",
            ),
            ({"rc": 2, "stdout": "[]"}, "doctor: it said []"),
            ({"rc": 2, "stdout": '{"findings": 3}'}, "doctor: it said"),
            ({"msg": "No such file: /opt/k3s-daas/venv/bin/k3s-daas"}, "doctor: it said No such file"),
            ({}, "doctor: it said nothing"),
        ],
    )
    def test_what_speaks_against_it_is_said(self, answer: dict[str, Any], why: str) -> None:
        said = judge({"master": doctor(), "worker-1": answer}, {})
        assert not said["healthy"]
        assert why in said["reasons"][0]
        assert any(line.startswith("worker-1: ") and why.removeprefix("worker-1: ").rstrip(".") in line
                   for line in said["lines"])  # fmt: skip

    def test_a_host_with_another_release_is_not_well(self) -> None:
        said = judge({"master": doctor(), "worker-1": doctor(), "worker-2": doctor(name=NEW)}, {})
        assert said["reasons"] == [f"worker-2: release: it runs {NEW}, not {OLD} -> promote.yml."]
        assert said["release"] == ""
        mixed = judge({"master": doctor(name=None), "worker-1": doctor()}, {"master": OLD, "worker-1": OLD})
        assert mixed["reasons"] == [
            f"master: release: it runs no recorded release, not {OLD} -> promote.yml."
        ]

    def test_each_may_run_what_it_is_to_run(self) -> None:
        wanted = {"master": OLD, "worker-1": ""}
        said = judge({"master": doctor(), "worker-1": doctor(name=None)}, wanted)
        assert (said["healthy"], said["release"]) == (True, "")
        assert not judge({"master": doctor()}, {"master": NEW})["healthy"]

    def test_an_answer_to_an_earlier_question_is_none(self) -> None:
        assert "no ssh to this host" in judge({"master": doctor()}, {}, 2)["reasons"][0]
        assert not promotion.judge({"master": {}}, {})["healthy"]

    def test_a_fleet_of_nobody_is_not_healthy(self) -> None:
        assert judge({}, {})["healthy"] is False

    @given(st.text(max_size=200), st.text(max_size=50))
    def test_nothing_that_a_host_says_breaks_it(self, stdout: str, stderr: str) -> None:
        assert judge({"master": {"rc": 0, "stdout": stdout, "stderr": stderr}}, {})["healthy"] is False


class TestPlan:
    def test_it_says_what_comes(self) -> None:
        found = plan({"master": look(), "worker-1": look(release=record(NEW), k3s_version="v1.34.2+k3s1")})
        assert found["lines"] == [
            f"master: {OLD} (v0.1.0) -> {NEW}, k3s v1.33.0+k3s1 -> v1.34.2+k3s1",
            f"worker-1: {NEW} (v0.1.0), again",
        ]
        assert (found["asked"], found["upgrades"]) == (["master", "worker-1"], ["master"])
        assert (found["under_way"], found["back"]) == (False, False)

    def test_a_fresh_host_is_not_asked_and_gets_no_upgrade(self) -> None:
        found = plan({"worker-1": look(deployed=False, release=None, k3s_version="")})
        assert found["lines"] == [f"worker-1: nothing -> {NEW}"]
        assert (found["asked"], found["upgrades"]) == ([], [])

    def test_an_upgrade_that_was_interrupted_is_finished(self) -> None:
        found = plan({"worker-1": look(k3s_version="v1.34.2+k3s1", k3s_unfinished=True)})
        assert found["upgrades"] == ["worker-1"]

    @pytest.mark.parametrize("back", [False, True])
    def test_a_fleet_on_its_way_is_not_asked_how_it_is(self, back: bool) -> None:
        found = plan({"master": look(), "worker-1": look(under_way={"to": "x", "back": back})})
        assert (found["asked"], found["under_way"], found["back"]) == ([], True, back)
        assert (
            "the way back was" in found["lines"][1] if back else "a promotion to x was" in found["lines"][1]
        )

    def test_a_record_that_is_none_is_said_to_be(self) -> None:
        assert "can't be read" in plan({"master": look(release={"name": "\x1b[2J"})})["lines"][0]
        assert "an unrecorded release" in plan({"master": look(release=None)})["lines"][0]


class TestWayBack:
    def test_each_host_goes_to_what_it_had(self) -> None:
        newer = look(release=record(NEW), k3s_version="v1.34.2+k3s1")
        found = way_back(
            {
                "master": newer | {"way_back": way(replaces_k3s=True, backup="/backups/1")},
                "worker-1": newer | {"way_back": way(release=None)},
                "worker-2": newer | {"way_back": way(fresh=True, refusals=[])},
                "worker-3": newer,
            }
        )
        assert found["hosts"] == ["master", "worker-1"]
        assert found["wanted"] == {"master": OLD, "worker-1": ""}
        assert found["lines"] == [
            f"master: {NEW} (v0.1.0) -> {OLD} (v0.1.0), k3s v1.34.2+k3s1 -> v1.33.0+k3s1",
            f"worker-1: {NEW} (v0.1.0) -> a release without a record",
            "worker-2: stays as it is, for nothing is kept of before",
            "worker-3: stays as it is, for nothing is kept of before",
        ]
        assert (found["backup"], found["k3s_version"]) == ("/backups/1", "v1.33.0+k3s1")
        assert found["refusals"] == []

    def test_what_is_in_the_way_is_said_of_each_host(self) -> None:
        found = way_back({"master": look(way_back=way(refusals=["Found a, wanted b."]))})
        assert found["refusals"] == ["master: Found a, wanted b."]

    def test_without_anything_kept_there_is_none(self) -> None:
        assert "Found no release from before" in way_back({"master": look()})["refusals"][0]


class TestRecord:
    def test_it_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        path = tmp_path / "release.json"
        assert release.read(path) is None
        path.write_text(json.dumps(record()))
        found = release.read(path)
        assert found is not None
        assert found.shown == f"{OLD} (v0.1.0)"
        path.write_text(json.dumps(record(ref="")))
        found = release.read(path)
        assert found is not None
        assert found.shown == OLD

    @pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps(record(name="no name"))])
    def test_anything_else_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "release.json").write_text(text)
        assert release.read(tmp_path / "release.json") is None
