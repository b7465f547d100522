"""The parts of a running master in one hand, and the questions asked of all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from k3s_daas_master.clock import Clock
from k3s_daas_master.config import Config
from k3s_daas_master.connections import Connections
from k3s_daas_master.fleet import Fleet
from k3s_daas_master.follower import Follower
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.operators import Operators
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.registration import ClusterCa, Registrar
from k3s_daas_master.removal import Remover
from k3s_daas_master.store import Store
from k3s_daas_master.tokenreview import TokenReviewer
from k3s_daas_master.vitals import Vitals


@dataclass
class State:
    """Everything the HTTP side needs."""

    config: Config
    index: TokenIndex
    view: ChainView
    store: Store
    ca: ClusterCa
    follower: Follower
    fleet: Fleet
    remover: Remover
    registrar: Registrar
    heartbeats: Heartbeats
    operators: Operators
    reviewer: TokenReviewer
    limiter: RateLimiter
    stranger_limiter: RateLimiter
    refusal_log: RateLimiter
    metrics: Metrics
    # What the status page shows beside the parts themselves, and what it and the API are guarded by.
    clock: Clock
    vitals: Vitals
    reads: RateLimiter
    connections: Connections

    def not_ready(self) -> list[str]:
        """Why this master can't do all of its work now; empty when it can."""
        reasons = []
        if not self.index.loaded:
            reasons.append(f"registry: {self.follower.problem}")
        elif not self.view.fresh():
            age = self.view.age_ms() or 0
            cause = f" ({self.follower.problem})" if self.follower.problem else ""
            reasons.append(f"chain: view is {age // 1000} s old, wanted at most {STALE_MS // 1000} s{cause}")
        reasons += [f"{step}: {problem}" for step, problem in sorted(self.fleet.problems.items())]
        if self.index.loaded and not reasons and not self.fleet.announced():
            reasons.append(
                "announcement: the chain doesn't name this master with these addresses and this CA yet"
            )
        return reasons
