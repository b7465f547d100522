"""What is known about this run only; the rest is in the persisted state."""

from __future__ import annotations

from dataclasses import dataclass, field

from .agent import AgentReport
from .chainview import EndpointAnswer, Outcome
from .errors import Refusal

FAILURES_BEFORE_RESTART = 3
RESTART_CAP = 8
NOT_REGISTERED = "not_registered"


@dataclass
class Live:
    """`beats` counts the heartbeats that the master took; `pods_at_ms` is when pods were last asked for."""

    outcome: Outcome | None = None
    chain_detail: str = ""
    answers: tuple[EndpointAnswer, ...] = ()
    agent: AgentReport | None = None
    failure: Refusal | None = None
    beats: int = 0
    slash_proposed: bool = False
    state_problem: str = ""
    pods: int | None = None
    pods_at_ms: int | None = None
    progress: dict[str, float] = field(default_factory=dict)

    @property
    def failure_detail(self) -> str:
        """What the last heartbeat failed of; empty after a good one."""
        return "" if self.failure is None else f"{self.failure.message}: {self.failure.found}"
