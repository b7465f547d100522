"""Every check: well when all is well, and its finding when its one thing is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from k3s_daas.doctor.checks import examine
from k3s_daas.doctor.command import settled
from k3s_daas.doctor.facts import Disk, Facts, MasterSays, OnChain, Port, SecretFile, SuiAnswer, WatcherSays
from k3s_daas.registry import WorkerStatus

DAY_MS = 86_400_000
URL = "https://fullnode.testnet.sui.io:443"
Change = Callable[[Facts], Facts]


def bad(facts: Facts) -> list[tuple[str, str, str]]:
    """(check, level, what was found) of everything that isn't well; each must say why and what to do."""
    findings = [finding for finding in examine(facts) if finding.level != "ok"]
    assert all(finding.cause and finding.fix for finding in findings)
    return [(finding.check, finding.level, finding.found) for finding in findings]


def on_chain(**changes: Any) -> Change:
    return lambda f: replace(f, chain=replace(f.chain, **changes))


def worker_record(**changes: Any) -> Change:
    return lambda f: replace(f, chain=replace(f.chain, worker=replace(f.chain.worker, **changes)))  # type: ignore[type-var]


def token_record(**changes: Any) -> Change:
    return lambda f: replace(f, chain=replace(f.chain, token=replace(f.chain.token, **changes)))  # type: ignore[type-var]


def announced(**changes: Any) -> Change:
    def change(facts: Facts) -> Facts:
        registry = facts.chain.registry
        assert registry is not None
        assert registry.master is not None
        master = replace(registry.master, **changes)
        return replace(facts, chain=replace(facts.chain, registry=replace(registry, master=master)))

    return change


def no_master(facts: Facts) -> Facts:
    registry = facts.chain.registry
    assert registry is not None
    return replace(facts, chain=replace(facts.chain, registry=replace(registry, master=None)))


def clock(ms: int) -> Change:
    return lambda f: replace(f, endpoints=(SuiAnswer(URL, checkpoint_ms=f.now_ms - ms),))


def units(name: str, **changes: Any) -> Change:
    return lambda f: replace(f, units=tuple(replace(u, **changes) if u.name == name else u for u in f.units))


def with_(**changes: Any) -> Change:
    return lambda f: replace(f, **changes)


def other_host_under_our_name(facts: Facts) -> Facts:
    stopped = tuple(replace(unit, active="inactive") for unit in facts.units)
    return replace(facts, units=stopped)


def unheard(facts: Facts) -> Facts:
    return replace(facts, watcher=WatcherSays((), None))


def row(**changes: Any) -> Change:
    return lambda f: replace(f, master=replace(f.master, row={**(f.master.row or {}), **changes}))


API, WORK = Port("the API server", "10.0.0.1:6443"), Port("the master", "10.0.0.1:8443")
REFUSED = replace(API, refused=True, trouble="connection refused")
SILENT = replace(WORK, trouble="no answer within 5 s")
SECRET = SecretFile("/etc/k3s-daas/seal-token", mode=0o600)
AGENT, WATCHER = "k3s-agent.service", "k3s-daas-watcher.service"

WORKER_CASES: list[tuple[Change, str, str, str]] = [
    (with_(config_trouble="registry_id: nothing"), "config", "error", "registry_id: nothing"),
    (clock(61_000), "clock", "error", "61.0 s ahead of the chain"),
    (clock(-3_600_000), "clock", "error", "3600.0 s behind the chain"),
    (clock(30_000), "clock", "warning", "30.0 s ahead"),
    (with_(endpoints=(SuiAnswer(URL, unresolved="Name or service not known"),)), "dns", "error", "not known"),
    (with_(ports=(replace(API, unresolved="no address"), WORK)), "dns", "error", "10.0.0.1:6443: no address"),
    (
        with_(endpoints=(SuiAnswer(URL, wrong_chain="serves chain A, wanted B"),)),
        "network",
        "error",
        "serves chain A",
    ),
    (with_(endpoints=(SuiAnswer(URL, trouble="refused"),)), "endpoint", "error", "refused"),
    (
        lambda f: replace(f, endpoints=(*f.endpoints, SuiAnswer("https://two:443", trouble="slow"))),
        "endpoint",
        "warning",
        "https://two:443: slow",
    ),
    (with_(chain=OnChain(trouble="No object 0x9")), "registry", "error", "No object 0x9"),
    (no_master, "master", "error", "names no master"),
    (announced(endpoint=""), "master", "error", "has announced no address"),
    (with_(ports=(REFUSED, WORK)), "port", "error", "10.0.0.1:6443: connection refused"),
    (with_(ports=(API, SILENT)), "port", "error", "10.0.0.1:8443: no answer within 5 s"),
    (with_(ca_mismatch=("aa" * 32, "bb" * 32)), "ca", "error", "aaaaaaaaaaaaaaaa"),
    (with_(master=MasterSays(untrusted="certificate has expired")), "ca", "error", "has expired"),
    (with_(master=MasterSays(trouble="answered 502")), "master-api", "error", "answered 502"),
    (with_(master=MasterSays(("chain: view is 70 s old",))), "master-api", "warning", "70 s old"),
    (with_(secret=replace(SECRET, missing=True)), "token", "error", "there is no /etc/k3s-daas/seal-token"),
    (lambda f: replace(f, secret=replace(f.secret, mode=0o644)), "token", "error", "mode 0644, wanted 0600"),
    (with_(secret=replace(SECRET, trouble="token has 3 characters")), "token", "error", "3 characters"),
    (on_chain(token=None), "token", "error", "no token on-chain"),
    (token_record(commitment=b"\x09" * 32), "token", "error", "another token of worker-1 (generation 2)"),
    (on_chain(**{"token_of": "worker-7"}), "token", "error", "that of worker worker-7; here it is worker-1"),
    (token_record(revoked=True), "token", "error", "generation 2 is revoked"),
    (lambda f: token_record(expires_at_ms=f.now_ms - DAY_MS)(f), "token", "error", "expired 1.0 days ago"),
    (lambda f: token_record(expires_at_ms=f.now_ms + 13 * DAY_MS)(f), "token", "warning", "in 13.0 days"),
    (on_chain(worker=None), "stake", "error", "no worker worker-1 in the registry"),
    (worker_record(reputation=90), "stake", "warning", "1 SUI staked, 1.1 SUI required at reputation 90"),
    (worker_record(status=WorkerStatus.SLASHED), "status", "error", "slashed"),
    (worker_record(status=WorkerStatus.JAILED), "status", "error", "jailed"),
    (worker_record(status=WorkerStatus.UNBONDING), "status", "warning", "unbonding"),
    (worker_record(status=WorkerStatus.OFFLINE), "status", "warning", "offline"),
    (worker_record(status=WorkerStatus.PENDING), "status", "warning", "pending"),
    (
        with_(k3s_config={"node-name": "worker-9", "node-ip": "10.0.0.2"}),
        "name",
        "error",
        "joins as worker-9",
    ),
    (other_host_under_our_name, "name", "error", "beats and is Ready while watcher and agent don't run here"),
    (
        with_(k3s_config={"node-ip": "10.9.9.9"}),
        "interface",
        "error",
        "node-ip is 10.9.9.9; this host has 10.0.0.2",
    ),
    (with_(k3s_config={"node-ip": "127.0.0.1"}), "interface", "error", "a loopback address"),
    (
        with_(k3s_config={"flannel-iface": "wg0"}),
        "interface",
        "error",
        "flannel-iface is wg0; this host has eth0",
    ),
    (units(AGENT, active="failed", result="exit-code"), "units", "error", f"{AGENT} failed"),
    (units(AGENT, load="not-found"), "units", "error", f"{AGENT} isn't installed"),
    (units(AGENT, active="inactive"), "units", "error", f"{AGENT} is inactive"),
    (units(AGENT, active="activating", sub="start"), "units", "warning", f"{AGENT} is starting (start)"),
    (
        units(AGENT, active="activating", sub="auto-restart", restarts=9),
        "units",
        "error",
        "is starting (auto-restart)",
    ),
    (units(WATCHER, restarts=5), "units", "warning", f"{WATCHER} was restarted 5 times"),
    (with_(stop_marker=True), "units", "error", "stopped for good"),
    (with_(kubelet=""), "agent", "error", "health page says nothing"),
    (with_(kubelet="[-]ping failed"), "agent", "error", "[-]ping failed"),
    (with_(watcher=WatcherSays(trouble="refused")), "watcher", "error", "refused"),
    (with_(watcher=WatcherSays(("state_unwritable", "slow"))), "watcher", "error", "state_unwritable, slow"),
    (
        lambda f: units(WATCHER, started_ms=f.now_ms - 90_000)(unheard(f)),
        "watcher",
        "error",
        "started 90 s ago",
    ),
    (lambda f: units(WATCHER, started_ms=f.now_ms - 4_000)(f), "watcher", "warning", "started 4 s ago"),
    (row(node_ready=False), "node", "error", "the node worker-1 is not Ready"),
    (row(node_ready=None), "node", "error", "the node worker-1 is not in the cluster"),
    (with_(disks=(Disk("/", 10**8, 10**11),)), "disk", "error", "/ has 100 MB free"),
    (with_(disks=(Disk("/", 9 * 10**9, 10**11),)), "disk", "warning", "/ has 9000 MB free (9%)"),
]

MASTER_CASES: list[tuple[Change, str, str, str]] = [
    (announced(account="0x1"), "master", "error", "the registry names 0x1, this host's key is 0xcccc"),
    (announced(endpoint="https://10.0.0.9:8443"), "master", "error", "announced is https://10.0.0.9:8443"),
    (on_chain(balance_mist=49_999_999), "gas", "warning", "0.049999999 SUI"),
    (lambda f: replace(f, certificate_expires_ms=f.now_ms - DAY_MS), "certificate", "error", "1 days ago"),
    (lambda f: replace(f, certificate_expires_ms=f.now_ms + DAY_MS), "certificate", "warning", "1.0 days"),
    (with_(master=MasterSays(("nodes: no answer",))), "master-api", "error", "nodes: no answer"),
    (with_(secret=replace(SECRET, missing=True)), "key", "error", "there is no"),
    (with_(secret=replace(SECRET, mode=0o640)), "key", "error", "mode 0640"),
    (with_(secret=replace(SECRET, trouble="no Ed25519 key")), "key", "error", "no Ed25519 key"),
    (units("k3s.service", active="failed", result="oom-kill"), "units", "error", "k3s.service failed"),
]


def test_a_host_that_is_well_has_no_finding(worker: Facts, master: Facts) -> None:
    assert bad(worker) == []
    assert bad(master) == []
    assert {finding.check for finding in examine(worker)} >= {
        "config", "dns", "network", "clock", "registry", "master", "port", "ca", "master-api", "token",
        "stake", "status", "name", "interface", "units", "agent", "watcher", "node", "disk",
    }  # fmt: skip
    assert {finding.check for finding in examine(master)} >= {"key", "gas", "certificate"}


@pytest.mark.parametrize(("change", "check", "level", "found"), WORKER_CASES)
def test_what_is_broken_on_a_worker_is_found(
    worker: Facts, change: Change, check: str, level: str, found: str
) -> None:
    first = next(finding for finding in bad(change(worker)) if finding[0] == check)
    assert first[1] == level
    assert found in first[2]


@pytest.mark.parametrize(("change", "check", "level", "found"), MASTER_CASES)
def test_what_is_broken_on_a_master_is_found(
    master: Facts, change: Change, check: str, level: str, found: str
) -> None:
    first = next(finding for finding in bad(change(master)) if finding[0] == check)
    assert first[1] == level
    assert found in first[2]


@pytest.mark.parametrize(("change", "check", "level", "found"), [c for c in WORKER_CASES if c[1] != "units"])
def test_one_thing_broken_is_one_finding(
    worker: Facts, change: Change, check: str, level: str, found: str
) -> None:
    others = {name for name, _, _ in bad(change(worker))} - {check}
    # What follows from another finding is allowed where it says more than that.
    assert others <= ({"units"} if change is other_host_under_our_name else set())


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        (with_(), False),
        # Somebody has to do something, or has time to.
        (with_(kubelet=""), True),
        (with_(disks=(Disk("/", 9 * 10**9, 10**11),)), False),
        (units(WATCHER, restarts=5), False),
        # It is just coming up.
        (units(AGENT, active="activating", sub="start"), True),
        (with_(master=MasterSays(("chain: view is 70 s old",))), True),
        (worker_record(status=WorkerStatus.PENDING), True),
        (worker_record(status=WorkerStatus.OFFLINE), True),
        (lambda f: units(WATCHER, started_ms=f.now_ms - 4_000)(f), True),
    ],
)
def test_what_is_waited_for(worker: Facts, change: Change, waits: bool) -> None:
    assert settled(examine(change(worker))) is not waits


def test_a_worker_that_is_no_more_has_no_node_to_be_ready(worker: Facts) -> None:
    leaving = worker_record(status=WorkerStatus.UNBONDING)(row(node_ready=None)(worker))
    assert [name for name, _, _ in bad(leaving)] == ["status"]


@pytest.mark.parametrize("status", [WorkerStatus.SLASHED, WorkerStatus.UNBONDING])
def test_who_is_leaving_is_not_asked_for_more_stake(worker: Facts, status: WorkerStatus) -> None:
    assert [name for name, _, _ in bad(worker_record(status=status, stake_mist=1)(worker))] == ["status"]


def test_a_localnets_clock_may_lead(worker: Facts) -> None:
    local = replace(worker, config=worker.config | {"network": "localnet"})
    assert bad(clock(-3_600_000)(local)) == []
    assert bad(clock(3_600_000)(local))[0][0] == "clock"


def test_a_stop_of_the_agent_is_told_once(worker: Facts) -> None:
    stopped = replace(other_host_under_our_name(worker), stop_marker=True, master=MasterSays(()))
    assert [name for name, _, _ in bad(stopped)] == ["units"]


def test_without_any_chain_the_host_is_still_examined(worker: Facts) -> None:
    dark = replace(
        worker,
        endpoints=(SuiAnswer(URL, trouble="no answer"),),
        chain=OnChain(),
        ports=(),
        ca_checked=False,
        master=MasterSays(),
    )
    assert [name for name, _, _ in bad(dark)] == ["endpoint"]
    full = replace(dark, disks=(Disk("/", 1, 10),))
    assert [name for name, _, _ in bad(full)] == ["endpoint", "disk"]


def test_a_host_without_systemd_has_no_units_to_judge(worker: Facts) -> None:
    assert bad(replace(worker, units=())) == []
