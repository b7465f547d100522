"""Looks at everything there is to see of one host. What fails leaves its part of the facts empty."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from k3s_daas import join, release
from k3s_daas.chain.errors import ChainError, ChainUnreachable, WrongNetwork
from k3s_daas.chainconfig import ChainConfig, InvalidConfig, load_chain, read
from k3s_daas.doctor.checks_host import AGENT, MASTER, WATCHER
from k3s_daas.doctor.facts import Facts, MasterSays, OnChain, Port, SuiAnswer
from k3s_daas.doctor.probes import Paths, Probes
from k3s_daas.registry import InvalidNodeId, Registry, check_node_id

_TIMEOUT_S = 5.0
_UNITS = {
    "worker": (AGENT, WATCHER, "k3s-daas-agent-control.path"),
    "master": ("k3s.service", MASTER),
}
_KUBELET = "http://127.0.0.1:10248/healthz"
_WATCHER_LISTEN = "127.0.0.1:10280"


class NothingHere(Exception):
    """This host has neither a worker's nor a master's configuration."""


@dataclass
class _Seen:
    """What the chain part of the look brought."""

    endpoints: list[SuiAnswer] = field(default_factory=list)
    chain: OnChain = field(default_factory=OnChain)


def gather(probes: Probes, paths: Paths, config: Path | None = None) -> Facts:
    """Everything about this host. Raises NothingHere."""
    role, path = _role(paths, config)
    facts = Facts(role, probes.now_ms(), str(path))
    try:
        facts = replace(facts, config=read(path), chain_config=load_chain(path))
    except InvalidConfig as error:
        facts = replace(facts, config_trouble=str(error))
    facts = _look_at_host(facts, probes, paths)
    if facts.chain_config is not None:
        seen = asyncio.run(_ask_chain(facts, facts.chain_config, probes))
        # The clock is read next to the chain's answer: slow look-ups in between are not its fault.
        facts = replace(facts, now_ms=probes.now_ms(), endpoints=tuple(seen.endpoints), chain=seen.chain)
    return _look_at_master(facts, probes)


def _role(paths: Paths, config: Path | None) -> tuple[Literal["worker", "master"], Path]:
    if config is not None:
        return ("master" if config.name == paths.master_config.name else "worker"), config
    if paths.master_config.exists():
        return "master", paths.master_config
    if paths.worker_config.exists():
        return "worker", paths.worker_config
    raise NothingHere(
        f"Found neither {paths.worker_config} nor {paths.master_config}; wanted a host that the plays set "
        "up. Run playbooks/workers.yml or playbooks/master.yml for it, or name a file with --config."
    )


def _look_at_host(facts: Facts, probes: Probes, paths: Paths) -> Facts:
    disks = [disk for path in paths.disks if (disk := probes.disk(path)) is not None]
    facts = replace(
        facts,
        addresses=probes.addresses(),
        k3s_config=probes.k3s_config(paths.k3s_config),
        units=probes.units(_UNITS[facts.role]),
        release=release.read(paths.release),
        disks=tuple({(d.free_bytes, d.total_bytes): d for d in reversed(disks)}.values()),
    )
    if facts.role == "worker":
        url = facts.config.get("kubelet_health_url", _KUBELET)
        return replace(
            facts,
            secret=probes.seal_token(paths.seal_token),
            stop_marker=probes.exists(paths.stop_marker),
            kubelet=probes.kubelet(str(url)),
            watcher=probes.watcher(f"http://{facts.config.get('listen', _WATCHER_LISTEN)}"),
        )
    secret, account = probes.key(Path(str(facts.config.get("key_file", "/var/lib/k3s-daas-master/sui.key"))))
    certificate = Path(str(facts.config.get("tls_cert", "/etc/k3s-daas/tls/server.crt")))
    return replace(
        facts,
        secret=secret,
        account=account,
        certificate_expires_ms=probes.certificate_expires_ms(certificate),
    )


async def _ask_chain(facts: Facts, config: ChainConfig, probes: Probes) -> _Seen:
    from k3s_daas.chain import SuiClient

    seen = _Seen()
    for url in config.endpoints:
        host = urlsplit(url).hostname or ""
        if (why := probes.unresolved(host)) is not None:
            seen.endpoints.append(SuiAnswer(url, unresolved=why))
            continue
        try:
            async with await SuiClient.connect(
                [url], config.network, chain_id=config.chain_id, timeout_s=_TIMEOUT_S
            ) as client:
                _, timestamp_ms = await client.latest_checkpoint()
                seen.endpoints.append(SuiAnswer(url, checkpoint_ms=timestamp_ms))
                if seen.chain == OnChain():
                    seen.chain = await _read_registry(facts, Registry(client, config.deployment))
        except WrongNetwork as error:
            seen.endpoints.append(SuiAnswer(url, wrong_chain=f"serves {error.found}, wanted {error.wanted}"))
        except ChainUnreachable as error:
            why = "; ".join(error.tried.values()) or "no answer"
            seen.endpoints.append(SuiAnswer(url, trouble=why))
        except ChainError as error:
            seen.endpoints.append(SuiAnswer(url, trouble=str(error)))
    return seen


async def _read_registry(facts: Facts, registry: Registry) -> OnChain:
    try:
        found = OnChain(registry=await registry.config())
        if facts.role == "master":
            address = facts.account or (found.master.account if found.master else None)
            balance = await registry.chain.balance(address) if address else None
            return replace(found, balance_mist=balance)
        return await _read_worker(facts, registry, found)
    except ChainUnreachable:
        raise
    except ChainError as error:
        return OnChain(trouble=str(error))


async def _read_worker(facts: Facts, registry: Registry, found: OnChain) -> OnChain:
    try:
        node_id = check_node_id(facts.node_id)
    except InvalidNodeId:
        return found
    worker, token = await registry.worker(node_id), await registry.worker_token(node_id)
    found = replace(found, worker=worker, token=token)
    mine = facts.secret.commitment if facts.secret is not None else None
    if mine is not None and (token is None or token.commitment != mine):
        # Whose token is it then? Only asked when something is wrong, for it reads the whole registry.
        names = [each.node_id for each in await registry.workers()]
        owners = {record.commitment: name for name, record in (await registry.worker_tokens(names)).items()}
        found = replace(found, token_of=owners.get(mine))
    return found


def _look_at_master(facts: Facts, probes: Probes) -> Facts:
    master = facts.chain.master
    if master is None or not master.endpoint:
        return facts
    ports = (
        announced_port(probes, "the API server", master.api_server),
        announced_port(probes, "the master", master.endpoint),
    )
    facts = replace(facts, ports=ports)
    if not ports[0].reached:
        return facts
    try:
        ca = probes.cacerts(master.api_server, master.ca_hash)
    except join.CaMismatch as error:
        return replace(facts, ca_mismatch=(error.found, error.wanted))
    except join.JoinError as error:
        return replace(facts, master=MasterSays(trouble=str(error)))
    facts = replace(facts, ca_checked=True)
    if ports[1].reached:
        facts = replace(facts, master=probes.master(master.endpoint, ca, facts.node_id))
    return facts


def announced_port(probes: Probes, what: str, url: str) -> Port:
    """The port behind a URL that comes off the chain, where it may be anything."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        return Port(what, url[:100], trouble="its address on-chain is no https://host:port")
    return probes.port(what, host, port or 443)
