"""All checks, in the order in which their findings make sense: a later one may follow from an earlier."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from k3s_daas.doctor import checks_chain, checks_host, checks_worker
from k3s_daas.doctor.facts import Facts, Finding

CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    checks_chain.config,
    checks_chain.dns,
    checks_chain.network,
    checks_chain.clock,
    checks_chain.registry,
    checks_chain.announced,
    checks_chain.gas,
    checks_host.ports,
    checks_host.ca,
    checks_host.certificate,
    checks_host.master_says,
    checks_worker.key,
    checks_worker.token,
    checks_worker.stake,
    checks_worker.name,
    checks_host.interface,
    checks_host.units,
    checks_host.agent,
    checks_worker.watcher,
    checks_worker.node,
    checks_host.disk,
)


def examine(facts: Facts) -> list[Finding]:
    """Everything that is found, good and bad."""
    return [finding for check in CHECKS for finding in check(facts)]
