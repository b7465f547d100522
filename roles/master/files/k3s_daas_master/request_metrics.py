"""The worker pool's figures about requests, read from the store when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from k3s_daas_master.request_rows import FINAL, RequestState
from k3s_daas_master.request_store import RequestStore


def request_metrics(rows: RequestStore) -> Iterable[Metric]:
    """Open requests by status; per worker those that ended, and how long the served ones took."""
    counts = rows.counts()
    opened = GaugeMetricFamily("k3s_daas_requests_open", "Requests that haven't ended", labels=["status"])
    for state in RequestState:
        if state not in FINAL:
            opened.add_metric([state.value], counts.get(state, 0))
    yield opened
    ended = Metric("k3s_daas_requests", "Requests ended, by worker and outcome", "counter")
    took = Metric("k3s_daas_request_seconds", "From a request's body to its result, by worker", "summary")
    for node_id, stats in rows.stats().items():
        for outcome in ("succeeded", "failed", "missed"):
            labels = {"node_id": node_id, "outcome": outcome}
            ended.add_sample("k3s_daas_requests_total", labels, getattr(stats, outcome))
        served = stats.succeeded + stats.failed
        took.add_sample("k3s_daas_request_seconds_count", {"node_id": node_id}, served)
        took.add_sample("k3s_daas_request_seconds_sum", {"node_id": node_id}, stats.response_ms / 1000)
    yield ended
    yield took
