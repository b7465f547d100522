"""What Prometheus sees of each worker: the chain's word, the cluster's, and what it reports of itself.

Written as text here, not by prometheus-client, which takes a tenth of a second for 1,000 workers, in which
every token check would wait. Labels need no escapes: a node id is an RFC 1123 label, the others are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from k3s_daas_master.overview import REPORTED_LATELY_MS

if TYPE_CHECKING:
    from k3s_daas_master.state import State

#: What of a worker's report is shown; percentages at most 100. Sums of bytes are since the host started.
REPORTED = (
    "cpu_percent",
    "memory_percent",
    "disk_percent",
    "network_received_bytes",
    "network_sent_bytes",
    "running_pods",
)
_HELP = {
    "k3s_daas_worker_status": "1 for the worker's status on-chain",
    "k3s_daas_worker_stake_mist": "The worker's stake, MIST",
    "k3s_daas_worker_stake_headroom_mist": "What a live worker has staked beyond what it needs, MIST; "
    "below 0 it gets no requests and earns nothing",
    "k3s_daas_worker_reputation": "The worker's reputation on-chain, 0 to 100",
    "k3s_daas_worker_node_ready": "1 when the worker's node is Ready; absent without a node",
    "k3s_daas_worker_heartbeat_timestamp_seconds": "When the worker was last heard, seconds since 1970; "
    "absent before",
    "k3s_daas_worker_token_expiry_timestamp_seconds": "When a live worker's seal token ends, seconds since "
    "1970; absent when it is revoked",
    "k3s_daas_worker_reported": "What the worker reported of itself in the last 90 s",
}


def render(state: State) -> bytes:
    """Prometheus' text format 0.0.4."""
    lines: dict[str, list[str]] = {name: [] for name in _HELP}
    for name, labels, value in _samples(state):
        lines[name].append(f"{name}{{{labels}}} {value!r}\n")
    text = [
        f"# HELP {name} {_HELP[name]}\n# TYPE {name} gauge\n{''.join(found)}" for name, found in lines.items()
    ]
    return "".join(text).encode()


def _samples(state: State) -> Iterator[tuple[str, str, float]]:
    beats, nodes, now_ms = state.heartbeats, state.fleet.nodes, state.clock.now_ms()
    for node_id, worker in state.index.workers.items():
        label = f'node_id="{node_id}"'
        yield "k3s_daas_worker_status", f'{label},status="{worker.status.value}"', 1
        yield "k3s_daas_worker_stake_mist", label, worker.stake_mist
        yield "k3s_daas_worker_reputation", label, worker.reputation
        if (node := nodes.get(node_id)) is not None:
            yield "k3s_daas_worker_node_ready", label, int(node.ready)
        if (heard_ms := beats.last_ms.get(node_id)) is not None:
            yield "k3s_daas_worker_heartbeat_timestamp_seconds", label, heard_ms / 1000
        if worker.live:
            headroom = worker.stake_mist - worker.required_stake_mist
            yield "k3s_daas_worker_stake_headroom_mist", label, headroom
            token = state.index.worker_token(node_id)
            if token is not None and not token.revoked:
                expiry = token.expires_at_ms / 1000
                yield "k3s_daas_worker_token_expiry_timestamp_seconds", label, expiry
        if heard_ms is not None and now_ms - heard_ms <= REPORTED_LATELY_MS and node_id in beats.reported:
            reported = beats.reported[node_id]
            figures = {**reported.resource_usage, "running_pods": reported.running_pods}
            for name in REPORTED:
                value = figures.get(name)
                # It says what it likes: text, or 10^300 %.
                if isinstance(value, int | float) and value >= 0:
                    shown = min(value, 100) if name.endswith("_percent") else value
                    yield "k3s_daas_worker_reported", f'{label},figure="{name}"', shown
