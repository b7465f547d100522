"""What each run did and said, and what is left: asked from outside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from testinfra.host import Host

import leftovers

if TYPE_CHECKING:
    from conftest import Story

    from controller_kit import Controller

# As in conftest.py.
WORKER = "worker-1"
OWN_RULE = "-A INPUT -s 192.0.2.1/32 -j DROP"
HOSTS = ("master", WORKER)


@pytest.mark.parametrize("name", HOSTS)
def test_the_search_found_all_kinds_of_clutter(story: Story, name: str) -> None:
    wanted = leftovers.OF_EVERY_HOST | leftovers.OF_PODS | {"failed units"}
    assert story.cluttered.left[name].keys() == wanted


def test_with_a_stake_left_it_names_the_worker_and_touches_nothing(story: Story) -> None:
    run, after = story.refused
    assert run.code != 0
    assert "Found a stake of worker-1 (active, 1.0 SUI); wanted all stakes taken out first" in run.words
    assert "playbooks/exit.yml" in run.words
    assert run.changed.get("master", 0) == run.changed.get(WORKER, 0) == 0
    assert after.services == "active\nactive\n"
    assert after.left["master"]["files"] == story.cluttered.left["master"]["files"]


def test_check_mode_says_what_would_be_lost_and_sends_nothing(story: Story) -> None:
    run, after = story.checked
    assert run.code == 0, run.output
    assert re.search(r"wallet 0x[0-9a-f]{64} holds [0-9]+ MIST: sent to 0x[0-9a-f]{64}", run.words)
    assert after.services == "active\nactive\n"
    assert after.master_mist > 0


def test_nothing_is_left_of_it_after_a_run_that_was_killed_and_another(story: Story) -> None:
    run, after = story.reset
    assert run.code == 0, run.output
    for name in HOSTS:
        assert after.left[name] == {}, name


def test_the_masters_gas_is_back_in_the_operators_wallet(story: Story) -> None:
    before, after = story.checked[1], story.reset[1]
    gone = before.master_mist - after.master_mist
    came = after.wallet_mist - before.wallet_mist
    assert after.master_mist < 5_000_000
    # Less the gas of sending it.
    assert gone - 10_000_000 < came <= gone


def test_one_more_run_changes_nothing(story: Story) -> None:
    run, after = story.again
    assert run.code == 0, run.output
    assert run.changed == {"master": 0, WORKER: 0} | ({"localhost": 0} if "localhost" in run.changed else {})
    assert after.wallet_mist == story.reset[1].wallet_mist


def test_what_is_the_hosts_own_stays(story: Story, hosts: dict[str, Host]) -> None:
    assert story.anew.code == 0, story.anew.output
    for name in HOSTS:
        assert OWN_RULE in hosts[name].check_output("iptables-save")


def test_a_new_site_yml_works(story: Story) -> None:
    assert story.anew.code == 0, story.anew.output
    ready = [one["status"] for one in story.nodes[WORKER]["status"]["conditions"] if one["type"] == "Ready"]
    assert (set(story.nodes), ready) == ({WORKER}, ["True"])


# --- as a controller's jobs ---------------------------------------------------------------------------------


def test_a_controller_finds_the_drift_and_names_it(story: Story) -> None:
    """callback_plugins/drift.py is there, too, where the controller says which callbacks there are."""
    assert story.drifted.code == 2, story.drifted.output
    assert "Found 1 differences; wanted none" in story.drifted.words
    assert "watcher.service" in story.drifted.words  # the table folds the rest of the path


def test_a_job_needs_no_home(story: Story) -> None:
    assert len(story.homes) == 3
    assert {name for names in story.homes for name in names} <= {".ansible"}


def test_no_job_told_a_key(story: Story, controller: Controller) -> None:
    output = "".join(run.output for run in (story.checked[0], story.anew, story.drifted))
    secrets = [controller.wallet.strip(), controller.key.splitlines()[1]]
    assert min(map(len, secrets)) > 30
    assert [secret[:4] for secret in secrets if secret in output] == []
