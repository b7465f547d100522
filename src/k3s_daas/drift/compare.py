"""The rules by which sides agree. The inventory says what is wanted: each of its workers staked and active,
its node Ready, its units running. A side that gave no answer is compared with nobody.

Workers of other owners are none of the inventory's: of them, only chain and cluster are held together.
"""

from __future__ import annotations

from collections.abc import Iterator

from k3s_daas import join
from k3s_daas.drift.facts import Cluster, Fleet, Host, Node, OnChain, Seen
from k3s_daas.drift.report import Difference, NotAsked, Report, Side
from k3s_daas.registry.model import Master, Worker, WorkerStatus
from k3s_daas.registry.settings import describe

AT_WORK = (WorkerStatus.ACTIVE, WorkerStatus.BUSY)
#: In these, no node of theirs may be in the cluster, and their units may be stopped.
GONE = (WorkerStatus.SLASHED, WorkerStatus.UNBONDING)

_CHECK = "site.yml --check --diff shows it, site.yml mends it"
_STATUS_FIX = {
    WorkerStatus.PENDING: "k3s-daas doctor on it says why it never came up",
    WorkerStatus.OFFLINE: "k3s-daas doctor on it; the status follows within 10 min of its return",
    WorkerStatus.JAILED: "a slash is proposed: wait, or cancel_slash.yml",
    WorkerStatus.SLASHED: "take it out of k3s_daas_workers; exit.yml pays what is left",
    WorkerStatus.UNBONDING: "run exit.yml to its end",
}


def compare(fleet: Fleet, seen: Seen, not_asked: tuple[NotAsked, ...] = ()) -> Report:
    """Everything in which two sides that answered disagree, sorted by whom it is about."""
    found = [*_master(fleet, seen), *_terms(fleet, seen.chain)]
    names = {*fleet.workers, *(seen.chain.workers if seen.chain else ())}
    names |= set(seen.cluster.nodes if seen.cluster else ())
    for name in sorted(names):
        found += _worker(fleet, seen, name)
    for name, host in seen.hosts.items():
        if not _is_gone(seen.chain, name):
            found += _units(name, host)
        if fleet.k3s_version and host.k3s_version != fleet.k3s_version:
            version = host.k3s_version or "none"
            found.append(
                _differ(name, "k3s installed", "host", version, "inventory", fleet.k3s_version, _CHECK)
            )
    for change in seen.changes:
        what = change.what or change.task
        wanted = f"as the role {change.role} makes it"
        found.append(_differ(change.host, what, "host", "something else", "inventory", wanted, _CHECK))
    return Report(tuple(sorted(set(found))), tuple(sorted(set(not_asked))))


def _differ(who: str, what: str, side: Side, found: str, other: Side, wanted: str, fix: str) -> Difference:
    return Difference(who, what, found, wanted, (side, other), fix)


def _is_gone(chain: OnChain | None, name: str) -> bool:
    worker = chain.workers.get(name) if chain else None
    return worker is not None and worker.status in GONE


def _worker(fleet: Fleet, seen: Seen, name: str) -> Iterator[Difference]:
    listed, chain = name in fleet.workers, seen.chain
    worker = chain.workers.get(name) if chain else None
    if chain is not None:
        yield from _stake(name, listed, worker, chain.wallet)
        if listed and worker is not None and worker.status not in GONE and name in seen.hosts:
            yield from _token(name, seen.hosts[name], chain)
    if seen.cluster is not None:
        node = seen.cluster.nodes.get(name)
        yield from _membership(name, listed, worker, node, chain is not None)
        if node is not None:
            yield from _version(fleet, name, node, seen.hosts.get(name))


def _stake(name: str, listed: bool, worker: Worker | None, wallet: str) -> Iterator[Difference]:
    if worker is None:
        if listed:
            yield _differ(name, "stake", "chain", "none", "inventory", "staked", "workers.yml stakes for it")
        return
    if listed and worker.owner != wallet:
        fix = "choose another name, or use that owner's key"
        yield _differ(name, "owner", "chain", worker.owner, "inventory", wallet, fix)
    if listed and worker.status not in AT_WORK:
        fix = _STATUS_FIX[worker.status]
        yield _differ(name, "status", "chain", str(worker.status), "inventory", "active", fix)
    if not listed and worker.owner == wallet and worker.status is not WorkerStatus.SLASHED:
        found = "its stake is not withdrawn" if worker.status is WorkerStatus.UNBONDING else "staked"
        fix = "put it back into k3s_daas_workers; exit.yml takes the stake out"
        yield _differ(name, "stake", "chain", found, "inventory", "no such worker", fix)


def _token(name: str, host: Host, chain: OnChain) -> Iterator[Difference]:
    record, rotate = chain.tokens.get(name), "rotate.yml, or workers.yml if there is none"
    if host.seal_trouble:
        yield _differ(name, "seal token", "host", host.seal_trouble, "chain", "a seal token", rotate)
        return
    if record is None or record.revoked or record.expires_at_ms <= chain.now_ms:
        found = "none" if record is None else "revoked" if record.revoked else "expired"
        yield _differ(name, "seal token", "chain", found, "inventory", "a live one", rotate)
        return
    generation, commitment = f"generation {record.generation}", record.commitment.hex()
    if host.commitment == commitment:
        if host.next_commitment:
            found = "the next one is made, and not on-chain"
            yield _differ(name, "seal token", "host", found, "chain", generation, "rotate.yml finishes it")
    elif host.next_commitment == commitment:
        found = "the generation before"
        yield _differ(name, "seal token", "host", found, "chain", generation, "rotate.yml finishes it")
    else:
        found = "another one" if host.commitment else "none"
        yield _differ(name, "seal token", "host", found, "chain", generation, rotate)


def _membership(
    name: str, listed: bool, worker: Worker | None, node: Node | None, chain_known: bool
) -> Iterator[Difference]:
    gone = worker is not None and worker.status in GONE
    if node is not None and chain_known and (worker is None or gone):
        found = "not staked" if worker is None else str(worker.status)
        fix = (
            f"k3s kubectl delete node {name}" if worker is None else "the master removes it; see its journal"
        )
        yield _differ(name, "node", "cluster", "joined", "chain", found, fix)
    elif gone or not (listed or (worker is not None and worker.status in AT_WORK)):
        return
    else:
        wanted: tuple[Side, str] = (
            ("inventory", "a Ready node") if listed else ("chain", str(worker and worker.status))
        )
        if node is None:
            yield _differ(name, "node", "cluster", "none", *wanted, "k3s-daas doctor on it says why")
        elif not node.ready:
            yield _differ(name, "node", "cluster", "not Ready", *wanted, "k3s-daas doctor on it says why")
        elif node.unschedulable and (worker is None or worker.status in AT_WORK):
            yield _differ(name, "node", "cluster", "cordoned", *wanted, f"k3s kubectl uncordon {name}")


def _version(fleet: Fleet, name: str, node: Node, host: Host | None) -> Iterator[Difference]:
    if fleet.k3s_version and name in fleet.workers:
        side: Side = "inventory"
        wanted = fleet.k3s_version
    else:
        side, wanted = "host", host.k3s_version if host else ""
    if wanted and node.version != wanted:
        fix = "restart k3s-agent" if side == "host" else _CHECK
        yield _differ(name, "k3s running", "cluster", node.version or "unknown", side, wanted, fix)


def _units(name: str, host: Host) -> Iterator[Difference]:
    for unit, state in host.units.items():
        if not state.enabled:
            found = "not installed"
        elif state.active != "active":
            found = f"{state.active} ({state.sub})"
        elif state.enabled not in ("enabled", "static"):
            found = state.enabled
        else:
            continue
        wanted = "active, enabled"
        yield _differ(name, unit, "host", found, "inventory", wanted, f"journalctl -u {unit}; then site.yml")


def _master(fleet: Fleet, seen: Seen) -> Iterator[Difference]:
    if seen.chain is None:
        return
    who, master = fleet.master, seen.chain.config.master
    fix = "master.yml appoints and announces it"
    if master is None or not master.endpoint:
        found = "none" if master is None else "appointed, not announced"
        yield _differ(who, "master", "chain", found, "inventory", fleet.endpoint, fix)
        return
    for what, found, wanted in (
        ("endpoint", master.endpoint, fleet.endpoint),
        ("API server", master.api_server, fleet.api_server),
    ):
        if found != wanted:
            yield _differ(who, what, "chain", found, "inventory", wanted, fix)
    attested = bool(master.pcr0) and master.attestation_expires_at_ms > seen.chain.now_ms
    if fleet.attested and not attested:
        yield _differ(who, "attestation", "chain", "none", "inventory", "a live one", fix)
    if seen.cluster is not None:
        yield from _served(who, master, seen.cluster)


def _served(who: str, master: Master, cluster: Cluster) -> Iterator[Difference]:
    try:
        served = join.ca_hash(cluster.ca_pem.encode()).hex()
    except (join.InvalidCaBundle, ValueError):
        served = "no certificate"
    announced = master.ca_hash.hex()
    if served != announced:
        fix = "find out who replaced it; then restart k3s-daas-master, which announces it"
        yield _differ(who, "CA hash", "cluster", served, "chain", announced, fix)
    if cluster.announced is False:
        fix = "master.yml appoints it, if it is to be the master"
        yield _differ(who, "master", "host", "not the one", "chain", master.account, fix)


def _terms(fleet: Fleet, chain: OnChain | None) -> Iterator[Difference]:
    if fleet.terms is None or chain is None:
        return
    found, wanted = describe(chain.config), fleet.terms.outcome(chain.config)
    for name in sorted(wanted):
        if found[name] != wanted[name]:
            fix = "contracts.yml, or correct the inventory"
            now, then = str(found[name]), str(wanted[name])
            yield _differ("registry", name, "chain", now, "inventory", then, fix)
