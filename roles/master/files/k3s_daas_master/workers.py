"""The worker pool as this master sees it: one row a worker, and the pool in figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from k3s_daas.registry import WorkerStatus
from k3s_daas_master.request_rows import NO_STATS
from k3s_daas_master.schemas import (
    ChainInfo,
    MasterInfo,
    RequestStatistics,
    Statistics,
    WorkerRow,
    WorkersAnswer,
    WorkerStatistics,
)

if TYPE_CHECKING:
    from k3s_daas_master.state import State

#: Workers in these statuses do work, or could.
AT_WORK = frozenset({WorkerStatus.ACTIVE, WorkerStatus.BUSY})


def rows(state: State) -> list[WorkerRow]:
    """Every worker of the registry, by name."""
    served = state.store.requests.stats()
    found = []
    for worker in sorted(state.index.workers.values(), key=lambda w: w.node_id):
        token = state.index.worker_token(worker.node_id)
        node = state.fleet.nodes.get(worker.node_id)
        reported = state.heartbeats.reported.get(worker.node_id)
        requests = served.get(worker.node_id, NO_STATS)
        found.append(
            WorkerRow(
                node_id=worker.node_id,
                owner=worker.owner,
                stake_mist=worker.stake_mist,
                status=worker.status.value,
                reputation=worker.reputation,
                registered_at_ms=worker.registered_at_ms,
                requests_succeeded=requests.succeeded,
                requests_failed=requests.failed,
                requests_missed=requests.missed,
                request_mean_ms=requests.mean_ms,
                node_ready=None if node is None else node.ready,
                cordoned=None if node is None else node.unschedulable,
                version=None if node is None else node.version,
                generation=None if token is None else token.generation,
                expires_at_ms=None if token is None else token.expires_at_ms,
                revoked=None if token is None else token.revoked,
                last_heartbeat_ms=state.heartbeats.last_ms.get(worker.node_id),
                running_pods=None if reported is None else reported.running_pods,
                resource_usage={} if reported is None else reported.resource_usage,
            )
        )
    return found


def statistics(state: State) -> Statistics:
    """The pool and the requests in figures."""
    workers = state.index.workers.values()
    tally = Counter(worker.status for worker in workers)
    stake = sum(worker.stake_mist for worker in workers)
    done = state.store.requests.stats().values()
    traffic = state.metrics.traffic
    took = traffic.took()
    return Statistics(
        workers=WorkerStatistics(
            total=len(workers),
            active=sum(tally[status] for status in AT_WORK),
            offline=tally[WorkerStatus.OFFLINE],
            by_status={status.value: tally[status] for status in WorkerStatus},
            stake_total_mist=stake,
            stake_average_mist=stake // len(workers) if workers else 0,
        ),
        requests=RequestStatistics(
            succeeded=traffic.ok,
            refused=traffic.refused,
            failed=traffic.failed,
            median_ms=took.median_ms,
            p99_ms=took.p99_ms,
            chain_succeeded=sum(one.succeeded for one in done),
            chain_failed=sum(one.failed for one in done),
            chain_missed=sum(one.missed for one in done),
        ),
    )


def master_info(state: State) -> MasterInfo:
    """This master, and whether the chain names it."""
    master = state.index.master
    return MasterInfo(
        account=None if master is None else master.account,
        epoch=None if master is None else master.epoch,
        endpoint=state.config.endpoint,
        api_server=state.config.api_server,
        ca_hash=state.ca.hash.hex() or None,
        announced=state.fleet.announced(),
        tee="SIMULATED" if state.config.tee_mode == "simulated" else "nitro",
        problems=state.not_ready(),
        alerts=state.alerts(),
    )


def answer(state: State) -> WorkersAnswer:
    """The answer of /api/v1/workers."""
    return WorkersAnswer(
        workers=rows(state),
        statistics=statistics(state),
        master=master_info(state),
        chain=ChainInfo(
            network=state.config.network,
            registry_id=state.config.registry_id,
            checkpoint=state.view.sequence,
            age_ms=state.view.age_ms(),
        ),
    )
