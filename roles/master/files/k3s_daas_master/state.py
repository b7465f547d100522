"""The parts of a running master in one hand, and the questions asked of all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k3s_daas_master.cluster import Cluster
from k3s_daas_master.config import Config
from k3s_daas_master.disruption import Disruption
from k3s_daas_master.drain import Drainer
from k3s_daas_master.fleet import Fleet
from k3s_daas_master.follower import Follower
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.gas import GasWatch
from k3s_daas_master.heartbeats import Heartbeats
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.metrics import Metrics
from k3s_daas_master.nodewatch import NodeWatch
from k3s_daas_master.operators import Operators
from k3s_daas_master.policy import Policy
from k3s_daas_master.ratelimit import RateLimiter
from k3s_daas_master.registration import ClusterCa, Registrar
from k3s_daas_master.removal import Remover
from k3s_daas_master.request_intake import RequestIntake
from k3s_daas_master.request_rows import NO_STATS
from k3s_daas_master.requests import Requests
from k3s_daas_master.store import Store
from k3s_daas_master.tenants import Tenants
from k3s_daas_master.tokenreview import TokenReviewer


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
    disruption: Disruption
    policy: Policy
    reviewer: TokenReviewer
    limiter: RateLimiter
    stranger_limiter: RateLimiter
    refusal_log: RateLimiter
    metrics: Metrics
    requests: Requests
    request_intake: RequestIntake

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

    def alerts(self) -> list[str]:
        """What somebody should look at although this master works; empty when there is nothing."""
        found = [self.gas.alert(), self.disruption.alert()]
        if self.policy.problem is not None:
            found.append(f"slashing: {self.policy.problem}")
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

    def workers(self) -> dict[str, Any]:
        """The registry as this master sees it; no part of any token. Stake in MIST, times in ms."""
        rows = []
        served = self.store.requests.stats()
        for worker in sorted(self.index.workers.values(), key=lambda w: w.node_id):
            token = self.index.worker_token(worker.node_id)
            node = self.fleet.nodes.get(worker.node_id)
            reported = self.heartbeats.reported.get(worker.node_id)
            requests = served.get(worker.node_id, NO_STATS)
            rows.append(
                {
                    "node_id": worker.node_id,
                    "owner": worker.owner,
                    "stake_mist": worker.stake_mist,
                    "status": worker.status.value,
                    "node_ready": None if node is None else node.ready,
                    "generation": None if token is None else token.generation,
                    "expires_at_ms": None if token is None else token.expires_at_ms,
                    "revoked": None if token is None else token.revoked,
                    "last_heartbeat_ms": self.heartbeats.last_ms.get(worker.node_id),
                    "running_pods": None if reported is None else reported.running_pods,
                    "resource_usage": {} if reported is None else reported.resource_usage,
                    "requests_succeeded": requests.succeeded,
                    "requests_failed": requests.failed,
                    "requests_missed": requests.missed,
                    "request_mean_ms": requests.mean_ms,
                }
            )
        master = self.index.master
        return {
            "workers": rows,
            "master": {
                "account": None if master is None else master.account,
                "epoch": None if master is None else master.epoch,
                "endpoint": self.config.endpoint,
                "api_server": self.config.api_server,
                "ca_hash": self.ca.hash.hex() or None,
                "announced": self.fleet.announced(),
                "tee": "SIMULATED" if self.config.tee_mode == "simulated" else "nitro",
                "problems": self.not_ready(),
                "alerts": self.alerts(),
            },
            "chain": {
                "network": self.config.network,
                "registry_id": self.config.registry_id,
                "checkpoint": self.view.sequence,
                "age_ms": self.view.age_ms(),
            },
        }
