"""What an operator should look at now, worst first. An alert says what is so, and often what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.schemas import Alert
from k3s_daas_master.workers import AT_WORK

if TYPE_CHECKING:
    from k3s_daas_master.state import State

#: A seal token is to be rotated this long before it expires.
EXPIRES_SOON_MS = 14 * 86_400_000
_ROTATE = "Run playbooks/rotate.yml -e rotate=seal_tokens."
#: An endpoint whose newest checkpoint is older than this lags.
_LAGS_MS = 30_000
_NAMED = 5
_ORDER = ("critical", "warning", "info")


def alerts(state: State) -> list[Alert]:
    """Everything that is to be looked at now."""
    return sorted(_all(state), key=lambda alert: _ORDER.index(alert.severity))


def _all(state: State) -> Iterator[Alert]:
    for reason in state.not_ready():
        what, _, text = reason.partition(": ")
        yield Alert(severity="critical", what=what, text=text)
    for alert in state.alerts():
        what, _, text = alert.partition(": ")
        yield Alert(severity="warning", what=what, text=text)
    yield from _of_the_endpoints(state)
    yield from _of_the_workers(state)
    yield from _of_the_tokens(state)


def _of_the_endpoints(state: State) -> Iterator[Alert]:
    down = [endpoint for endpoint in state.vitals.endpoints if endpoint.error is not None]
    for endpoint in down:
        text = f"{endpoint.name} doesn't answer: {endpoint.error}"
        yield Alert(severity="warning", what="Sui RPC", text=text)
    for endpoint in state.vitals.endpoints:
        if endpoint.age_ms is not None and endpoint.age_ms > _LAGS_MS:
            age_s = endpoint.age_ms // 1000
            yield Alert(severity="warning", what="Sui RPC", text=f"{endpoint.name} lags {age_s} s behind.")


def _of_the_workers(state: State) -> Iterator[Alert]:
    workers = state.index.workers.values()
    for status in (WorkerStatus.JAILED, WorkerStatus.OFFLINE):
        names = sorted(worker.node_id for worker in workers if worker.status is status)
        if names:
            text = f"{len(names)} {status.value}: {_some(names)}"
            yield Alert(severity="warning", what="workers", text=text)
    not_ready = sorted(
        worker.node_id
        for worker in workers
        if worker.status in AT_WORK
        and not ((node := state.fleet.nodes.get(worker.node_id)) is not None and node.ready)
    )
    if not_ready:
        text = f"{len(not_ready)} active without a Ready node: {_some(not_ready)}"
        yield Alert(severity="warning", what="nodes", text=text)
    strangers = sorted(name for name in state.fleet.nodes if name not in state.index.workers)
    if strangers:
        text = f"{len(strangers)} in the cluster that no worker staked for: {_some(strangers)}"
        yield Alert(severity="warning", what="nodes", text=text)
    removals = state.store.open_removals()
    if removals:
        text = f"{len(removals)} slashed still to be removed: {_some(removals)}"
        yield Alert(severity="warning", what="removals", text=text)


def _of_the_tokens(state: State) -> Iterator[Alert]:
    now = state.view.now_ms()
    expired, soon = expiring(state, now)
    if expired:
        text = f"{len(expired)} expired: {_some(expired)}. {_ROTATE}"
        yield Alert(severity="warning", what="seal tokens", text=text)
    if soon:
        text = f"{len(soon)} expire within 14 days: {_some(soon)}. {_ROTATE}"
        yield Alert(severity="info", what="seal tokens", text=text)


def expiring(state: State, now_ms: int) -> tuple[list[str], list[str]]:
    """(workers whose token has expired, workers whose token expires within 14 days), live workers only."""
    expired, soon = [], []
    for worker in state.index.workers.values():
        token = state.index.worker_token(worker.node_id)
        if token is None or token.revoked or not worker.live:
            continue
        if token.expires_at_ms <= now_ms:
            expired.append(worker.node_id)
        elif token.expires_at_ms - now_ms <= EXPIRES_SOON_MS:
            soon.append(worker.node_id)
    return sorted(expired), sorted(soon)


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
