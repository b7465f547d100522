"""What each run did and said, and what is left: asked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testinfra.host import Host

from k3s_daas.registry import WorkerStatus

if TYPE_CHECKING:
    from conftest import Look, Story


def ready(look: Look) -> tuple[str, str]:
    """(version, Ready) of the worker's node."""
    status = look.nodes["worker-1"]["status"]
    found = next(one["status"] for one in status["conditions"] if one["type"] == "Ready")
    return status["nodeInfo"]["kubeletVersion"], found


def name(look: Look) -> str:
    """The one release of the fleet."""
    (found,) = {record["name"] for record in look.release.values()}
    return found


def is_as_before(look: Look, before: Look) -> None:
    """Configuration, units, environment and k3s to the byte; and nobody paid or lost anything."""
    assert look.files == before.files
    assert look.release == before.release
    assert look.operator_mist == before.operator_mist
    assert look.workers["worker-1"].status is WorkerStatus.ACTIVE
    assert look.workers["worker-1"].stake_mist == before.workers["worker-1"].stake_mist
    assert look.workers["worker-1"].proof_id == before.workers["worker-1"].proof_id
    assert ready(look) == ready(before)
    assert look.watcher == "ok"
    assert look.registrations == before.registrations
    assert look.cursor >= before.cursor


def test_it_begins_with_a_healthy_release_that_promote_deployed(story: Story) -> None:
    assert ready(story.before) == (story.old, "True")
    assert name(story.before).endswith(f"-{story.old}")
    assert story.before.recorded == name(story.before)


def test_a_master_that_does_not_start_is_rolled_back(story: Story) -> None:
    run, after = story.master_ends
    assert run.code != 0
    for words in (
        "is not healthy on local",
        "Unable to restart service k3s-daas-master.service",
        "/etc/k3s-daas/master.yaml",  # of its last words
        f"master, worker-1 went back to {name(story.before)}. It is well.",
    ):
        assert words in run.words
    is_as_before(after, story.before)
    assert after.recorded == name(story.before)


def test_a_watcher_that_nobody_hears_is_rolled_back_with_the_k3s_that_came_with_it(story: Story) -> None:
    run, after = story.unheard
    assert run.code != 0
    for words in (
        f"k3s {story.old} -> {story.new}",
        "worker-1: watcher: the watcher says: not_found",  # the master's answer to what it sends
        "on the datastore of /var/lib/k3s-daas/backups/2",
        f"went back to {name(story.before)}",
        "It is well.",
    ):
        assert words in run.words
    is_as_before(after, story.before)


def test_check_mode_shows_what_would_come(story: Story) -> None:
    run = story.checked
    assert run.code == 0, run.output
    assert f"worker-1: {name(story.before)}" in run.words
    assert f"k3s {story.old} -> {story.new}" in run.words
    assert run.changed["master"] > 0
    assert run.changed["localhost"] == 0


def test_a_run_that_was_killed_is_finished_by_the_next(story: Story) -> None:
    assert ready(story.killed) == (story.new, "True")
    # The worker's record comes last.
    assert story.killed.release["worker-1"] == story.before.release["worker-1"]
    run, after = story.good
    assert run.code == 0, run.output
    assert "was interrupted here" in run.words
    assert name(after).endswith(f"-{story.new}")
    assert f"{name(after)} is healthy on local" in run.words
    assert after.recorded == name(after)
    assert ready(after) == (story.new, "True")
    assert after.watcher == "ok"
    assert after.operator_mist == story.before.operator_mist


def test_one_more_run_changes_nothing(story: Story) -> None:
    run, after = story.again
    assert run.code == 0, run.output
    assert run.changed == {"localhost": 0, "master": 0, "worker-1": 0}
    assert after.files == story.good[1].files


def test_health_names_the_release_of_each_host(story: Story) -> None:
    assert story.health.code == 0, story.health.output
    for host in ("master", "worker-1"):
        assert f"{host}: {name(story.good[1])}" in story.health.words
    assert set(story.health.changed.values()) == {0}


def test_a_way_back_in_time_wants_a_confirmation(story: Story) -> None:
    assert story.refused.code != 0
    assert "what was made in the cluster since is lost" in story.refused.words
    assert "-e confirm=local" in story.refused.words
    assert set(story.refused.changed.values()) == {0}


def test_the_way_back_by_hand_leads_over_a_killed_run_to_the_first_release(story: Story) -> None:
    run, after = story.back
    assert run.code == 0, run.output
    is_as_before(after, story.before)
    assert after.recorded == name(story.before)


def test_nothing_is_left_of_a_promotion(story: Story, hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        assert host.check_output("ls -A /var/lib/k3s-daas/release") == ""
        assert host.check_output("ls /usr/local/bin | grep k3s") == "k3s"
