"""What each run did and said, and what is true after it: asked from outside."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from testinfra.host import Host

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.store import MARKS

if TYPE_CHECKING:
    from conftest import Look, Story

# As in conftest.py.
STAYER, SLASHED = "worker-1", "worker-2"


def is_ready(node: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])


def test_the_backup_leaves_the_host_encrypted_and_the_cluster_goes_on(story: Story) -> None:
    run, at_backup = story.backup
    assert run.changed["master"] > 0
    content = story.fetched.read_bytes()
    assert content.startswith(b"age-encryption.org/v1")
    assert story.backup_in_clear not in content
    assert stat.S_IMODE(story.fetched.stat().st_mode) == 0o600
    assert set(at_backup.nodes) == {STAYER, SLASHED}


def test_no_run_shows_a_key_or_the_token(story: Story) -> None:
    said = story.backup[0].output + story.same[0].output + story.fresh[0].output
    assert "AGE-SECRET-KEY" not in said
    assert story.backup_in_clear.decode().strip() not in said


def test_while_it_is_not_finished_nobody_but_the_master_reaches_k3s(story: Story) -> None:
    """Killed where the slashed worker's node, which the backup has, may still be there."""
    assert f"node/{STAYER}" in story.killed_nodes
    assert (story.killed_answer, story.open_answer) == ("", "pong")


def after(story: Story, place: str) -> Look:
    return {"same host": story.same, "fresh host": story.fresh}[place][1]


@pytest.mark.parametrize("place", ["same host", "fresh host"])
class TestAfterEachRestore:
    def test_the_cluster_is_as_the_backup_has_it(self, story: Story, place: str) -> None:
        assert after(story, place).configmaps == {"note-before"}

    def test_the_agent_went_on_without_a_new_join(self, story: Story, place: str) -> None:
        found = after(story, place)
        assert is_ready(found.nodes[STAYER])
        assert found.agent == story.backup[1].agent
        assert found.nodes[STAYER]["metadata"]["uid"] == story.backup[1].nodes[STAYER]["metadata"]["uid"]

    def test_who_was_slashed_since_is_out_although_the_backup_has_its_node(
        self, story: Story, place: str
    ) -> None:
        found = after(story, place)
        assert set(found.nodes) == {STAYER}
        assert found.workers[SLASHED].status is WorkerStatus.SLASHED
        assert found.workers[STAYER].status is WorkerStatus.ACTIVE


@pytest.mark.usefixtures("story")
def test_the_slashed_workers_agent_tried_all_the_time_and_is_still_out(
    hosts: dict[str, Host], nodes: Callable[[], dict[str, dict[str, Any]]]
) -> None:
    assert hosts[SLASHED].run("systemctl is-active k3s-agent").stdout.strip() in ("activating", "active")
    assert set(nodes()) == {STAYER}


def test_every_event_was_handled_once(
    story: Story, events_between: Callable[[int, int], tuple[int, int]]
) -> None:
    """The restored follower read again what came after the backup: by number and by the sum of the marks,
    each event once."""
    (before, events, mark), (now, events_now, mark_now) = story.handled_before, story.handled
    found, marks = events_between(before, now)
    assert (events_now, mark_now) == (events + found, (mark + marks) % MARKS)
    assert events > 0


@pytest.mark.usefixtures("story")
def test_nothing_of_a_restore_is_left_under_way(hosts: dict[str, Host]) -> None:
    left = (
        hosts["master"]
        .run("ls -A /etc/rancher/k3s/config.yaml.d /var/lib/k3s-daas/backups | grep -v ^2")
        .stdout
    )
    assert [line for line in left.split() if "restor" in line or "incoming" in line or "draft" in line] == []
