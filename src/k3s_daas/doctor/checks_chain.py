"""Checks of configuration, clock, names, network, registry and the announced master."""

from __future__ import annotations

from collections.abc import Iterator

from k3s_daas.doctor.facts import Facts, Finding, error, ok, warning
from k3s_daas.units import format_sui

#: The master refuses messages further than this from its clock.
CLOCK_LIMIT_MS = 60_000
#: A checkpoint takes some seconds to come; more than this is the clock's, or the endpoint's.
CLOCK_NEAR_MS = 20_000


def config(facts: Facts) -> Iterator[Finding]:
    if facts.config_trouble is not None:
        play = "playbooks/master.yml" if facts.role == "master" else "playbooks/workers.yml"
        yield error(
            "config",
            facts.config_trouble,
            "the services don't start, or not as the operator meant",
            f"correct the inventory's variables and run {play}",
        )
    else:
        yield ok("config", f"{facts.config_path} names a registry on {facts.config.get('network')}")


def clock(facts: Facts) -> Iterator[Finding]:
    seen = [answer.checkpoint_ms for answer in facts.endpoints if answer.checkpoint_ms is not None]
    if not seen:
        return
    ahead_ms = facts.now_ms - max(seen)
    said = f"this clock is {abs(ahead_ms) / 1000:.1f} s {'ahead of' if ahead_ms >= 0 else 'behind'} the chain"
    fix = "let chrony or systemd-timesyncd set the clock: timedatectl set-ntp true"
    # A localnet's own clock may be turned forward, which says nothing about this host's.
    if ahead_ms < 0 and facts.config.get("network") == "localnet":
        yield ok("clock", said)
    elif abs(ahead_ms) > CLOCK_LIMIT_MS:
        yield error("clock", said, "more than 60 s: the master refuses its messages as clock_skew", fix)
    elif abs(ahead_ms) > CLOCK_NEAR_MS:
        yield warning("clock", said, "from 60 s on the master refuses its messages", fix)
    else:
        yield ok("clock", said)


def dns(facts: Facts) -> Iterator[Finding]:
    named = [(answer.url, answer.unresolved) for answer in facts.endpoints]
    named += [(port.address, port.unresolved) for port in facts.ports]
    unknown = [(name, why) for name, why in named if why is not None]
    for name, why in unknown:
        yield error(
            "dns",
            f"{name}: {why}",
            "the name has no address here",
            "correct the name, or this host's resolver: resolvectl status, /etc/resolv.conf",
        )
    if named and not unknown:
        yield ok("dns", f"{len(named)} names and addresses resolve")


def network(facts: Facts) -> Iterator[Finding]:
    wrong = [answer for answer in facts.endpoints if answer.wrong_chain is not None]
    for answer in wrong:
        yield error(
            "network",
            f"{answer.url}: {answer.wrong_chain}",
            "the endpoint serves another chain than the one configured",
            "correct k3s_daas_network, k3s_daas_chain_id or k3s_daas_sui_endpoints and run the play again",
        )
    silent = [answer for answer in facts.endpoints if answer.trouble is not None]
    good = [answer for answer in facts.endpoints if answer.checkpoint_ms is not None]
    for answer in silent:
        level = warning if good else error
        yield level(
            "endpoint",
            f"{answer.url}: {answer.trouble}",
            "another endpoint answers" if good else "the chain can't be read from here",
            "check this host's way out and its firewall, or set another endpoint in k3s_daas_sui_endpoints",
        )
    if good and not wrong:
        yield ok("network", f"{len(good)} of {len(facts.endpoints)} endpoints serve the configured chain")


def registry(facts: Facts) -> Iterator[Finding]:
    if facts.chain.trouble is not None:
        yield error(
            "registry",
            facts.chain.trouble,
            "the configured registry or package isn't there",
            "correct contracts_registry_id and contracts_package_id, or run playbooks/contracts.yml",
        )
    elif facts.chain.registry is not None:
        yield ok("registry", f"{facts.chain.registry.name}: {facts.chain.registry.worker_count} workers")


def announced(facts: Facts) -> Iterator[Finding]:
    if facts.chain.registry is None:
        return
    master = facts.chain.master
    if master is None:
        yield error(
            "master", "the registry names no master", "nobody was appointed", "run playbooks/master.yml"
        )
    elif not master.endpoint:
        yield error(
            "master",
            f"master {master.account} (epoch {master.epoch}) has announced no address",
            "it was appointed and never came up, or has no gas to announce itself",
            "look at k3s-daas-master.service on the master; run playbooks/master.yml",
        )
    elif facts.role == "master" and facts.account is not None and facts.account != master.account:
        yield error(
            "master",
            f"the registry names {master.account}, this host's key is {facts.account}",
            "another master was appointed since, or this host's key was made anew",
            "run playbooks/master.yml to appoint this one, or stop k3s-daas-master here",
        )
    elif facts.role == "master" and facts.config.get("endpoint") != master.endpoint:
        yield error(
            "master",
            f"announced is {master.endpoint}, configured {facts.config.get('endpoint')}",
            "its address changed and the new one isn't on-chain",
            "start k3s-daas-master: it announces itself; see its journal if it doesn't",
        )
    else:
        yield ok("master", f"{master.endpoint} (epoch {master.epoch})")


def gas(facts: Facts) -> Iterator[Finding]:
    balance = facts.chain.balance_mist
    if balance is None:
        return
    if balance < 50_000_000:
        yield warning(
            "gas",
            f"the master's wallet holds {format_sui(balance)}",
            "with less than 0.05 SUI it soon can't write on-chain",
            "run playbooks/master.yml: it tops the wallet up",
        )
    else:
        yield ok("gas", f"the master's wallet holds {format_sui(balance)}")
