"""Which step from one k3s to another is taken, and in what words it is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.k3s_versions import Step, Version, plan, refusals

OLD, NEW = "v1.33.5+k3s1", "v1.34.2+k3s1"


def version(text: str) -> Version:
    return Version.parse(text)


class TestVersion:
    def test_they_are_ordered_as_released(self) -> None:
        released = [
            "v1.33.10+k3s1",
            "v1.34.0-rc1+k3s1",
            "v1.34.0-rc2+k3s1",
            "v1.34.0-rc10+k3s1",
            "v1.34.0+k3s-STAND-IN",
            "v1.34.0+k3s1",
            "v1.34.0+k3s2",
            "v1.34.9+k3s1",
            "v1.34.10+k3s1",
            "v1.34.10+k3s10",
            "v2.0.0+k3s1",
        ]
        assert sorted(map(version, reversed(released))) == [version(text) for text in released]

    @pytest.mark.parametrize(
        "text", ["", "1.34.2", "v1.34", "v1.34.2 ", "v1.34.2+rke2r1", "unknown", "v\uff11.2.3"]
    )
    def test_what_is_no_version_is_said_with_what_was_found(self, text: str) -> None:
        with pytest.raises(ValueError, match="wanted a version of k3s like") as caught:
            version(text)
        assert repr(text) in str(caught.value)

    @given(st.text(max_size=30))
    def test_any_text_is_a_version_or_refused(self, text: str) -> None:
        try:
            found = version(text)
        except ValueError:
            return
        assert found.text == text
        assert not found < found

    @given(
        st.lists(
            st.from_regex(r"v[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,6})?\+k3s[0-9]?", fullmatch=True)
        )
    )
    def test_any_versions_have_one_order(self, texts: list[str]) -> None:
        found = sorted(map(version, texts))
        assert all(one <= other for place, one in enumerate(found) for other in found[place:])


class TestRefusals:
    def asked(
        self, server: tuple[str, str], agent: tuple[str, str], others: dict[str, str] | None = None
    ) -> list[str]:
        steps = [Step(name, version(a), version(b)) for name, (a, b) in (("master", server), ("w", agent))]
        return refusals(steps[0], steps[1:], {k: version(v) for k, v in (others or {}).items()})

    @pytest.mark.parametrize(
        ("server", "agent"),
        [
            ((OLD, NEW), (OLD, NEW)),
            # The server is there already; an agent may catch up over several minor versions.
            ((NEW, NEW), ("v1.31.0+k3s1", NEW)),
            ((NEW, "v1.34.2+k3s2"), (NEW, "v1.34.2+k3s2")),
            ((NEW, NEW), (NEW, NEW)),
        ],
    )
    def test_steps_that_are_taken(self, server: tuple[str, str], agent: tuple[str, str]) -> None:
        assert self.asked(server, agent) == []

    @pytest.mark.parametrize("older", [OLD, "v1.34.1+k3s9", "v1.34.2-rc1+k3s1", "v1.34.2+k3s-STAND-IN"])
    def test_no_way_back(self, older: str) -> None:
        (on_master, on_worker) = self.asked((NEW, older), (NEW, older))
        assert f"Found k3s {NEW} on master, wanted {older}, which is older" in on_master
        assert f"Found k3s {NEW} on w, wanted {older}, which is older" in on_worker

    def test_one_minor_version_at_a_time(self) -> None:
        (found,) = self.asked(("v1.32.9+k3s1", NEW), ("v1.32.9+k3s1", NEW))
        assert "more than one minor version at once" in found
        assert "the last release of v1.33." in found
        assert self.asked((NEW, "v2.0.0+k3s1"), (NEW, "v2.0.0+k3s1"))

    def test_no_agent_gets_newer_than_its_server(self) -> None:
        (found,) = self.asked((OLD, OLD), (OLD, NEW))
        assert f"Found k3s {NEW} as what w shall get, and {OLD} for master" in found

    def test_a_node_that_stays_is_neither_newer_nor_too_old(self) -> None:
        others = {"ahead": "v1.34.3+k3s1", "behind": "v1.30.14+k3s1", "well": "v1.31.0+k3s1"}
        ahead, behind = self.asked((OLD, NEW), (OLD, NEW), others)
        assert "Found node ahead at k3s v1.34.3+k3s1" in ahead
        assert "Found node behind at k3s v1.30.14+k3s1, more than 3 minor versions behind" in behind

    def test_an_agent_too_old_for_the_server(self) -> None:
        (found,) = self.asked((OLD, NEW), ("v1.30.14+k3s1", NEW))
        assert "Found node w at k3s v1.30.14+k3s1" in found


def look(**changes: Any) -> dict[str, Any]:
    """What look.py says of a worker that runs the old one."""
    return {
        "wanted": {"version": NEW, "sha256": "new"},
        "installed": {"version": OLD, "sha256": "old"},
        "unfinished": False,
        "running": None,
        "detail": "",
        "nodes": None,
        **changes,
    }


def node(**changes: Any) -> dict[str, Any]:
    return {"version": OLD, "ready": True, "cordoned": "", **changes}


INSTALLED = {"version": NEW, "sha256": "new"}


def planned(
    master: dict[str, Any] | None = None, nodes: dict[str, Any] | None = None, **workers: dict[str, Any]
) -> dict[str, Any]:
    """The plan for a master and the workers w1 and w2, that run the old one but for what is given."""
    cluster = {"w1": node(), "w2": node()} | (nodes or {})
    looks = {
        "master": look(running=OLD, nodes=cluster) | (master or {}),
        "w1": look(),
        "w2": look(),
    } | workers
    before = copy.deepcopy(looks)
    found = plan(looks, "master")
    assert looks == before
    return found


class TestPlan:
    def test_everything_is_upgraded(self) -> None:
        found = planned()
        assert found["refusals"] == []
        assert found["staged"] == found["upgraded"] == ["master", "w1", "w2"]
        assert found["lines"][0] == f"master: {OLD} -> {NEW}"

    def test_what_has_it_is_left_alone(self) -> None:
        found = planned(
            {"installed": INSTALLED, "running": NEW},
            {"w1": node(version=NEW)},
            w1=look(installed=INSTALLED),
        )
        assert (found["staged"], found["upgraded"]) == (["w2"], ["w2"])
        assert found["lines"][:2] == [f"master: {NEW}, nothing to do", f"w1: {NEW}, nothing to do"]

    def test_another_build_of_the_same_version_is_brought(self) -> None:
        rebuilt = {"version": NEW, "sha256": "other"}
        found = planned(
            {"installed": rebuilt, "running": NEW},
            {name: node(version=NEW) for name in ("w1", "w2")},
            w1=look(installed=INSTALLED),
            w2=look(installed=INSTALLED),
        )
        assert (found["refusals"], found["staged"], found["upgraded"]) == ([], ["master"], ["master"])
        assert found["lines"][0] == f"master: {NEW} -> {NEW} (another build of it)"

    def test_a_binary_that_was_replaced_and_not_started_is_started(self) -> None:
        found = planned(w1=look(installed=INSTALLED))
        assert (found["staged"], found["upgraded"]) == (["master", "w2"], ["master", "w1", "w2"])

    def test_an_interrupted_run_is_finished_and_said(self) -> None:
        done = {"installed": INSTALLED, "running": NEW, "unfinished": True}
        found = planned(
            done, {"w1": node(version=NEW, ready=False)}, w1=look(installed=INSTALLED, unfinished=True)
        )
        assert found["refusals"] == []
        assert (found["staged"], found["upgraded"]) == (["w2"], ["master", "w1", "w2"])
        assert found["lines"][0] == f"master: {NEW} -> {NEW} (a run was interrupted here)"

    def test_a_server_that_an_interrupted_run_stopped_is_no_hindrance(self) -> None:
        found = planned({"running": None, "nodes": None, "unfinished": True})
        assert found["refusals"] == []
        assert found["upgraded"] == ["master", "w1", "w2"]

    def test_a_server_that_is_down_is_said_with_its_words(self) -> None:
        (found,) = planned({"running": None, "nodes": None, "detail": "connection refused"})["refusals"]
        assert "Found no answer of the API server on master (connection refused)" in found

    def test_only_the_cordon_of_an_interrupted_run_is_taken_back(self) -> None:
        cluster = {"w1": node(version=NEW, cordoned="upgrade"), "w2": node(version=NEW, cordoned="other")}
        found = planned(
            {"installed": INSTALLED, "running": NEW},
            cluster,
            w1=look(installed=INSTALLED),
            w2=look(installed=INSTALLED),
        )
        assert (found["refusals"], found["upgraded"], found["uncordoned"]) == ([], [], ["w1"])
        assert found["lines"][1] == f"w1: {NEW}, nothing to do, but to uncordon it"

    def test_every_host_is_there(self) -> None:
        gone = {"unreachable": "Failed to connect\n to it"}
        found = planned(w1=gone, w2=gone)
        assert found["upgraded"] == []
        assert [words.partition(";")[0] for words in found["refusals"]] == [
            f"{name} is out of reach (Failed to connect to it)" for name in ("w1", "w2")
        ]

    def test_every_node_is_ready_before(self) -> None:
        found = planned(nodes={"w1": node(ready=False)})["refusals"]
        assert [words.partition(",")[0] for words in found] == ["Found node w1 not Ready"]

    def test_every_worker_is_in_the_cluster(self) -> None:
        (found,) = planned(w3=look())["refusals"]
        assert "Found no node w3 in the cluster" in found
        assert "-e upgrade_workers=NAME,NAME" in found

    def test_k3s_is_installed_everywhere(self) -> None:
        (found,) = planned(w1=look(installed=None))["refusals"]
        assert "Found no k3s on w1" in found

    def test_a_version_that_is_none_is_said_with_its_host(self) -> None:
        looks = {"master": look(running="nonsense", nodes={})}
        (found,) = plan(looks, "master")["refusals"]
        assert found == "master: found 'nonsense', wanted a version of k3s like v1.34.2+k3s1."

    def test_nodes_that_are_left_out_count(self) -> None:
        (found,) = planned(nodes={"gpu": node(version="v1.35.0+k3s1")})["refusals"]
        assert "Found node gpu at k3s v1.35.0+k3s1" in found
