"""What to do about a fleet's size now: a pure function of what was seen, the policy and the journal.

Scaling adds hosts, and takes away those that it had made. A worker leaves by playbooks/exit.yml, which moves
its stake, so that is only asked for here (`let_go`); once it has left, its host is taken away (`remove`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from math import ceil
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from k3s_daas.registry import WorkerStatus, check_node_id
from k3s_daas.scaling.demand import Pods
from k3s_daas.scaling.journal import DAY_MS, Journal, Made, Spent

#: These do work, or will. Silence isn't a reason to make another one: see `doctor`.
_SERVES = frozenset({WorkerStatus.PENDING, WorkerStatus.ACTIVE, WorkerStatus.BUSY, WorkerStatus.OFFLINE})
#: These have a host that counts towards the maximum. A slashed worker's record stays for ever.
_HAS_HOST = _SERVES | {WorkerStatus.JAILED, WorkerStatus.UNBONDING}
#: These have joined: pods that found no place didn't find it on them.
_JOINED = frozenset({WorkerStatus.ACTIVE, WorkerStatus.BUSY})

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[int, Field(ge=0)]


class Policy(BaseModel):
    """What the operator wants. `cost` is that of adding one worker, in any unit (SUI that is locked, money,
    or 1), and `budget_per_day` what additions may cost within any 24 hours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: Annotated[int, Field(ge=0)]
    maximum: Positive
    step_up: Positive
    step_down: Positive
    cooldown_up_s: Seconds
    cooldown_down_s: Seconds
    cost: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    budget_per_day: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    requests_per_worker: Annotated[int, Field(ge=1, le=10)]
    pods_per_worker: Positive
    name_prefix: Annotated[str, Field(min_length=1, max_length=40)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(
                f"found minimum {self.minimum} over maximum {self.maximum}; wanted it at most that"
            )
        check_node_id(f"{self.name_prefix}1")
        return self


@dataclass(frozen=True)
class Seen:
    """The fleet now. `workers` are those of the operator's wallet by name, as (status, open requests,
    reputation); `taken` are names that nobody may be given: on-chain or in the inventory."""

    now_ms: int
    workers: Mapping[str, tuple[WorkerStatus, int, int]]
    taken: Collection[str]
    pods: Pods

    @property
    def requests(self) -> int:
        """Open requests that the contract gave to these workers."""
        return sum(workload for _, workload, _ in self.workers.values())


@dataclass(frozen=True)
class Decision:
    """`have` counts who serves or is about to, without those asked to go; `wanted` is what demand and limits
    make of it. `add` are all hosts that are to be there and aren't on-chain yet, those of earlier runs, too.
    `reasons` are sentences. `before` is to be kept before anything is done, `after` when it is."""

    have: int
    wanted: int
    add: tuple[str, ...]
    new: tuple[str, ...]
    let_go: tuple[str, ...]
    remove: tuple[str, ...]
    reasons: tuple[str, ...]
    before: Journal
    after: Journal


def decide(seen: Seen, policy: Policy, journal: Journal) -> Decision:
    """What to do now. The same input gives the same answer; nothing is asked and nothing is done here."""
    journal, gone = _caught_up(seen, journal)
    coming = {name for name, one in journal.made.items() if not one.joined} - set(seen.workers)
    leaving = [name for name in journal.leaving if _serves(seen, name)]
    have = sum(_serves(seen, name) for name in seen.workers) + len(coming) - len(leaving)
    wanted, reasons = _wanted(seen, policy)
    new: list[str] = []
    changed = False
    if wanted > have:
        back = leaving[: wanted - have]
        leaving = leaving[len(back) :]
        if back:
            have += len(back)
            reasons.append(f"Keeps {', '.join(back)}, asked to go before and still in service.")
        if wanted > have:
            hosts = sum(status in _HAS_HOST for status, _, _ in seen.workers.values()) + len(coming)
            new = _names(_room(wanted - have, hosts, seen, policy, journal, reasons), seen, policy, journal)
            changed = bool(new)
            reasons += [f"Adds {', '.join(new)}."] if new else []
    elif wanted < have:
        going = _let_go(have - wanted, set(leaving), seen, policy, journal, reasons)
        leaving, changed = leaving + going, bool(going)
    made = {**journal.made, **{name: Made(at_ms=seen.now_ms) for name in new}}
    spent = [*journal.spent, *(Spent(at_ms=seen.now_ms, cost=policy.cost) for _ in new)]
    before = Journal(
        made=made,
        leaving=leaving,
        spent=[one for one in spent if one.at_ms > seen.now_ms - DAY_MS],
        changed_ms=seen.now_ms if changed else journal.changed_ms,
    )
    if gone:
        reasons.append(f"{', '.join(gone)} left: their hosts can go.")
    if coming:
        reasons.append(
            f"Made before and not on-chain yet: {', '.join(sorted(coming))}. playbooks/workers.yml stakes."
        )
    add = tuple(sorted({*coming, *new}))
    return Decision(
        have, wanted, add, tuple(new), tuple(leaving), gone, tuple(reasons), before, before.without(gone)
    )


def _serves(seen: Seen, name: str) -> bool:
    return name in seen.workers and seen.workers[name][0] in _SERVES


def _caught_up(seen: Seen, journal: Journal) -> tuple[Journal, tuple[str, ...]]:
    """The journal with what was seen since, and which of those that joined aren't on-chain any more."""
    made = {
        name: one.model_copy(update={"joined": True}) if name in seen.workers else one
        for name, one in journal.made.items()
    }
    gone = tuple(sorted(name for name, one in made.items() if one.joined and name not in seen.workers))
    return journal.model_copy(update={"made": made}), gone


def _wanted(seen: Seen, policy: Policy) -> tuple[int, list[str]]:
    for_requests = ceil(seen.requests / policy.requests_per_worker)
    for_pods = ceil(seen.pods.running / policy.pods_per_worker)
    reasons = [
        f"{seen.requests} open requests at {policy.requests_per_worker} a worker want {for_requests}.",
        f"{seen.pods.running} running pods at {policy.pods_per_worker} a worker want {for_pods}.",
    ]
    if seen.pods.unplaced:
        joined = sum(status in _JOINED for status, _, _ in seen.workers.values())
        more = ceil(seen.pods.unplaced / policy.pods_per_worker)
        for_pods = max(for_pods, joined + more)
        reasons.append(
            f"{seen.pods.unplaced} pods found no room on the {joined} workers in service, want {more} more."
        )
    demand = max(for_requests, for_pods)
    wanted = min(max(demand, policy.minimum), policy.maximum)
    if wanted != demand:
        limit = "minimum" if wanted > demand else "maximum"
        reasons.append(f"The {limit} is {wanted}.")
    return wanted, reasons


def _room(missing: int, hosts: int, seen: Seen, policy: Policy, journal: Journal, reasons: list[str]) -> int:
    """How many of the missing may be added now; says what holds the others back."""
    if (
        left_ms := policy.cooldown_up_s * 1000 - (seen.now_ms - journal.changed_ms)
    ) > 0 and journal.changed_ms:
        reasons.append(
            f"{missing} more have to wait: the fleet was changed lately, {ceil(left_ms / 1000)} s are left."
        )
        return 0
    spent = journal.spent_since(seen.now_ms - DAY_MS)
    bounds = {
        f"of {policy.maximum} hosts at most, {hosts} are there": policy.maximum - hosts,
        f"at most {policy.step_up} are added at once": policy.step_up,
    }
    if policy.cost:
        why = f"{spent} of {policy.budget_per_day} were spent in 24 hours, and each costs {policy.cost}"
        bounds[why] = int((policy.budget_per_day - spent) // policy.cost)
    why, room = min(bounds.items(), key=lambda bound: bound[1])
    if room >= missing:
        return missing
    reasons.append(f"{missing - max(room, 0)} more have to wait: {why}.")
    return max(room, 0)


def _names(number: int, seen: Seen, policy: Policy, journal: Journal) -> list[str]:
    """The first free ones."""
    taken = {*seen.taken, *seen.workers, *journal.made}
    free = (name for place in count(1) if (name := f"{policy.name_prefix}{place}") not in taken)
    return [next(free) for _ in range(number)]


def _let_go(
    extra: int, leaving: set[str], seen: Seen, policy: Policy, journal: Journal, reasons: list[str]
) -> list[str]:
    """Whom to ask to go: idle ones that scaling had made, the silent first, then the least reputed."""
    if (
        left_ms := policy.cooldown_down_s * 1000 - (seen.now_ms - journal.changed_ms)
    ) > 0 and journal.changed_ms:
        reasons.append(
            f"{extra} fewer would do: the fleet was changed lately, {ceil(left_ms / 1000)} s are left."
        )
        return []
    idle = [
        (status is not WorkerStatus.OFFLINE, reputation, name)
        for name, (status, workload, reputation) in seen.workers.items()
        if status in _SERVES and not workload and name in journal.made and name not in leaving
    ]
    going = [name for _, _, name in sorted(idle)[: min(extra, policy.step_down)]]
    if going:
        reasons.append(f"Asks {', '.join(going)} to go.")
    else:
        reasons.append(f"{extra} fewer would do, and none that scaling made is idle.")
    return going
