"""What each kill cost, and that it is the same cluster after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Story

# As in conftest.py.
INTERVAL_S, KILLS = 15, 3


def test_no_kill_cost_more_than_the_interval(story: Story) -> None:
    assert len(story.rounds) == KILLS
    assert [one.loss_s for one in story.rounds if one.loss_s > INTERVAL_S] == []
    # Or nobody wrote, and nothing was measured.
    assert any(one.lost for one in story.rounds)


def test_told_to_stop_it_loses_nothing(story: Story) -> None:
    """What was acknowledged before it was told to."""
    assert (story.stopped.lost, story.stopped.loss_s) == (0, 0)


def test_the_agent_stayed_joined(story: Story) -> None:
    for one in (*story.rounds, story.stopped):
        assert one.agent == story.agent
        assert one.node["metadata"]["uid"] == story.node["metadata"]["uid"]


def test_it_is_the_same_master_with_the_same_ca(story: Story) -> None:
    for one in (*story.rounds, story.stopped):
        assert (one.chain.master.account, one.chain.master.epoch, one.chain.master.ca_hash) == (
            story.chain.master.account,
            story.chain.master.epoch,
            story.chain.master.ca_hash,
        )


def test_snapshots_go_on_from_where_they_were(story: Story) -> None:
    counters = [one.chain.anchor.counter for one in (*story.rounds, story.stopped)]
    assert counters == sorted(set(counters))
    assert counters[0] > story.chain.anchor.counter


def test_an_older_snapshot_is_refused_and_k3s_does_not_start(story: Story) -> None:
    assert "Found snapshots up to number" in story.rolled_back
    assert "as anchored on-chain" in story.rolled_back
    assert story.k3s_then == "inactive"


def test_a_master_that_another_has_overtaken_serves_nobody_any_more(story: Story) -> None:
    assert "another master goes on from here" in story.overtaken
    assert not story.answers_then
    # Its next snapshot is begun within the interval; then k3s has to stop.
    assert story.ended_s < INTERVAL_S + 10


def test_on_an_overtaken_state_k3s_does_not_start_again(story: Story) -> None:
    assert story.started_then.startswith("inactive")
    assert "another master goes on from here; wanted a state that nobody has overtaken" in story.started_then


def test_the_parents_disk_has_no_token_in_clear(story: Story) -> None:
    assert story.server_token.count(":") >= 1
    assert story.secrets_found == ""
    assert all(name.endswith(".sealed") for name in story.stored)
