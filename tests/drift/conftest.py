"""A fleet that agrees in everything, and ways to take that away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from k3s_daas import join
from k3s_daas.drift import Cluster, Fleet, Host, Node, OnChain, Seen, Unit
from k3s_daas.registry import Master, RegistryConfig, RegistryParams, SealTokenRecord, Worker, WorkerStatus
from k3s_daas.registry.settings import Wanted

NOW_MS = 1_790_000_000_000
WALLET, OTHER = "0x" + "a" * 64, "0x" + "b" * 64
VERSION = "v1.34.2+k3s1"
ENDPOINT, API_SERVER = "https://10.0.0.11:8443", "https://10.0.0.11:6443"
RUNS = Unit(active="active", sub="running", enabled="enabled")


def worker(name: str, owner: str = WALLET, status: WorkerStatus = WorkerStatus.ACTIVE) -> Worker:
    return Worker(name, owner, 10**9, status, "0x5", owner, NOW_MS, NOW_MS, 10**9, 0, 0, 1000, 100)


def token(name: str, owner: str = WALLET) -> SealTokenRecord:
    return SealTokenRecord("worker", name, owner, name.encode().ljust(32), 3, NOW_MS, NOW_MS + 10**9, False)


@dataclass(frozen=True)
class Sides:
    """What `compare` takes; each method is a copy with one thing changed."""

    fleet: Fleet
    seen: Seen

    def fleet_with(self, **changes: Any) -> Sides:
        return replace(self, fleet=replace(self.fleet, **changes))

    def seen_with(self, **changes: Any) -> Sides:
        return replace(self, seen=replace(self.seen, **changes))

    def config_with(self, **changes: Any) -> Sides:
        assert self.seen.chain is not None
        config = replace(self.seen.chain.config, **changes)
        return self.seen_with(chain=replace(self.seen.chain, config=config))

    def master_with(self, **changes: Any) -> Sides:
        assert self.seen.chain is not None
        assert self.seen.chain.config.master is not None
        return self.config_with(master=replace(self.seen.chain.config.master, **changes))

    def worker_with(self, name: str, **changes: Any) -> Sides:
        """The chain's record of a worker."""
        assert self.seen.chain is not None
        workers = dict(self.seen.chain.workers)
        workers[name] = replace(workers[name], **changes)
        return self.seen_with(chain=replace(self.seen.chain, workers=workers))

    def token_with(self, name: str, **changes: Any) -> Sides:
        assert self.seen.chain is not None
        tokens = dict(self.seen.chain.tokens)
        tokens[name] = replace(tokens[name], **changes)
        return self.seen_with(chain=replace(self.seen.chain, tokens=tokens))

    def host_with(self, name: str, **changes: Any) -> Sides:
        hosts = dict(self.seen.hosts)
        hosts[name] = hosts[name].model_copy(update=changes)
        return self.seen_with(hosts=hosts)

    def unit_with(self, name: str, unit: str, **changes: Any) -> Sides:
        units = dict(self.seen.hosts[name].units)
        units[unit] = units[unit].model_copy(update=changes)
        return self.host_with(name, units=units)

    def cluster_with(self, **changes: Any) -> Sides:
        assert self.seen.cluster is not None
        return self.seen_with(cluster=self.seen.cluster.model_copy(update=changes))

    def node_with(self, name: str, **changes: Any) -> Sides:
        assert self.seen.cluster is not None
        nodes = dict(self.seen.cluster.nodes)
        nodes[name] = nodes[name].model_copy(update=changes)
        return self.cluster_with(nodes=nodes)

    def without(self, side: str, name: str) -> Sides:
        """Nothing of a worker on one side: inventory, chain, cluster."""
        chain, cluster = self.seen.chain, self.seen.cluster
        assert chain is not None
        assert cluster is not None
        if side == "inventory":
            hosts = {n: said for n, said in self.seen.hosts.items() if n != name}
            left = tuple(n for n in self.fleet.workers if n != name)
            return self.fleet_with(workers=left).seen_with(hosts=hosts)
        if side == "cluster":
            return self.cluster_with(nodes={n: node for n, node in cluster.nodes.items() if n != name})
        workers = {n: record for n, record in chain.workers.items() if n != name}
        tokens = {n: record for n, record in chain.tokens.items() if n != name}
        return self.seen_with(chain=replace(chain, workers=workers, tokens=tokens))


def make(ca_pem: str, names: tuple[str, ...], foreign: tuple[str, ...] = (), version: str = "") -> Sides:
    """Workers of ours, and of another owner's that are in no inventory; all of them as they should be."""
    node = Node(ready=True, unschedulable=False, version=VERSION)
    params = RegistryParams("demo", True, 10**9, 0, 60_000, 5000, False)
    ca_hash = join.ca_hash(ca_pem.encode())
    master = Master(1, "0x" + "c" * 64, ENDPOINT, API_SERVER, ca_hash, NOW_MS)
    config = RegistryConfig(
        "0x2", "", 1, "demo", True, frozenset(), 10**9, 0, 60_000, 5000, False, 0, 0, 2, "", "", master
    )
    workers = {n: worker(n) for n in names} | {n: worker(n, OTHER) for n in foreign}
    tokens = {n: token(n) for n in names} | {n: token(n, OTHER) for n in foreign}
    hosts = {"master": Host(k3s_version=VERSION, units={"k3s.service": RUNS})} | {
        n: Host(commitment=tokens[n].commitment.hex(), k3s_version=VERSION, units={"k3s-agent.service": RUNS})
        for n in names
    }
    return Sides(
        Fleet("master", names, ENDPOINT, API_SERVER, False, version, Wanted(params)),
        Seen(
            OnChain(config, workers, tokens, WALLET, NOW_MS),
            Cluster(nodes=dict.fromkeys((*names, *foreign), node), ca_pem=ca_pem, announced=True),
            hosts,
        ),
    )


@pytest.fixture(scope="session")
def ca_pem() -> str:
    """A CA certificate as k3s serves it."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "k3s-server-ca")])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + dt.timedelta(days=3650))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="session")
def agreeing(ca_pem: str) -> Callable[..., Sides]:
    """`agreeing(names, foreign, version)`: see `make`."""
    return lambda *arguments, **more: make(ca_pem, *arguments, **more)
