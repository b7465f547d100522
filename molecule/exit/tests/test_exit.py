"""What each run did and said, and what is left: asked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from testinfra.host import Host

import leftovers
from k3s_daas.registry import Deployment, WorkerStatus

if TYPE_CHECKING:
    from conftest import Story

SUI = 1_000_000_000
# As in conftest.py and molecule.yml.
LEAVER, STAYER = "worker-1", "worker-2"
WITHDRAWAL_ADDRESS = "0x" + "e7174".rjust(64, "0")


def ready_since(story_node: dict) -> tuple[str, str]:
    found = next(one for one in story_node["status"]["conditions"] if one["type"] == "Ready")
    return found["status"], found["lastTransitionTime"]


def test_check_mode_shows_what_it_means_and_touches_nothing(story: Story) -> None:
    run, after = story.checked
    assert run.code == 0, run.output
    for words in ("Begins to take worker-1 out of the fleet", "There is no way back", "Gas: about"):
        assert words in run.words
    assert after.wallet_mist == story.before.wallet_mist
    assert after.workers[LEAVER].status is WorkerStatus.ACTIVE
    assert after.units == story.before.units == "active\nactive\n"
    assert not after.nodes[LEAVER].get("spec", {}).get("unschedulable")


def test_a_killed_run_left_it_stopped_before_money_moved(story: Story) -> None:
    after = story.killed
    assert after.nodes[LEAVER]["spec"]["unschedulable"] is True
    assert after.units == "inactive\ninactive\n"
    # Offline is the most that the master says of it meanwhile.
    assert after.workers[LEAVER].status in (WorkerStatus.ACTIVE, WorkerStatus.OFFLINE)
    assert after.wallet_mist == story.before.wallet_mist


def test_the_stake_is_asked_for_and_the_node_taken_away_when_the_host_is_out_of_reach(story: Story) -> None:
    run, after = story.resumed
    assert run.code == 0, run.output
    assert run.changed == {"localhost": 1, "master": 1, "worker-1": 0}
    for words in (
        "worker-1 is out of reach",
        "Its stake is taken out all the same",
        "The stake of worker-1 is locked until 20",
    ):
        assert words in run.words
    assert set(after.nodes) == {STAYER}
    assert after.workers[LEAVER].status is WorkerStatus.UNBONDING
    assert after.workers[LEAVER].stake_mist == SUI
    assert "seal-token" in after.files


def test_after_the_window_the_stake_is_at_the_withdrawal_address(story: Story) -> None:
    run, after = story.left
    assert run.code == 0, run.output
    assert f"Pays 1 SUI, the stake of {LEAVER}, to {WITHDRAWAL_ADDRESS}" in run.words
    assert LEAVER not in after.workers
    assert (story.resumed[1].paid_back_mist, after.paid_back_mist) == (0, SUI)


def test_the_report_says_when_the_stake_can_be_withdrawn(story: Story) -> None:
    until_ms = story.resumed[1].workers[LEAVER].unbonding_until_ms
    assert story.reports == (
        {"node_id": LEAVER, "withdrawable_at_ms": until_ms},
        {"node_id": LEAVER, "withdrawable_at_ms": 0},
    )


def test_the_run_after_the_window_found_the_agent_stopped(story: Story) -> None:
    stopping = story.left[0].output.partition("TASK [wipe : Stop the agent and its pods for good]")[2]
    assert stopping.partition("TASK [")[0].split()[1:3] == ["ok:", "[worker-1]"]


def test_one_more_run_changes_nothing(story: Story) -> None:
    run, after = story.again
    assert run.code == 0, run.output
    assert run.changed == {"localhost": 0, "master": 0, "worker-1": 0}
    assert after.wallet_mist == story.left[1].wallet_mist


def test_the_other_worker_was_not_touched(story: Story) -> None:
    before, after = story.before, story.again[1]
    assert set(after.nodes) == {STAYER}
    assert ready_since(after.nodes[STAYER]) == ready_since(before.nodes[STAYER])
    assert ready_since(after.nodes[STAYER])[0] == "True"
    assert after.workers[STAYER] == before.workers[STAYER]
    assert after.workers[STAYER].status is WorkerStatus.ACTIVE


@pytest.mark.usefixtures("story")
def test_nothing_is_left_on_the_host(hosts: dict[str, Host]) -> None:
    assert leftovers.search(hosts[LEAVER]) == {}


def test_the_search_finds_a_worker(hosts: dict[str, Host], deployment: Deployment) -> None:
    """On the host that stayed the same questions have answers."""
    found = leftovers.search(hosts[STAYER])
    assert found.keys() >= leftovers.OF_EVERY_HOST
    assert deployment.registry_id in hosts[STAYER].check_output("cat /etc/k3s-daas/watcher.json")
