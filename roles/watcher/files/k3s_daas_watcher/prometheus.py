"""What Prometheus sees: everything is read when asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import alerts, certificates
from .chainview import Outcome
from .watcher import Watcher

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "k3s_daas_watcher_"


class Exporter:
    """A registry of its own, so that two in one process (tests) don't meet."""

    def __init__(self, watcher: Watcher) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(watcher))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def describe(self) -> Iterable[Metric]:
        # Otherwise it is collected once when it is registered.
        return []

    def collect(self) -> Iterable[Metric]:
        state, live = self._watcher.store.state, self._watcher.live
        raised = GaugeMetricFamily(f"{_PREFIX}alert", "1 for an alert that is raised", labels=["alert"])
        for name in alerts.NAMES:
            raised.add_metric([name], 1 if name in state.alerts else 0)
        yield raised
        if state.status is not None:
            status = GaugeMetricFamily(
                f"{_PREFIX}worker_status", "1 for the status on-chain", labels=["status"]
            )
            status.add_metric([state.status], 1)
            yield status
        expiry = GaugeMetricFamily(
            f"{_PREFIX}certificate_expiry_timestamp_seconds",
            "When a certificate of the agent's ends",
            labels=["certificate"],
        )
        for name, end in certificates.ends(Path(self._watcher.config.kubelet_credentials_dir)):
            expiry.add_metric([name], end)
        yield expiry
        values: dict[str, tuple[str, float | None]] = {
            "chain_agreed": (
                "Whether the last look at the chain succeeded",
                None if live.outcome is None else live.outcome is Outcome.AGREED,
            ),
            "last_validation_timestamp_seconds": (
                "When the stake was last seen",
                _seconds(state.last_validation_ms),
            ),
            "last_heartbeat_timestamp_seconds": (
                "When the master last took a heartbeat",
                _seconds(state.last_heartbeat_ms),
            ),
            "heartbeat_failures_in_a_row": ("Heartbeats failed in a row", state.consecutive_failures),
            "agent_restarts": ("Restarts of the agent since the last good heartbeat", state.restarts),
            "stake_mist": ("The worker's stake", state.stake_mist),
            "token_generation": ("The seal token's generation", state.token_generation),
            "token_expires_timestamp_seconds": (
                "When the seal token expires",
                _seconds(state.token_expires_at_ms),
            ),
            "running_pods": ("Pods that run on this node; absent while unknown", live.pods),
        }
        for name, figure in asdict(self._watcher.usage()).items():
            values[f"host_{name}"] = (f"The host's {name.replace('_', ' ')}", figure)
        for name, (about, value) in values.items():
            if value is not None:
                yield GaugeMetricFamily(f"{_PREFIX}{name}", about, value=float(value))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
