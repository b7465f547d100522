"""What the master keeps of a request: its states and its row.

    scheduled → body_received → claiming → claimed → executing → executed → succeeded | failed
                └→ refused, until its body is posted again

`abandoned`: claimed, but not by what this store remembers; it is never executed. `timed_out`: ended on-chain
without a result. `ended`: ended on-chain, and how was missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class RequestState(StrEnum):
    SCHEDULED = "scheduled"
    BODY_RECEIVED = "body_received"
    REFUSED = "refused"
    CLAIMING = "claiming"
    CLAIMED = "claimed"
    EXECUTING = "executing"
    EXECUTED = "executed"
    ABANDONED = "abandoned"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ENDED = "ended"


#: Nothing more happens to these.
FINAL = frozenset({RequestState.SUCCEEDED, RequestState.FAILED, RequestState.TIMED_OUT, RequestState.ENDED})


@dataclass(frozen=True)
class Scheduled:
    """A request as the chain has it. Amount in MIST, time in ms."""

    request_id: int
    requester: str
    node_id: str
    payload_hash: bytes
    priority: int
    deposit_mist: int
    deadline_ms: int


@dataclass(frozen=True)
class Row(Scheduled):
    """A request and what became of it. `seen` is what the cluster held right before the execution; `error`
    is {code, message, …} for the owner; `checkpoint` is where it ended on-chain."""

    scheduled_ms: int
    state: RequestState
    method: str | None
    resource: str | None
    name: str | None
    body: bytes | None
    body_ms: int | None
    claim_epoch: int | None
    seen: dict[str, Any] | None
    result: bytes | None
    result_hash: bytes | None
    executed_ms: int | None
    error: dict[str, str] | None
    ended_ms: int | None
    checkpoint: int | None


@dataclass(frozen=True)
class WorkerStats:
    """Requests by outcome, and the sum of the served ones' times from body to result in ms."""

    succeeded: int
    failed: int
    missed: int
    response_ms: int

    @property
    def mean_ms(self) -> int | None:
        served = self.succeeded + self.failed
        return self.response_ms // served if served else None


NO_STATS = WorkerStats(0, 0, 0, 0)

#: For the owner, by how far it had got.
WHY_TIMED_OUT = {
    RequestState.SCHEDULED: "No body was posted to the master in time. The deposit is back.",
    RequestState.BODY_RECEIVED: "The master couldn't start it in time. The deposit is back.",
    RequestState.REFUSED: "It was refused. The deposit is back.",
    RequestState.CLAIMING: "The master couldn't start it in time. The deposit is back.",
    RequestState.CLAIMED: "The master couldn't execute it in time. The deposit is back.",
    RequestState.EXECUTING: "The master couldn't find out in time whether it was executed. The deposit is "
    "back.",
    RequestState.EXECUTED: "It was executed, but its result couldn't be put on-chain in time. The deposit is "
    "back.",
    RequestState.ABANDONED: "Another master claimed it and didn't complete it. The deposit is back.",
}
