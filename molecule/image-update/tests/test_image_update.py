"""What each run did and said, and what is true after it: asked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nitro_standin.make_image import pcr0

if TYPE_CHECKING:
    from conftest import Step, Story

# As vars/main.yml has it.
INTERVAL_S = 15
SWITCHES = ("broken", "updated", "rolled_back", "taken_over")


def test_check_mode_shows_what_it_means_and_sends_nothing(story: Story) -> None:
    step = story.checked
    assert step.run.code == 0, step.run.output
    assert f"from image {pcr0('one')} to {pcr0('two')}" in step.run.words
    assert f"Lets whoever runs image {pcr0('two')}" in step.run.words
    assert (step.after.images, step.after.operator_mist) == (story.before.images, story.before.operator_mist)
    assert step.after.chain.master == story.before.chain.master


def test_an_image_that_never_comes_up_is_taken_back(story: Story) -> None:
    step = story.broken
    assert step.run.code != 0
    assert (
        f"Image {pcr0('broken')} did not become the master and anchor a snapshot within 12 s"
        in step.run.words
    )
    assert f"image {pcr0('one')} is the master again" in step.run.words
    assert (step.after.image, step.after.images) == (pcr0("one"), {pcr0("one")})
    assert step.after.chain.master.epoch > story.before.chain.master.epoch


def test_a_run_that_was_killed_is_finished_by_the_next(story: Story) -> None:
    step = story.updated
    assert step.run.code == 0, step.run.output
    assert step.after.image == pcr0("two")
    assert step.after.images == {pcr0("one"), pcr0("two")}
    assert "The old image can attest until" in step.run.words
    # The image was allowed before it was killed, and is not paid for twice.
    assert "Lets whoever runs" not in step.run.words


def test_after_the_grace_period_the_old_image_attests_no_more(story: Story) -> None:
    step = story.retired
    assert step.run.code == 0, step.run.output
    assert step.after.images == {pcr0("two")}
    assert step.after.chain.master.epoch == story.updated.after.chain.master.epoch


def test_a_rollback_brings_the_image_of_before_and_ends_the_other(story: Story) -> None:
    step = story.rolled_back
    assert step.run.code == 0, step.run.output
    assert (step.after.image, step.after.images) == (pcr0("one"), {pcr0("one")})


def test_the_image_that_was_left_registers_no_more(story: Story) -> None:
    assert "EImageNotAllowed" in story.refused or "has not allowed this image" in story.refused


@pytest.mark.parametrize("name", ["rolled_back_twice", "taken_over_twice"])
def test_the_second_run_changes_nothing(story: Story, name: str) -> None:
    step: Step = getattr(story, name)
    assert step.run.code == 0, step.run.output
    assert {host: n for host, n in step.run.changed.items() if n} == {}, step.run.output


def test_the_standby_goes_on_as_the_master(story: Story) -> None:
    step = story.taken_over
    assert step.run.code == 0, step.run.output
    assert "master is out of reach" in step.run.words
    assert step.after.chain.master.epoch > story.rolled_back.after.chain.master.epoch
    assert step.after.chain.master.endpoint != story.before.chain.master.endpoint


def test_no_switch_cost_more_than_the_interval(story: Story) -> None:
    steps: list[Step] = [story.broken, story.updated, story.rolled_back]
    assert [step.cost.loss_s for step in steps if step.cost.loss_s > INTERVAL_S] == []
    # Only an image that is taken back leaves nothing of its own behind: it never anchored a snapshot.
    assert (story.updated.cost.lost_later, story.rolled_back.cost.lost_later) == (0, 0)


def test_the_node_stayed_joined_with_its_keys(story: Story) -> None:
    for name in SWITCHES:
        after = getattr(story, name).after
        assert after.node["metadata"]["uid"] == story.before.node["metadata"]["uid"]
        assert after.chain.master.ca_hash == story.before.chain.master.ca_hash
        assert after.chain.master.account == story.before.chain.master.account
        # Taken over, the agent was led to the other address, which takes a restart of its own; not its pods'.
        kept = slice(3, None) if name == "taken_over" else slice(None)
        assert after.agent.splitlines()[kept] == story.before.agent.splitlines()[kept], name
