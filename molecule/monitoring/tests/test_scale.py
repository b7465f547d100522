"""The fleet grows for a queue and shrinks without one: an operator's runs, one of them killed."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from k3s_daas import seal
from k3s_daas.chain import Key, SuiClient
from k3s_daas.registry import Deployment, Registry, StakeRequest, WorkerStatus
from k3s_daas.registry.operation import carry_out
from k3s_daas.registry.requests import MIN_DEPOSIT_MIST, plan_request
from pages import told
from scenario import STAGE, Chain, Run, play, play_killed_at
from stage.stage import Stage
from testhosts import cgroups

JOURNAL = "/var/lib/k3s-daas/scaling.json"
NEW = "worker-2"
SUI = 1_000_000_000


def scale(
    command: tuple[str, ...] = told("docs/scaling.md", "playbooks/scale.yml"), **changes: Any
) -> tuple[str, ...]:
    """What an operator types; two requests are too much for one worker."""
    wanted = {"scale_requests_per_worker": 1, "scale_cooldown_up_s": 0, "scale_cooldown_down_s": 0, **changes}
    return *command, f"--extra-vars={json.dumps(wanted)}"


def hosts_now() -> set[str]:
    return set(json.loads((STAGE / "stage.json").read_text())["hosts"])


def running(stage: dict[str, Any]) -> set[str]:
    """Hosts that have processes, whatever the stage's description says."""
    made = Stage(stage["name"], ipaddress.IPv4Network(stage["subnet"]))
    places = {
        name: made.fleet.host(name, made.address(name)) for name in ("master", "monitor", "worker-1", NEW)
    }
    return {name for name, host in places.items() if cgroups.processes(host.cgroup)}


@asynccontextmanager
async def wallet(stage: dict[str, Any], deployment: Deployment) -> AsyncIterator[Registry]:
    """The registry with the operator's key."""
    key = Key.load(stage["wallet"])
    async with await SuiClient.connect([stage["rpc"]], "localnet", key, stage["chain_id"]) as chain:
        yield Registry(chain, deployment)


async def submit(stage: dict[str, Any], deployment: Deployment, number: int) -> None:
    """As many requests of the operator's, whose bodies never come: they stay open for ten minutes."""
    async with wallet(stage, deployment) as registry:
        for place in range(number):
            payload = hashlib.sha256(bytes([place])).digest()
            _, _, operation = await plan_request(registry, payload, 0, MIN_DEPOSIT_MIST, ["worker-1"])
            await carry_out(registry.chain, operation)


async def stake(stage: dict[str, Any], deployment: Deployment) -> None:
    """What workers.yml does on-chain for the new worker."""
    async with wallet(stage, deployment) as registry:
        expires_ms = await registry.clock_ms() + 3_600_000
        wanted = StakeRequest(NEW, seal.commitment(seal.make()), SUI, expires_ms)
        await registry.stake([wanted], registry.chain.require_address())


async def take_out(stage: dict[str, Any], deployment: Deployment) -> None:
    """What exit.yml does on-chain for it."""
    async with wallet(stage, deployment) as registry:
        await registry.request_unstake(NEW)
        await registry.withdraw(NEW)


@dataclass(frozen=True)
class Story:
    """Each run, with the hosts after it."""

    checked: tuple[Run, set[str]]
    killed: tuple[str, set[str]]
    made: tuple[Run, set[str]]
    again: tuple[Run, set[str]]
    let_go: tuple[Run, set[str]]
    removed: tuple[Run, set[str]]


@pytest.fixture(scope="module")
def story(hosts: dict[str, Host], stage: dict[str, Any], deployment: Deployment) -> Story:
    asyncio.run(submit(stage, deployment, 2))
    checked = play(*scale(told("docs/scaling.md", "playbooks/scale.yml", "--check"))), hosts_now()
    play_killed_at("TASK [scale : Make hosts]", *scale())
    killed = hosts["master"].check_output(f"cat {JOURNAL}"), hosts_now()
    made = play(*scale()), hosts_now()
    again = play(*scale()), hosts_now()
    asyncio.run(stake(stage, deployment))
    let_go = play(*scale(scale_requests_per_worker=5)), hosts_now()
    asyncio.run(take_out(stage, deployment))
    removed = play(*scale(scale_requests_per_worker=5)), hosts_now()
    return Story(checked, killed, made, again, let_go, removed)


def test_a_check_tells_what_is_wanted_and_why_and_makes_nothing(story: Story) -> None:
    run, after = story.checked
    assert run.code == 0, run.output
    for words in (
        "1 workers serve or are about to; 2 are wanted.",
        "2 open requests at 1 a worker want 2.",
        f"Adds {NEW}.",
    ):
        assert words in run.words
    assert run.changed == {"localhost": 0}
    assert NEW not in after


def test_a_killed_run_noted_what_it_was_about_to_make(story: Story) -> None:
    journal, after = story.killed
    assert list(json.loads(journal)["made"]) == [NEW]
    assert len(json.loads(journal)["spent"]) == 1
    assert NEW not in after


def test_the_next_run_makes_that_host_and_no_other(story: Story) -> None:
    run, after = story.made
    assert run.code == 0, run.output
    assert after == {"master", "worker-1", "monitor", NEW}
    assert f"playbooks/workers.yml, with {NEW} in the inventory" in run.words
    again, same = story.again
    assert again.code == 0, again.output
    assert (again.changed, same) == ({"localhost": 0}, after)


def test_without_the_queue_it_is_asked_to_go_and_nothing_is_taken_away(story: Story) -> None:
    run, after = story.let_go
    assert run.code == 0, run.output
    assert "2 workers serve or are about to; 1 are wanted." in run.words
    assert f"playbooks/exit.yml -e node_id={NEW} -e confirm={NEW}" in run.words
    assert NEW in after


def test_when_it_has_left_its_host_is_removed(story: Story, chain: Chain, stage: dict[str, Any]) -> None:
    run, after = story.removed
    assert run.code == 0, run.output
    assert f"{NEW} left: their hosts can go." in run.words
    assert after == {"master", "worker-1", "monitor"}
    assert {name: one.status for name, one in chain.workers().items()} == {"worker-1": WorkerStatus.ACTIVE}
    assert running(stage) == after


@pytest.mark.usefixtures("story")
def test_the_journal_keeps_what_was_spent_and_forgets_the_host(hosts: dict[str, Host]) -> None:
    journal = json.loads(hosts["master"].check_output(f"cat {JOURNAL}"))
    assert journal["made"] == {}
    assert journal["leaving"] == []
    assert [one["cost"] for one in journal["spent"]] == ["1"]
