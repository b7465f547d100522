"""Checks of ports, CA, interface, units, agent and disk."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from k3s_daas.doctor.facts import Facts, Finding, error, ok, warning

_MB = 1_000_000
#: The kubelet evicts pods from 10 % free space down; with less than this, services can't write their state.
DISK_LOW_SHARE, DISK_FULL_BYTES = 0.10, 256 * _MB
CERTIFICATE_SOON_MS = 7 * 86_400_000
RESTARTS_MANY = 3
AGENT, WATCHER, MASTER = "k3s-agent.service", "k3s-daas-watcher.service", "k3s-daas-master.service"


def ports(facts: Facts) -> Iterator[Finding]:
    for port in facts.ports:
        if port.unresolved is not None:
            continue
        if port.trouble is None:
            yield ok("port", f"{port.what} at {port.address} is reached")
        elif port.refused:
            yield error(
                "port",
                f"{port.what} at {port.address}: connection refused",
                "the host is there, and nothing listens on that port",
                "start k3s.service and k3s-daas-master.service on the master; see playbooks/master.yml",
            )
        else:
            yield error(
                "port",
                f"{port.what} at {port.address}: {port.trouble}",
                "no answer at all: a firewall, a route, or the host is down",
                "let TCP 6443 and 8443 through from the workers to the master, and check the route",
            )


def ca(facts: Facts) -> Iterator[Finding]:
    if facts.ca_mismatch is not None:
        found, wanted = facts.ca_mismatch
        yield error(
            "ca",
            f"served is CA {found[:16]}…, announced on-chain {wanted[:16]}…",
            "somebody else answers at the API server's address, or the cluster's CA was replaced",
            "find out who answers there; if the CA was renewed, run playbooks/master.yml, which announces it",
        )
    elif facts.master.untrusted is not None:
        yield error(
            "ca",
            f"the master's certificate: {facts.master.untrusted}",
            "it isn't of the announced CA, has expired, or isn't for that address",
            "restart k3s-daas-master.service on the master: it makes itself a new one at each start",
        )
    elif facts.ca_checked:
        yield ok("ca", "the API server serves the announced CA")


def certificate(facts: Facts) -> Iterator[Finding]:
    expires = facts.certificate_expires_ms
    if expires is None:
        return
    days = (expires - facts.now_ms) / 86_400_000
    fix = "systemctl restart k3s-daas-master: it makes itself a new one at each start"
    if days <= 0:
        yield error("certificate", f"expired {-days:.0f} days ago", "no worker can reach the API", fix)
    elif expires - facts.now_ms <= CERTIFICATE_SOON_MS:
        yield warning("certificate", f"expires in {days:.1f} days", "then no worker can reach the API", fix)
    else:
        yield ok("certificate", f"good for {days:.0f} days")


def master_says(facts: Facts) -> Iterator[Finding]:
    said = facts.master
    if said.trouble is not None:
        yield error(
            "master-api",
            said.trouble,
            "something listens there and gives no usable answer",
            "look at the journal of k3s-daas-master.service on the master",
        )
    cause, fix = (
        "the master says itself that it can't do all of its work",
        "run `k3s-daas doctor` on the master",
    )
    for reason in said.reasons or ():
        if facts.role == "master":
            yield error("master-api", reason, cause, fix)
        else:
            yield warning("master-api", reason, cause, fix, coming=True)
    if said.reasons == ():
        yield ok("master-api", "the master is ready")


def interface(facts: Facts) -> Iterator[Finding]:
    local = {address for addresses in facts.addresses.values() for address in addresses}
    play = "playbooks/master.yml" if facts.role == "master" else "playbooks/workers.yml"
    wanted = facts.k3s_config.get("node-ip")
    problems = False
    for address in str(wanted).split(",") if wanted else []:
        if address not in local:
            problems = True
            yield error(
                "interface",
                f"node-ip is {address}; this host has {', '.join(sorted(local)) or 'no address'}",
                "other nodes can't reach this one at that address",
                f"set ansible_host, or the role's node-ip, to an address of this host and run {play}",
            )
        elif _is_loopback(address):
            problems = True
            yield error(
                "interface",
                f"node-ip is {address}, a loopback address",
                "other nodes can't reach this one at that address",
                f"set ansible_host to an address that the other hosts reach and run {play}",
            )
    flannel = facts.k3s_config.get("flannel-iface")
    if flannel and flannel not in facts.addresses:
        problems = True
        yield error(
            "interface",
            f"flannel-iface is {flannel}; this host has {', '.join(sorted(facts.addresses))}",
            "k3s doesn't start without it",
            "name an interface of this host in k3s_agent_config or k3s_server_config and run the play",
        )
    if wanted and not problems:
        yield ok("interface", f"node-ip {wanted} is this host's")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def units(facts: Facts) -> Iterator[Finding]:
    if facts.stop_marker:
        yield error(
            "units",
            "the agent was stopped for good: /var/lib/k3s-daas/agent-stopped is there",
            "the watcher saw this worker slashed",
            "a slash is final: stake a new node id for this host",
        )
        return
    play = "playbooks/master.yml" if facts.role == "master" else "playbooks/workers.yml"
    for unit in facts.units:
        journal = f"journalctl -u {unit.name} -n 50"
        if unit.load == "not-found":
            yield error(
                "units", f"{unit.name} isn't installed", "the play never came this far", f"run {play}"
            )
        elif unit.active == "failed":
            cause = f"it ended with {unit.result or 'an error'}"
            yield error(
                "units", f"{unit.name} failed", cause, f"{journal}, then systemctl restart {unit.name}"
            )
        elif unit.active == "activating":
            cause = f"it was started {unit.restarts} times and never became ready"
            said = f"{unit.name} is starting ({unit.sub})"
            if unit.restarts >= RESTARTS_MANY:
                yield error("units", said, cause, journal)
            else:
                yield warning("units", said, cause, journal, coming=True)
        elif unit.active != "active":
            yield error(
                "units", f"{unit.name} is {unit.active}", "it was stopped", f"systemctl start {unit.name}"
            )
        elif unit.restarts >= RESTARTS_MANY:
            cause = "it keeps ending, and systemd starts it again"
            yield warning("units", f"{unit.name} was restarted {unit.restarts} times", cause, journal)
        else:
            yield ok("units", f"{unit.name} is {unit.active} ({unit.sub})")


def agent(facts: Facts) -> Iterator[Finding]:
    unit = facts.unit(AGENT)
    if facts.kubelet is None or unit is None or unit.active != "active":
        return
    if facts.kubelet != "ok":
        yield error(
            "agent",
            f"the kubelet's health page says {facts.kubelet[:80] or 'nothing'}",
            "the unit runs, its kubelet doesn't work; the watcher restarts it after 3 failed heartbeats",
            f"journalctl -u {AGENT} -n 50, then systemctl restart {AGENT}",
        )
    else:
        yield ok("agent", "the kubelet is healthy")


def disk(facts: Facts) -> Iterator[Finding]:
    for each in facts.disks:
        share = each.free_bytes / each.total_bytes if each.total_bytes else 0.0
        said = f"{each.path} has {each.free_bytes / _MB:.0f} MB free ({share:.0%})"
        fix = "make room: journalctl --vacuum-size=200M, k3s crictl rmi --prune, or a larger disk"
        if each.free_bytes < DISK_FULL_BYTES:
            yield error("disk", said, "the services can't keep their state: messages are refused", fix)
        elif share < DISK_LOW_SHARE:
            yield warning("disk", said, "below 10 % the kubelet evicts pods", fix)
        else:
            yield ok("disk", said)
