"""What is decided about a fleet's size: by example, and what holds for every fleet and course of events."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from k3s_daas.registry import WorkerStatus
from k3s_daas.scaling.decide import Decision, Policy, Seen, decide
from k3s_daas.scaling.demand import Pods
from k3s_daas.scaling.journal import DAY_MS, Journal, Made, Spent

NOW = 1_800_000_000_000
HOUR = 3_600_000
POLICY = Policy(
    minimum=1,
    maximum=5,
    step_up=2,
    step_down=1,
    cooldown_up_s=300,
    cooldown_down_s=1800,
    cost=Decimal(1),
    budget_per_day=Decimal(4),
    requests_per_worker=5,
    pods_per_worker=30,
    name_prefix="worker-",
)
ACTIVE, OFFLINE = WorkerStatus.ACTIVE, WorkerStatus.OFFLINE


def policy(**changes: Any) -> Policy:
    return Policy(**POLICY.model_dump() | changes)


def seen(*loads: int, unplaced: int = 0, running: int = 0, **statuses: WorkerStatus) -> Seen:
    """worker-1, worker-2, … with so many open requests each; `worker_2=OFFLINE` says another status."""
    workers = {
        f"worker-{place}": (statuses.get(f"worker_{place}", ACTIVE), load, 100)
        for place, load in enumerate(loads, start=1)
    }
    return Seen(NOW, workers, set(), Pods(running, unplaced))


def made(*names: str, joined: bool = True, **more: Any) -> Journal:
    return Journal(made={name: Made(at_ms=NOW - HOUR, joined=joined) for name in names}, **more)


def test_a_fleet_that_fits_is_left_alone() -> None:
    found = decide(seen(3, 2), policy(minimum=2), Journal())
    assert (found.have, found.wanted) == (2, 2)
    assert (found.add, found.let_go, found.remove) == ((), (), ())
    assert found.before == found.after == Journal()


def test_a_full_queue_adds_workers_and_says_why() -> None:
    found = decide(seen(9, 9), POLICY, Journal())
    assert found.new == found.add == ("worker-3", "worker-4")
    assert "18 open requests at 5 a worker want 4." in found.reasons
    assert "Adds worker-3, worker-4." in found.reasons
    assert set(found.before.made) == {"worker-3", "worker-4"}
    assert found.before.changed_ms == NOW
    assert found.before.spent_since(NOW - 1) == 2


def test_pods_without_room_add_a_worker_to_those_in_service() -> None:
    found = decide(seen(0, 0, unplaced=1, running=10), POLICY, Journal())
    assert found.new == ("worker-3",)
    assert "1 pods found no room on the 2 workers in service, want 1 more." in found.reasons


def test_pods_wait_for_a_worker_that_is_made_already() -> None:
    """Without that, each run until it has joined would add one more."""
    found = decide(seen(0, 0, unplaced=1), policy(cooldown_up_s=0), made("worker-3", joined=False))
    assert (found.wanted, found.new, found.add) == (3, (), ("worker-3",))
    assert any("Made before and not on-chain yet: worker-3" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("changes", "journal", "new", "why"),
    [
        ({"maximum": 3}, Journal(), 1, "The maximum is 3."),
        ({"step_up": 1}, Journal(), 1, "1 more have to wait: at most 1 are added at once."),
        ({"budget_per_day": 1}, Journal(), 1, "0 of 1 were spent in 24 hours, and each costs 1"),
        (
            {},
            Journal(spent=[Spent(at_ms=NOW - DAY_MS + 1, cost=Decimal("3.5"))]),
            0,
            "3.5 of 4 were spent in 24 hours",
        ),
        ({}, Journal(spent=[Spent(at_ms=NOW - DAY_MS, cost=Decimal(4))]), 2, "Adds"),
        ({}, Journal(changed_ms=NOW - 299_000), 0, "the fleet was changed lately, 1 s are left"),
        ({}, Journal(changed_ms=NOW - 300_000), 2, "Adds"),
        ({"cost": 0, "budget_per_day": 0}, Journal(), 2, "Adds"),
    ],
)
def test_what_holds_an_addition_back(changes: Any, journal: Journal, new: int, why: str) -> None:
    found = decide(seen(9, 9), policy(**changes), journal)
    assert len(found.new) == new
    assert why in " ".join(found.reasons)


def test_hosts_that_do_no_work_count_towards_the_maximum() -> None:
    jailed, leaving = WorkerStatus.JAILED, WorkerStatus.UNBONDING
    fleet = seen(9, 0, 0, worker_2=jailed, worker_3=leaving)
    found = decide(replace(fleet, pods=Pods(0, 300)), policy(maximum=3), Journal())
    assert found.new == ()
    assert "of 3 hosts at most, 3 are there" in " ".join(found.reasons)


def test_a_slashed_worker_is_replaced_and_a_silent_one_is_not() -> None:
    slashed = decide(seen(0, 0, worker_2=WorkerStatus.SLASHED), policy(minimum=2), Journal())
    assert slashed.new == ("worker-3",), "its name stays on-chain for ever"
    silent = decide(seen(0, 0, worker_2=OFFLINE), policy(minimum=2), Journal())
    assert silent.new == ()


def test_a_name_in_use_is_not_given_again() -> None:
    fleet = replace(seen(9, 9), taken={"worker-3", "worker-5"})
    assert decide(fleet, POLICY, made("worker-4", joined=False)).new == ("worker-6",)


def test_an_idle_worker_that_scaling_made_is_asked_to_go() -> None:
    found = decide(seen(0, 1, 0), POLICY, made("worker-2", "worker-3"))
    assert found.let_go == ("worker-3",)
    assert found.before.leaving == ["worker-3"]
    again = decide(seen(0, 1, 0), POLICY, found.before)
    assert again.let_go == ("worker-3",), "it is asked until it has gone, and nobody else is"
    assert again.have == 2


def test_the_silent_go_first_and_then_the_least_reputed() -> None:
    workers = {
        "worker-1": (ACTIVE, 0, 60),
        "worker-2": (ACTIVE, 0, 90),
        "worker-3": (OFFLINE, 0, 100),
    }
    fleet = Seen(NOW, workers, set(), Pods(0, 0))
    found = decide(fleet, policy(step_down=2), made(*workers))
    assert found.let_go == ("worker-3", "worker-1")


@pytest.mark.parametrize(
    ("loads", "journal", "why"),
    [
        ((0, 0), made(), "none that scaling made is idle"),
        ((1, 1), made("worker-1", "worker-2"), "none that scaling made is idle"),
        ((0, 0), made("worker-1", changed_ms=NOW - 1_799_000), "the fleet was changed lately, 1 s are left"),
    ],
)
def test_what_keeps_a_worker(loads: tuple[int, ...], journal: Journal, why: str) -> None:
    found = decide(seen(*loads), POLICY, journal)
    assert found.let_go == ()
    assert why in " ".join(found.reasons)


def test_who_was_asked_to_go_is_kept_when_there_is_work_again() -> None:
    journal = made("worker-2", leaving=["worker-2"], changed_ms=NOW)
    found = decide(seen(9, 0), POLICY, journal)
    assert (found.let_go, found.new) == ((), ())
    assert "Keeps worker-2" in " ".join(found.reasons)


def test_the_host_of_who_has_left_can_go() -> None:
    journal = made("worker-2", leaving=["worker-2"])
    leaving = decide(seen(0, 0, worker_2=WorkerStatus.UNBONDING), POLICY, journal)
    assert (leaving.remove, leaving.add) == ((), ())
    left = decide(seen(0), POLICY, leaving.after)
    assert left.remove == ("worker-2",)
    assert "worker-2" in left.before.made, "until it is taken away"
    assert left.after.made == {}
    assert decide(seen(0), POLICY, left.after).remove == ()


def test_a_host_that_never_joined_is_not_taken_for_one_that_left() -> None:
    found = decide(seen(0), POLICY, made("worker-2", joined=False))
    assert (found.add, found.remove) == (("worker-2",), ())


def test_a_killed_run_is_finished_by_the_next_one() -> None:
    first = decide(seen(9, 9), POLICY, Journal())
    again = decide(seen(9, 9), POLICY, first.before)
    assert again.add == first.add
    assert again.new == ()
    assert again.before == first.before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"minimum": 6}, "found minimum 6 over maximum 5"),
        ({"step_up": 0}, "greater than or equal to 1"),
        ({"cost": -1}, "greater than or equal to 0"),
        ({"cost": "NaN"}, "finite"),
        ({"requests_per_worker": 11}, "less than or equal to 10"),
        ({"name_prefix": "Worker_"}, "RFC 1123"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        policy(**changes)


policies = st.builds(
    lambda minimum, more, **rest: policy(minimum=minimum, maximum=minimum + more, **rest),
    st.integers(0, 4),
    st.integers(1, 6),
    step_up=st.integers(1, 4),
    step_down=st.integers(1, 3),
    cooldown_up_s=st.integers(0, 7200),
    cooldown_down_s=st.integers(0, 14400),
    cost=st.decimals(0, 3, places=1),
    budget_per_day=st.decimals(0, 12, places=1),
    requests_per_worker=st.integers(1, 10),
    pods_per_worker=st.integers(1, 50),
)
# What happens between two runs: time passes, pods come and go, and each worker and host meets a fate.
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 60_000, 600_000, HOUR, 6 * HOUR, 13 * HOUR]),
        st.sampled_from([0, 0, 5, 40, 200]),
        st.sampled_from([0, 0, 1, 60]),
        st.lists(
            st.sampled_from(["join", "join", "exit", "idle", "busy", "silent", "jail", "slash", "stay"]),
            max_size=8,
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


class World:
    """A fleet that does with the decisions what it likes."""

    def __init__(self) -> None:
        self.now = NOW
        self.workers: dict[str, tuple[WorkerStatus, int, int]] = {"worker-1": (ACTIVE, 0, 100)}
        self.journal = Journal()
        self.hosts: set[str] = set()

    def pass_by(self, fates: list[str]) -> None:
        for fate, name in zip(fates, sorted({*self.workers, *self.hosts}), strict=False):
            if name not in self.workers:
                if fate == "join":
                    self.workers[name] = (ACTIVE, 0, 100)
                continue
            status, _, reputation = self.workers[name]
            if status is WorkerStatus.SLASHED:
                continue
            if fate == "exit" and name in self.journal.leaving:
                del self.workers[name]
            else:
                self.workers[name] = {
                    "busy": (ACTIVE, 9, reputation),
                    "idle": (ACTIVE, 0, reputation),
                    "silent": (OFFLINE, 0, reputation),
                    "jail": (WorkerStatus.JAILED, 0, reputation),
                    "slash": (WorkerStatus.SLASHED, 0, reputation),
                }.get(fate, self.workers[name])


@settings(max_examples=150, deadline=None)
@given(policies, steps)
def test_no_course_of_events_leads_beyond_the_limits(limits: Policy, course: list[Any]) -> None:
    world = World()
    additions: list[int] = []
    changes: list[int] = []
    for passed, running, unplaced, fates, killed in course:
        world.now += passed
        world.pass_by(fates)
        fleet = Seen(world.now, dict(world.workers), set(), Pods(running, unplaced))
        found = decide(fleet, limits, world.journal)
        assert found == decide(fleet, limits, world.journal)
        check_step(found, fleet, limits, world, changes)
        additions += [world.now] * len(found.new)
        for end in additions:
            within = sum(limits.cost for at in additions if end - DAY_MS < at <= end)
            assert within <= limits.budget_per_day
        if found.before.changed_ms == world.now and found.before.changed_ms != world.journal.changed_ms:
            changes.append(world.now)
        world.journal = Journal.parse(found.before.text())
        if not killed:
            world.hosts = (world.hosts | set(found.add)) - set(found.remove)
            world.journal = Journal.parse(found.after.text())


def check_step(found: Decision, fleet: Seen, limits: Policy, world: World, changes: list[int]) -> None:
    assert limits.minimum <= found.wanted <= limits.maximum
    assert found.reasons
    waited = (fleet.now_ms - changes[-1]) / 1000 if changes else float("inf")
    gone = (WorkerStatus.SLASHED,)
    if found.new:
        hosts = {name for name, (status, _, _) in fleet.workers.items() if status not in gone} | set(
            found.add
        )
        assert len(hosts) <= limits.maximum
        assert len(found.new) <= limits.step_up
        assert waited >= limits.cooldown_up_s
        assert not set(found.new) & {*fleet.workers, *world.journal.made}
    asked = set(found.let_go) - set(world.journal.leaving)
    if asked:
        out = (WorkerStatus.JAILED, WorkerStatus.SLASHED, WorkerStatus.UNBONDING)
        serving = {name for name, (status, _, _) in fleet.workers.items() if status not in out}
        stay = (serving | set(found.add)) - set(found.let_go)
        assert len(stay) >= max(limits.minimum, found.wanted)
        assert len(asked) <= limits.step_down
        assert waited >= limits.cooldown_down_s
        assert all(fleet.workers[name][1] == 0 and name in world.journal.made for name in asked)
    assert not (asked and found.new)
    for name in found.remove:
        assert name not in fleet.workers
        assert world.journal.made[name].joined
