"""The gauges beside the worker pool's: gas, endpoints, tokens, slashing, connections, alerts."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from k3s_daas_master.alerts import alerts, expiring
from k3s_daas_master.expiry import certificates
from k3s_daas_master.schemas import Severity

if TYPE_CHECKING:
    from k3s_daas_master.state import State

_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


def gauges(state: State) -> Iterator[Metric]:
    """Read off `state` when asked."""
    yield InfoMetricFamily(
        "k3s_daas_master",
        "This master",
        value={
            "version": version("k3s-daas"),
            "network": state.config.network,
            "registry_id": state.config.registry_id,
            "tee": "SIMULATED" if state.config.tee_mode == "simulated" else "nitro",
        },
    )
    yield GaugeMetricFamily(
        "k3s_daas_announced",
        "1 when the chain names this master with its addresses and CA",
        value=float(state.fleet.announced()),
    )
    yield GaugeMetricFamily(
        "k3s_daas_attestation_expiry_timestamp_seconds",
        "When this master's attestation on-chain ends, seconds since 1970; 0 without one",
        value=(state.attester.expires_at_ms() or 0) / 1000,
    )
    ends = GaugeMetricFamily(
        "k3s_daas_certificate_expiry_timestamp_seconds",
        "When a certificate of this master's ends, seconds since 1970",
        labels=["certificate"],
    )
    for name, end in certificates(state.config, state.ca):
        ends.add_metric([name], end)
    yield ends
    yield from _sealed(state)
    yield from _chain(state)
    yield from _tokens(state)
    yield from _slashing(state)
    yield from _service(state)


def _sealed(state: State) -> Iterator[Metric]:
    newest = state.sealer.newest
    counter = 0 if newest is None or newest.made is None else newest.made.counter
    yield GaugeMetricFamily(
        "k3s_daas_snapshot_timestamp_seconds",
        "When the state of the newest anchored snapshot was copied, seconds since 1970; 0 without one",
        value=0 if newest is None else newest.copied_ms / 1000,
    )
    yield GaugeMetricFamily(
        "k3s_daas_snapshot_counter", "Number of the newest snapshot that this service anchored", value=counter
    )
    yield GaugeMetricFamily(
        "k3s_daas_snapshot_bytes", "Its size, sealed", value=0 if newest is None else newest.bytes
    )


def _chain(state: State) -> Iterator[Metric]:
    vitals, gas, follower = state.vitals, state.gas, state.follower
    yield GaugeMetricFamily(
        "k3s_daas_replay_gap_open",
        "1 until an operator has acknowledged the last gap",
        value=float(follower.gap() is not None),
    )
    yield CounterMetricFamily(
        "k3s_daas_chain_forks", "Times that endpoints told other histories", value=follower.forks
    )
    yield GaugeMetricFamily(
        "k3s_daas_gas_mist",
        "Balance of the master's wallet, MIST; NaN before it was asked for",
        value=float("nan") if gas.balance_mist is None else gas.balance_mist,
    )
    yield GaugeMetricFamily("k3s_daas_gas_low", "1 when it should be topped up", value=float(gas.low()))
    if vitals.gas_price_mist is not None:
        yield GaugeMetricFamily(
            "k3s_daas_gas_price_mist",
            "The network's reference gas price, MIST a unit",
            value=vitals.gas_price_mist,
        )
    up = GaugeMetricFamily("k3s_daas_endpoint_up", "1 when the Sui endpoint answered", labels=["endpoint"])
    age = GaugeMetricFamily(
        "k3s_daas_endpoint_age_seconds", "Age of the endpoint's newest checkpoint", labels=["endpoint"]
    )
    latency = GaugeMetricFamily(
        "k3s_daas_endpoint_latency_seconds", "How long the endpoint took to answer", labels=["endpoint"]
    )
    for endpoint in vitals.endpoints:
        up.add_metric([endpoint.name], float(endpoint.error is None))
        if endpoint.age_ms is not None:
            age.add_metric([endpoint.name], endpoint.age_ms / 1000)
        if endpoint.latency_ms is not None:
            latency.add_metric([endpoint.name], endpoint.latency_ms / 1000)
    yield from (up, age, latency)


def _tokens(state: State) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "k3s_daas_seal_tokens", "Seal tokens in the index, of both scopes", value=state.index.token_count()
    )
    expired, soon = expiring(state, state.view.now_ms())
    family = GaugeMetricFamily(
        "k3s_daas_seal_tokens_expiring",
        "Live workers' seal tokens that have expired or will within 14 days",
        labels=["when"],
    )
    family.add_metric(["expired"], len(expired))
    family.add_metric(["14d"], len(soon))
    yield family


def _slashing(state: State) -> Iterator[Metric]:
    policy = state.policy
    yield GaugeMetricFamily(
        "k3s_daas_disruption", "1 while much of the fleet is silent", value=float(state.disruption.active)
    )
    yield CounterMetricFamily(
        "k3s_daas_disruptions", "Times that much of the fleet fell silent", value=state.disruption.count
    )
    yield GaugeMetricFamily(
        "k3s_daas_slashing_armed", "1 when offences are proposed", value=float(policy.mode == "armed")
    )
    yield GaugeMetricFamily(
        "k3s_daas_proposals_held_back",
        "1 while nothing would be proposed, whatever was found",
        value=float(policy.held_back() is not None),
    )
    found = GaugeMetricFamily(
        "k3s_daas_findings",
        "Offences found, by offence and what became of them",
        labels=["reason", "state"],
    )
    for (reason, what), count in Tally((f.reason, f.state) for f in policy.findings()).items():
        found.add_metric([str(reason), what], count)
    yield found


def _service(state: State) -> Iterator[Metric]:
    connections = state.connections
    yield GaugeMetricFamily(
        "k3s_daas_connections", "Open connections of the API", value=connections.open.total()
    )
    closed = CounterMetricFamily(
        "k3s_daas_connections_closed", "Connections closed by us, by reason", labels=["reason"]
    )
    closed.add_metric(["too_many_of_one_address"], connections.refused)
    closed.add_metric(["no_request_in_time"], connections.timed_out)
    yield closed
    problems = GaugeMetricFamily(
        "k3s_daas_reconcile_problem", "1 for each step of the reconcile loop that fails", labels=["step"]
    )
    for step in sorted(state.fleet.problems):
        problems.add_metric([step], 1)
    yield problems
    tally = Tally(alert.severity for alert in alerts(state))
    family = GaugeMetricFamily("k3s_daas_alerts", "What is to be looked at now", labels=["severity"])
    for severity in _SEVERITIES:
        family.add_metric([severity], tally[severity])
    yield family
    yield CounterMetricFamily(
        "k3s_daas_reconcile_passes", "Passes of the reconcile loop", value=state.fleet.passes
    )
