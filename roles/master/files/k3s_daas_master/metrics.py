"""What Prometheus sees. Counters are counted where things happen; gauges are read when asked."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k3s_daas.registry import WorkerStatus
from k3s_daas_master import worker_metrics
from k3s_daas_master.gauges import gauges
from k3s_daas_master.request_metrics import request_metrics
from k3s_daas_master.traffic import Traffic

if TYPE_CHECKING:
    from k3s_daas_master.state import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Checks:
    """Token checks since the start. `refused` are all that named no user, for whatever reason."""

    all: float
    refused: float


class Metrics:
    """One registry per service, so that two in one process (tests) don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._state: State | None = None
        self.registrations = Counter(
            "k3s_daas_registrations",
            "Registrations by outcome (ok or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.heartbeats = Counter(
            "k3s_daas_heartbeats",
            "Heartbeats by outcome (ok or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.drains = Counter(
            "k3s_daas_drains",
            "Drains that workers asked for, by outcome (ok or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.token_reviews = Counter(
            "k3s_daas_token_reviews",
            "Token reviews by outcome (authenticated, refused or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.node_accesses = Counter(
            "k3s_daas_node_accesses",
            "Nodes' requests that were asked about, by outcome (no_opinion, denied or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.strangers = Counter(
            "k3s_daas_strangers",
            "API requests with an unknown seal token or none, by outcome (heard or refused)",
            ["outcome"],
            registry=self.registry,
        )
        self.request_calls = Counter(
            "k3s_daas_request_calls",
            "Calls of owners about their requests, by outcome (ok or an error code)",
            ["outcome"],
            registry=self.registry,
        )
        self.traffic = Traffic(self.registry)
        ProcessCollector(registry=self.registry)

    def checks(self) -> Checks:
        """Token checks so far."""
        by_outcome = {
            sample.labels["outcome"]: sample.value
            for family in self.token_reviews.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        total = sum(by_outcome.values())
        return Checks(total, total - by_outcome.get("authenticated", 0.0))

    def watch(self, state: State) -> None:
        """Report `state` with every scrape."""
        self._state = state
        self.registry.register(_Gauges(state))

    def render(self) -> bytes:
        of_workers = b"" if self._state is None else worker_metrics.render(self._state)
        return generate_latest(self.registry) + of_workers


class _Gauges(Collector):
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state
        workers = GaugeMetricFamily("k3s_daas_workers", "Workers by on-chain status", labels=["status"])
        tally = Tally(worker.status for worker in state.index.workers.values())
        for status in WorkerStatus:
            workers.add_metric([status.value], tally[status])
        yield workers
        stake = sum(worker.stake_mist for worker in state.index.workers.values())
        yield GaugeMetricFamily("k3s_daas_stake_mist", "Stake held for all workers, MIST", value=stake)
        ready = sum(node.ready for name, node in state.fleet.nodes.items() if name in state.index.workers)
        yield GaugeMetricFamily("k3s_daas_nodes_ready", "Workers' nodes that are Ready", value=ready)
        strangers = sum(name not in state.index.workers for name in state.fleet.nodes)
        yield GaugeMetricFamily(
            "k3s_daas_nodes_unregistered",
            "Nodes of the cluster that are no registered worker",
            value=strangers,
        )
        age = state.view.age_ms()
        yield GaugeMetricFamily(
            "k3s_daas_chain_age_seconds",
            "Age of our view of the chain; +Inf before the first checkpoint",
            value=float("inf") if age is None else age / 1000,
        )
        yield GaugeMetricFamily(
            "k3s_daas_chain_checkpoint", "Newest checkpoint seen", value=state.view.sequence or 0
        )
        yield GaugeMetricFamily("k3s_daas_ready", "1 when /readyz is 200", value=float(not state.not_ready()))
        yield GaugeMetricFamily(
            "k3s_daas_removals_open",
            "Slashed workers still to be removed",
            value=len(state.store.open_removals()),
        )
        yield GaugeMetricFamily(
            "k3s_daas_tenants", "Owners that have their namespace", value=state.tenants.count
        )
        yield GaugeMetricFamily(
            "k3s_daas_tenant_problems",
            "Owners whose objects aren't as wanted",
            value=len(state.tenants.problems),
        )
        yield from request_metrics(state.store.requests)
        yield _counter("k3s_daas_removals", "Slashed workers removed", state.remover.finished)
        yield _counter(
            "k3s_daas_status_changes", "Worker statuses written on-chain", state.fleet.status_changes
        )
        yield _counter("k3s_daas_chain_events", "Events of our registry taken in", state.follower.events)
        yield _counter("k3s_daas_replay_gaps", "Gaps in the checkpoint stream", state.follower.replay_gaps)
        yield from gauges(state)


def _counter(name: str, text: str, value: int) -> Metric:
    family = Metric(name, text, "counter")
    family.add_sample(f"{name}_total", {}, value)
    return family
