"""The parts of a running master in one hand, and the questions asked of all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from k3s_daas_master.attester import Attester
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import Cluster
from k3s_daas_master.config import Config
from k3s_daas_master.connections import Connections
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.drain import Drainer
from k3s_daas_master.fence import Fence
from k3s_daas_master.fleet import Fleet
from k3s_daas_master.follower import Follower
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.nodewatch import NodeWatch
from k3s_daas_master.operators import Operators
from k3s_daas_master.policy import Policy
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.readytime import ReadyTime
from k3s_daas_master.registration import ClusterCa, Registrar
from k3s_daas_master.removal import Remover
from k3s_daas_master.request_intake import RequestIntake
from k3s_daas_master.requests import Requests
from k3s_daas_master.sealed.sealer import Sealer
from k3s_daas_master.store import Store
from k3s_daas_master.tenants import Tenants
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
    tenants: Tenants
    cluster: Cluster
    remover: Remover
    node_watch: NodeWatch
    registrar: Registrar
    drainer: Drainer
    heartbeats: Heartbeats
    operators: Operators
    gas: GasWatch
    ready_time: ReadyTime
    disruption: Disruption
    policy: Policy
    reviewer: TokenReviewer
    access: NodeAccess
    limiter: RateLimiter
    stranger_limiter: RateLimiter
    refusal_log: RateLimiter
    metrics: Metrics
    requests: Requests
    request_intake: RequestIntake
    # What the status page shows beside the parts themselves, and what it and the API are guarded by.
    clock: Clock
    vitals: Vitals
    reads: RateLimiter
    connections: Connections
    attester: Attester
    sealer: Sealer
    fence: Fence
    attestations: RateLimiter

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
        if self.index.loaded and (unproved := self.attester.not_ready()) is not None:
            reasons.append(f"attestation: {unproved}")
        if self.index.loaded and (unsealed := self.sealer.not_ready()) is not None:
            reasons.append(f"sealed state: {unsealed}")
        if self.index.loaded and not reasons and not self.fleet.announced():
            reasons.append(
                "announcement: the chain doesn't name this master with these addresses and this CA yet"
            )
        return reasons

    def alerts(self) -> list[str]:
        """What somebody should look at although this master works; empty when there is nothing."""
        found = [self.gas.alert(), self.disruption.alert(), self.attester.alert(), self.sealer.alert()]
        if self.policy.problem is not None:
            found.append(f"slashing: {self.policy.problem}")
        if self.ready_time.problem is not None:
            found.append(f"ready time: it isn't reported at the moment. {self.ready_time.problem}")
        if self.view.clock_off():
            found.append(
                "clock: this host's time and the chain's differ by more than a minute. Synchronize the clock "
                "(chrony, systemd-timesyncd)."
            )
        if self.follower.forked:
            found.append(f"chain: {self.follower.problem}")
        if (gap := self.follower.gap()) is not None:
            found.append(
                f"replay gap: {gap}. No slash is proposed until you have looked at what happened and run "
                "`k3s-daas-master acknowledge-gap`."
            )
        return [alert for alert in found if alert]
