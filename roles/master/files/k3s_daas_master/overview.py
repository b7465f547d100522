"""The whole master at a glance: what the status page shows, as one answer."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING

from k3s_daas_master.alerts import alerts, expiring
from k3s_daas_master.schemas import (
    Alert,
    Gas,
    Health,
    Nodes,
    Overview,
    Resources,
    SealAuth,
    Slashing,
    Statistics,
    SuiEndpoint,
    SuiRpc,
    Tee,
)
from k3s_daas_master.workers import AT_WORK, master_info, rows, statistics

if TYPE_CHECKING:
    from k3s_daas_master.state import State

#: A worker's figures are left out of the sums once its heartbeat is older than this.
REPORTED_LATELY_MS = 90_000
_VERSION = version("k3s-daas")


def overview(state: State) -> Overview:
    """Everything that the status page shows."""
    now_ms = state.clock.now_ms()
    found, figures, nodes = alerts(state), statistics(state), _nodes(state)
    return Overview(
        generated_ms=now_ms,
        version=_VERSION,
        started_ms=state.vitals.started_ms,
        network=state.config.network,
        registry_id=state.config.registry_id,
        health=_health(state, found, figures, nodes),
        alerts=found,
        tee=_tee(state),
        master=master_info(state),
        nodes=nodes,
        slashing=_slashing(state),
        tenants=state.tenants.count,
        seal=_seal(state),
        resources=_resources(state, now_ms),
        chain=_chain(state),
        gas=Gas(
            price_mist=state.vitals.gas_price_mist,
            balance_mist=state.gas.balance_mist,
            low=state.gas.low(),
        ),
        statistics=figures,
        workers=rows(state),
    )


def _health(state: State, found: list[Alert], figures: Statistics, nodes: Nodes) -> Health:
    pool = figures.workers
    ready = not state.not_ready()
    counted = f"{pool.active} of {pool.total} workers active, {nodes.ready} nodes ready"
    if not ready:
        return Health(state="down", summary=f"The master can't do all of its work; {counted}", ready=False)
    wrong = sum(alert.severity != "info" for alert in found)
    if wrong:
        summary = f"{wrong} {'thing' if wrong == 1 else 'things'} to look at; {counted}"
        return Health(state="degraded", summary=summary, ready=True)
    return Health(state="healthy", summary=counted if pool.total else "No worker has staked yet", ready=True)


def _tee(state: State) -> Tee:
    master = state.index.master
    simulated = state.config.tee_mode == "simulated"
    proven = (
        master is not None
        and bool(master.pcr0)
        and master.attestation_expires_at_ms > state.view.now_ms()
        and state.fleet.announced()
    )
    return Tee(
        mode=state.config.tee_mode,
        # Simulated is never attested, whatever the chain was made to hold.
        attested=proven and not simulated,
        pcr0=master.pcr0.hex() if master is not None and master.pcr0 else None,
        expires_at_ms=master.attestation_expires_at_ms or None if master is not None else None,
    )


def _nodes(state: State) -> Nodes:
    workers, nodes = state.index.workers, state.fleet.nodes
    ours = [node for name, node in nodes.items() if name in workers]
    versions = sorted({node.version for node in nodes.values() if node.version})
    return Nodes(
        ready=sum(node.ready for node in ours),
        wanted=sum(worker.status in AT_WORK for worker in workers.values()),
        joined=len(ours),
        cordoned=sum(node.unschedulable for node in ours),
        unregistered=len(nodes) - len(ours),
        versions=versions,
        stand_in=any("stand-in" in name.lower() for name in versions),
    )


def _slashing(state: State) -> Slashing:
    return Slashing(
        mode=state.policy.mode,
        held_back=state.policy.held_back(),
        findings=len(state.policy.findings()),
        disruptions=state.disruption.count,
    )


def _seal(state: State) -> SealAuth:
    checks = state.metrics.checks()
    expired, soon = expiring(state, state.view.now_ms())
    return SealAuth(
        tokens=state.index.token_count(),
        owner_tokens=state.index.owner_token_count(),
        checks=int(checks.all),
        refused=int(checks.refused),
        checks_per_s=state.vitals.checks.per_s(),
        refused_per_s=state.vitals.checks_refused.per_s(),
        expiring=len(soon),
        expired=len(expired),
    )


def _resources(state: State, now_ms: int) -> Resources:
    beats = state.heartbeats
    lately = [
        beats.reported[node_id]
        for node_id, at in beats.last_ms.items()
        if now_ms - at <= REPORTED_LATELY_MS and node_id in beats.reported and node_id in state.index.workers
    ]

    def figures(key: str) -> list[float]:
        values = (reported.resource_usage.get(key) for reported in lately)
        # A worker may report what it likes: a percentage is 0 to 100 here, a total is not negative.
        return [value for value in values if isinstance(value, int | float) and value >= 0]

    def total(key: str) -> int | None:
        values = figures(key)
        return int(sum(values)) if values else None

    disk = _percentages(figures("disk_percent"))
    return Resources(
        reporting=len(lately),
        cpu_percent=_mean(_percentages(figures("cpu_percent"))),
        memory_percent=_mean(_percentages(figures("memory_percent"))),
        disk_percent=_mean(disk),
        disk_percent_max=max(disk, default=None),
        network_received_bytes=total("network_received_bytes"),
        network_sent_bytes=total("network_sent_bytes"),
        running_pods=sum(reported.running_pods or 0 for reported in lately),
    )


def _percentages(values: Iterable[float]) -> list[float]:
    return [min(value, 100.0) for value in values]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _chain(state: State) -> SuiRpc:
    return SuiRpc(
        checkpoint=state.view.sequence,
        age_ms=state.view.age_ms(),
        fresh=state.view.fresh(),
        events=state.follower.events,
        replay_gaps=state.follower.replay_gaps,
        endpoints=[
            SuiEndpoint(
                name=endpoint.name,
                ok=endpoint.error is None,
                checkpoint=endpoint.checkpoint,
                age_ms=endpoint.age_ms,
                latency_ms=endpoint.latency_ms,
                error=endpoint.error,
            )
            for endpoint in state.vitals.endpoints
        ],
    )
