"""What was true in each outage, and that everything is after it as it was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from k3s_daas.registry import WorkerStatus

if TYPE_CHECKING:
    from conftest import Look, Story

# As in conftest.py.
CUT, OTHER, STRANGER = "worker-1", "worker-2", "stranger"
WORKERS = (CUT, OTHER)


class TestWithoutTheChain:
    def test_drift_says_that_it_can_not_know(self, story: Story) -> None:
        found = story.drift_without_chain
        assert (found.run.code, found.report["exit_code"]) == (4, 4), found.run.output
        assert found.differences == set()
        assert found.silent == {"chain"}

    def test_status_shows_what_the_master_last_saw(self, story: Story) -> None:
        run = story.status_without_chain
        assert run.code == 0, run.output
        for words in (
            "no answer; the master saw checkpoint",
            "2 of 2 Ready",
            "not read: chain: No Sui endpoint",
        ):
            assert words in run.words
        assert run.changed == {"localhost": 0, "master": 0} or run.changed == {"master": 0}

    def test_the_master_says_that_its_view_is_old(self, story: Story) -> None:
        assert story.readyz_when_stale["ready"] is False
        assert any(reason.startswith("chain") for reason in story.readyz_when_stale["reasons"])
        assert story.overview_when_stale["chain"]["fresh"] is False
        assert story.overview_when_stale["slashing"]["held_back"]

    def test_heartbeats_go_on(self, story: Story) -> None:
        overview = story.overview_when_stale
        row = next(one for one in overview["workers"] if one["node_id"] == OTHER)
        assert overview["generated_ms"] - row["last_heartbeat_ms"] < 15_000
        assert row["node_ready"] is True


class TestWithTheNetworkCut:
    def test_the_cut_worker_s_heartbeats_fail_and_its_agent_is_left_alone(self, story: Story) -> None:
        found = story.watcher_when_cut
        assert found["heartbeat"]["consecutive_failures"] >= 3
        assert found["agent"]["restarts"] == 0

    def test_drift_names_exactly_what_differs(self, story: Story) -> None:
        found = story.drift_when_cut
        assert (found.run.code, found.report["exit_code"]) == (2, 2), found.run.output
        assert {one for one in found.differences if one != (CUT, "status")} == {
            (CUT, "node"),
            (OTHER, "/etc/k3s-daas/watcher.json"),
            (STRANGER, "node"),
            ("registry", "unbonding_window_ms"),
        }
        assert found.silent == set()

    def test_drift_says_so_in_words(self, story: Story) -> None:
        for words in (
            f"Found {len(story.drift_when_cut.differences)} differences",
            "not Ready",
            "not staked",
        ):
            assert words in story.drift_when_cut.run.words

    def test_drift_mends_nothing(self, story: Story) -> None:
        assert story.tampered_file.endswith("}\n\n")

    def test_drift_and_status_send_nothing(self, story: Story) -> None:
        """With other terms in the inventory, too. Nobody else spends what the wallet holds."""
        assert story.after.wallet_mist == story.before.wallet_mist


class TestWithoutTheMaster:
    def test_drift_names_its_units_and_says_that_the_cluster_is_not_known(self, story: Story) -> None:
        found = story.drift_without_master
        assert found.run.code == 2, found.run.output
        assert found.differences == {("master", "k3s.service"), ("master", "k3s-daas-master.service")}
        assert found.silent == {"master"}

    def test_status_shows_what_the_chain_says(self, story: Story) -> None:
        run = story.status_without_master
        assert run.code == 4, run.output
        for words in (":8443, no answer", "1 SUI active 100", "was asked for from here"):
            assert words in run.words


@pytest.fixture(params=["healed", "after"])
def later(story: Story, request: pytest.FixtureRequest) -> Look:
    found: Look = getattr(story, request.param)
    return found


@pytest.mark.parametrize("name", WORKERS)
class TestNobodyIsPunished:
    def test_no_stake_is_touched_and_no_token(self, story: Story, later: Look, name: str) -> None:
        before, after = story.before.workers[name], later.workers[name]
        assert (after.stake_mist, after.owner, after.reputation) == (
            before.stake_mist,
            before.owner,
            before.reputation,
        )
        assert after.proposal is None

    def test_its_status_is_as_before(self, later: Look, name: str) -> None:
        assert later.workers[name].status is WorkerStatus.ACTIVE

    def test_no_agent_was_restarted(self, story: Story, later: Look, name: str) -> None:
        assert later.agents[name] == story.before.agents[name]

    def test_the_node_is_the_same(self, story: Story, later: Look, name: str) -> None:
        def identity(look: Look) -> Any:
            return look.nodes[name]["metadata"]["uid"], look.nodes[name].get("spec", {}).get("unschedulable")

        assert identity(later) == identity(story.before)


def test_the_worker_that_was_not_cut_off_stayed_ready(story: Story) -> None:
    def since(look: Look) -> str:
        conditions = look.nodes[OTHER]["status"]["conditions"]
        found: str = next(one["lastTransitionTime"] for one in conditions if one["type"] == "Ready")
        return found

    assert since(story.healed) == since(story.before)


def test_the_master_found_no_offence(later: Look) -> None:
    assert later.findings == []


def test_all_agree_again(story: Story) -> None:
    found = story.drift_after
    assert (found.run.code, found.report["exit_code"]) == (0, 0), found.run.output
    assert (found.differences, found.silent) == (set(), set())
    assert "Inventory, hosts, cluster and chain agree." in found.run.words
    assert set(found.run.changed.values()) == {0}
