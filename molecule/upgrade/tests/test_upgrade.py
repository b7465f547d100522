"""What each run did and said, and what is left: asked from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from testinfra.host import Host

from k3s_daas.registry import WorkerStatus

if TYPE_CHECKING:
    from conftest import Look, Story

# As in conftest.py.
MARK = "k3s-daas-test/new-server"


def kubelet(look: Look) -> tuple[str, str]:
    """(version, Ready) of the worker's node."""
    status = look.nodes["worker-1"]["status"]
    ready = next(one["status"] for one in status["conditions"] if one["type"] == "Ready")
    return status["nodeInfo"]["kubeletVersion"], ready


def takes_pods(look: Look) -> bool:
    return not look.nodes["worker-1"].get("spec", {}).get("unschedulable", False)


def annotations(look: Look) -> dict[str, str]:
    return look.nodes["worker-1"]["metadata"].get("annotations", {})


def test_it_begins_at_the_older_one(story: Story) -> None:
    assert story.old != story.new
    assert kubelet(story.before) == (story.old, "True")
    assert all(f"k3s version {story.old} " in said for said in story.before.says.values())


def test_check_mode_shows_what_would_be_upgraded_and_touches_nothing(story: Story) -> None:
    run, after = story.checked
    assert run.code == 0, run.output
    for name in ("master", "worker-1"):
        assert f"{name}: {story.old} -> {story.new}" in run.words
    assert set(run.changed.values()) == {0}
    assert (after.says, after.files) == (story.before.says, story.before.files)


def test_a_server_that_dies_is_rolled_back_with_its_datastore(story: Story) -> None:
    run, after = story.server_died
    assert run.code != 0
    for words in (
        f"The server did not get ready with k3s {story.new}",
        f"It runs the previous {story.old} again, on the datastore of /var/lib/k3s-daas/backups/2",
        "The workers were not touched",
        "this k3s can't go on",
    ):
        assert words in run.words
    assert f"k3s version {story.old} " in after.says["master"]
    # On the worker the new one lies beside the old one, for the next run.
    assert after.files["master"] == story.before.files["master"]
    assert kubelet(after) == (story.old, "True")
    # The server that died wrote it before it said that it can't go on.
    assert MARK not in annotations(after)


def test_a_run_killed_at_the_server_left_it_stopped_and_new(story: Story) -> None:
    assert story.killed_at_server.split()[:2] == ["inactive", "inactive"]
    assert story.new in story.killed_at_server


def test_a_worker_that_does_not_come_up_is_rolled_back(story: Story) -> None:
    run, after = story.agent_died
    assert run.code != 0
    for words in (
        "master: ",
        "(a run was interrupted here)",
        f"worker-1 did not get Ready with k3s {story.new}",
        f"It runs the previous {story.old} again",
        "this k3s can't run here",
    ):
        assert words in run.words
    assert f"k3s version {story.new} " in after.says["master"]
    assert f"k3s version {story.old} " in after.says["worker-1"]
    assert after.files == story.before.files
    assert kubelet(after) == (story.old, "True")


def test_a_node_that_somebody_else_cordoned_stays_cordoned(story: Story) -> None:
    _, after = story.agent_died
    assert not takes_pods(after)
    assert "k3s-daas/upgrading" not in annotations(after)


def test_a_run_killed_at_the_worker_left_it_cordoned_and_marked(story: Story) -> None:
    after = story.killed_at_agent
    assert not takes_pods(after)
    assert annotations(after)["k3s-daas/upgrading"] == "true"
    assert "k3s.previous" in after.files["worker-1"]
    assert f"k3s version {story.new} " in after.says["worker-1"]


def test_the_next_run_finishes_it(story: Story) -> None:
    run, after = story.finished
    assert run.code == 0, run.output
    assert f"master: {story.new}, nothing to do" in run.words
    assert run.changed["master"] == 0
    assert kubelet(after) == (story.new, "True")
    assert takes_pods(after)
    assert "k3s-daas/upgrading" not in annotations(after)
    assert all(f"k3s version {story.new} " in said for said in after.says.values())
    assert after.files == story.before.files


def test_one_more_run_changes_nothing(story: Story) -> None:
    run, after = story.again
    assert run.code == 0, run.output
    assert run.changed == {"localhost": 0, "master": 0, "worker-1": 0}
    assert kubelet(after) == (story.new, "True")


def test_a_downgrade_is_refused(story: Story) -> None:
    run, after = story.back
    assert run.code != 0
    for name in ("master", "worker-1"):
        assert f"Found k3s {story.new} on {name}, wanted {story.old}, which is older" in run.words
    assert "Nothing was changed" in run.words
    assert set(run.changed.values()) == {0}
    assert (after.says, after.files) == (story.again[1].says, story.again[1].files)


def test_no_other_playbook_brings_another_version(story: Story) -> None:
    assert story.site_back.code != 0
    assert f"Found k3s {story.new} on master; wanted {story.old}, or none" in story.site_back.words
    assert "Run playbooks/upgrade.yml" in story.site_back.words


def test_it_was_active_all_the_time_and_nobody_held_it_against_it(
    story: Story, hosts: dict[str, Host]
) -> None:
    for look in (story.before, story.agent_died[1], story.killed_at_agent, story.back[1]):
        assert look.workers["worker-1"].status is WorkerStatus.ACTIVE
    watched = hosts["worker-1"].check_output("journalctl --no-pager --output=cat --unit=k3s-daas-watcher")
    assert "master found on-chain" in watched
    assert "restart requested" not in watched
    assert "agent_unhealthy" not in watched
    state = json.loads(hosts["worker-1"].check_output("cat /var/lib/k3s-daas-watcher/state.json"))
    assert state["restarts"] == 0
    served = hosts["master"].check_output("journalctl --no-pager --output=cat --unit=k3s-daas-master")
    assert "offence" not in served


def test_backups_are_for_root_alone(story: Story, hosts: dict[str, Host]) -> None:
    made = (
        hosts["master"].check_output("cd /var/lib/k3s-daas/backups && stat --format='%a %n' *").splitlines()
    )
    # Of the run that was rolled back, and of the one that was killed: the run after that took its.
    assert len(made) == 2
    assert {line.split()[0] for line in made} == {"700"}
