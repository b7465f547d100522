"""Checks of a worker's own: its seal token, its stake and status, its name."""

from __future__ import annotations

from collections.abc import Iterator

from k3s_daas.doctor.checks_host import AGENT, WATCHER
from k3s_daas.doctor.facts import Facts, Finding, error, ok, warning
from k3s_daas.registry import SealTokenRecord, Worker, WorkerStatus
from k3s_daas.units import format_sui

DAY_MS = 86_400_000
EXPIRES_SOON_MS = 14 * DAY_MS
#: Heartbeats come every 30 s.
HEARD_LATELY_MS = 65_000
#: By then a watcher that was started has looked at the chain and been heard.
BEATS_WITHIN_MS = 60_000
_ROTATE = "run playbooks/rotate.yml -e rotate=seal_tokens"
_STAKE = "run playbooks/workers.yml, which makes the token and stakes"


def token(facts: Facts) -> Iterator[Finding]:
    secret = facts.secret
    if secret is None or facts.role != "worker":
        return
    if secret.missing:
        yield error("token", f"there is no {secret.path}", "this host has no seal token", _STAKE)
        return
    if secret.mode & 0o077:
        yield error(
            "token",
            f"{secret.path} has mode {secret.mode:04o}, wanted 0600",
            "others on this host could read the seal token",
            f"{_ROTATE} (others may have read it), and chmod 600 {secret.path}",
        )
    if secret.trouble is not None or secret.commitment is None:
        yield error("token", secret.trouble or "no token was read", "the file holds no seal token", _STAKE)
        return
    if facts.chain.registry is not None and facts.chain.worker is not None:
        yield from _token_on_chain(facts, facts.chain.worker, facts.chain.token, secret.commitment)


def _token_on_chain(
    facts: Facts, worker: Worker, record: SealTokenRecord | None, commitment: bytes
) -> Iterator[Finding]:
    if facts.chain.token_of is not None:
        yield error(
            "token",
            f"this host's token is that of worker {facts.chain.token_of}; here it is {facts.node_id}",
            "the host was renamed, or its disk is a copy of another host's",
            "give the host its own name and token: remove the token file and run playbooks/workers.yml",
        )
    elif record is None:
        yield error("token", f"worker {worker.node_id} has no token on-chain", "none was minted", _STAKE)
    elif record.commitment != commitment:
        yield error(
            "token",
            f"the chain knows another token of {worker.node_id} (generation {record.generation})",
            f"it was rotated from elsewhere, or the name was staked by another owner ({worker.owner})",
            f"if {worker.owner[:10]}… is you: {_ROTATE}; if not: give this host another node id",
        )
    elif record.revoked:
        yield error("token", f"generation {record.generation} is revoked", "its owner revoked it", _ROTATE)
    elif record.expires_at_ms <= facts.now_ms:
        days = (facts.now_ms - record.expires_at_ms) / DAY_MS
        cause = "it registers no more; a joined node goes on"
        yield error("token", f"generation {record.generation} expired {days:.1f} days ago", cause, _ROTATE)
    elif record.expires_at_ms - facts.now_ms <= EXPIRES_SOON_MS:
        days = (record.expires_at_ms - facts.now_ms) / DAY_MS
        cause = "after that the host can't register anew"
        yield warning("token", f"generation {record.generation} expires in {days:.1f} days", cause, _ROTATE)
    else:
        days = (record.expires_at_ms - facts.now_ms) / DAY_MS
        yield ok("token", f"generation {record.generation}, good for {days:.0f} days")


def stake(facts: Facts) -> Iterator[Finding]:
    if facts.role != "worker" or facts.chain.registry is None or facts.node_id is None:
        return
    worker = facts.chain.worker
    if worker is None:
        yield error(
            "stake",
            f"no worker {facts.node_id} in the registry",
            "nobody staked for this name, or the stake was withdrawn",
            "run playbooks/workers.yml",
        )
        return
    if worker.status in (WorkerStatus.SLASHED, WorkerStatus.UNBONDING):
        # Its stake is what is left of it, or on its way back.
        pass
    elif worker.stake_mist < worker.required_stake_mist:
        missing = worker.required_stake_mist - worker.stake_mist
        yield warning(
            "stake",
            f"{format_sui(worker.stake_mist)} staked, {format_sui(worker.required_stake_mist)} required at "
            f"reputation {worker.reputation}",
            "it gets no requests and earns nothing",
            f"raise the worker's stake by {format_sui(missing)}: contracts_stake, then playbooks/workers.yml",
        )
    else:
        yield ok("stake", f"{format_sui(worker.stake_mist)} at reputation {worker.reputation}")
    yield from _status(worker)


def _status(worker: Worker) -> Iterator[Finding]:
    said = f"{worker.node_id} is {worker.status.value} on-chain"
    match worker.status:
        case WorkerStatus.SLASHED:
            yield error("status", said, "it was slashed, which is final", "stake a new node id for this host")
        case WorkerStatus.JAILED:
            cause = "a slash is proposed: the stake is locked and the node cordoned"
            yield error("status", said, cause, "talk to the arbiter before the appeal window ends")
        case WorkerStatus.UNBONDING:
            yield warning("status", said, "its owner asked for the stake back", "nothing, if that was meant")
        case WorkerStatus.OFFLINE:
            cause = "the master heard no heartbeat for 5 minutes"
            yield warning("status", said, cause, f"see {WATCHER}: journalctl -u {WATCHER} -n 50", coming=True)
        case WorkerStatus.PENDING:
            cause = "it has staked and not joined yet: heartbeat and a Ready node make it active"
            yield warning("status", said, cause, f"see {AGENT}: journalctl -u {AGENT} -n 50", coming=True)
        case _:
            yield ok("status", said)


def name(facts: Facts) -> Iterator[Finding]:
    if facts.role != "worker" or facts.node_id is None:
        return
    configured = facts.k3s_config.get("node-name")
    if configured is not None and configured != facts.node_id:
        yield error(
            "name",
            f"k3s joins as {configured}, the stake is for {facts.node_id}",
            "the master gives the node password of the staked name only",
            "run playbooks/workers.yml, which writes both from the inventory's name",
        )
        return
    row, watcher, k3s = facts.master.row, facts.unit(WATCHER), facts.unit(AGENT)
    heard = (row or {}).get("last_heartbeat_ms")
    lately = isinstance(heard, int) and facts.now_ms - heard <= HEARD_LATELY_MS
    # Units that have just stopped may have been heard a moment ago: only both at once mean another host.
    silent = all(unit is not None and unit.active in ("inactive", "failed") for unit in (watcher, k3s))
    if row is not None and silent and lately and row.get("node_ready") is True:
        yield error(
            "name",
            f"{facts.node_id} beats and is Ready while watcher and agent don't run here",
            "another host runs under this name, with this worker's token",
            f"find it (kubectl get node {facts.node_id} -o wide) and stop it; then {_ROTATE}",
        )
    elif row is not None or configured is not None:
        yield ok("name", f"{facts.node_id} is this host's name everywhere")


def watcher(facts: Facts) -> Iterator[Finding]:
    """The watcher's own word, and whether the process that runs now was heard by the master."""
    said, unit = facts.watcher, facts.unit(WATCHER)
    if said is None or unit is None or unit.active != "active":
        return
    fix = f"journalctl -u {WATCHER} -n 50"
    started = unit.started_ms or 0
    fresh = facts.now_ms - started < BEATS_WITHIN_MS
    found = ""
    if said.problems is None:
        found, cause = said.trouble, "the unit runs, and its API gives no usable answer"
    elif said.problems:
        found, cause = f"the watcher says: {', '.join(said.problems)}", "it can't do all of its work"
    elif (said.last_heartbeat_ms or 0) < started:
        found = f"no heartbeat was taken since it was started {(facts.now_ms - started) / 1000:.0f} s ago"
        cause = "the master's last word is on the process before it"
    if not found:
        yield ok("watcher", "the watcher is well, and the master hears it")
    elif fresh:
        yield warning("watcher", found, cause, fix, coming=True)
    else:
        yield error("watcher", found, cause, fix)


def node(facts: Facts) -> Iterator[Finding]:
    """The cluster's word on this worker, by the master."""
    row, worker = facts.master.row, facts.chain.worker
    if row is None or worker is None or worker.status not in (WorkerStatus.ACTIVE, WorkerStatus.BUSY):
        return
    ready = row.get("node_ready")
    if ready is True:
        yield ok("node", f"the node {facts.node_id} is Ready")
    else:
        yield error(
            "node",
            f"the node {facts.node_id} is {'not Ready' if ready is False else 'not in the cluster'}",
            "the agent doesn't run, or its kubelet doesn't report",
            f"journalctl -u {AGENT} -n 50",
        )


def key(facts: Facts) -> Iterator[Finding]:
    """The master's wallet key, which is its part of what a worker's token is."""
    secret = facts.secret
    if secret is None or facts.role != "master":
        return
    if secret.missing:
        yield error(
            "key", f"there is no {secret.path}", "the master has no wallet", "run playbooks/master.yml"
        )
    elif secret.mode & 0o077:
        yield error(
            "key",
            f"{secret.path} has mode {secret.mode:04o}, wanted 0600",
            "others on this host could act as the master",
            "chmod 600 it; if others may have read it, remove it and run playbooks/master.yml for a new one",
        )
    elif secret.trouble is not None:
        yield error(
            "key", secret.trouble, "the master can't sign", "restore the key, or let the play make one"
        )
    else:
        yield ok("key", f"the wallet's key is there: {facts.account}")
