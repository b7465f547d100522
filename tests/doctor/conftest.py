"""Hosts that are well, as facts; each test breaks one thing."""

from __future__ import annotations

from typing import Any

import pytest

from k3s_daas.chainconfig import ChainConfig
from k3s_daas.doctor.facts import (
    Disk,
    Facts,
    MasterSays,
    OnChain,
    Port,
    SecretFile,
    SuiAnswer,
    Unit,
    WatcherSays,
)
from k3s_daas.registry import Master, RegistryConfig, SealTokenRecord, Worker, WorkerStatus

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
OWNER = "0x" + "0a" * 32
ACCOUNT = "0x" + "cc" * 32
URL = "https://fullnode.testnet.sui.io:443"
IDS = {"package_id": "0x" + "1" * 64, "registry_id": "0x" + "2" * 64}
MASTER = Master(3, ACCOUNT, "https://10.0.0.1:8443", "https://10.0.0.1:6443", b"\xab" * 32, NOW_MS)
COMMITMENT = b"\x07" * 32


def make_registry() -> RegistryConfig:
    return RegistryConfig(
        IDS["registry_id"],
        "",
        1,
        "demo",
        True,
        frozenset(),
        10**9,
        0,
        0,
        1000,
        False,
        0,
        0,
        2,
        "",
        "",
        MASTER,
    )


def make_worker(status: WorkerStatus = WorkerStatus.ACTIVE) -> Worker:
    return Worker("worker-1", OWNER, 10**9, status, "0x5", OWNER, NOW_MS, NOW_MS, 10**9, 0, 0, 1000, 100)


def make_token(**changes: Any) -> SealTokenRecord:
    fields: dict[str, Any] = {
        "scope": "worker",
        "node_id": "worker-1",
        "owner": OWNER,
        "commitment": COMMITMENT,
        "generation": 2,
        "issued_at_ms": NOW_MS,
        "expires_at_ms": NOW_MS + 60 * DAY_MS,
        "revoked": False,
    }
    return SealTokenRecord(**fields | changes)


def unit(name: str, active: str = "active", sub: str = "running", **more: Any) -> Unit:
    return Unit(
        **{"name": name, "active": active, "sub": sub, "result": "success", "load": "loaded", "restarts": 0}
        | more
    )


def _well(role: Any, **more: Any) -> Facts:
    config = {"network": "testnet", "endpoints": [URL], **IDS}
    ports = (Port("the API server", "10.0.0.1:6443"), Port("the master", "10.0.0.1:8443"))
    return Facts(
        role,
        NOW_MS,
        "/etc/k3s-daas/x.json",
        config=config | more.pop("config"),
        chain_config=ChainConfig(network="testnet", endpoints=(URL,), **IDS),
        endpoints=(SuiAnswer(URL, checkpoint_ms=NOW_MS - 900),),
        ports=ports,
        ca_checked=True,
        addresses={"lo": ("127.0.0.1", "::1"), "eth0": ("10.0.0.2",)},
        disks=(Disk("/", 40 * 10**9, 50 * 10**9),),
        **more,
    )


@pytest.fixture
def worker() -> Facts:
    """A worker that is well."""
    return _well(
        "worker",
        config={"node_id": "worker-1"},
        chain=OnChain(make_registry(), make_worker(), make_token()),
        secret=SecretFile("/etc/k3s-daas/seal-token", mode=0o600, commitment=COMMITMENT),
        master=MasterSays(
            (), {"node_id": "worker-1", "node_ready": True, "last_heartbeat_ms": NOW_MS - 5000}
        ),
        k3s_config={"node-name": "worker-1", "node-ip": "10.0.0.2"},
        units=(
            unit("k3s-agent.service"),
            unit("k3s-daas-watcher.service", started_ms=NOW_MS - DAY_MS),
            unit("k3s-daas-agent-control.path", sub="waiting"),
        ),
        kubelet="ok",
        watcher=WatcherSays((), NOW_MS - 5000),
    )


@pytest.fixture
def master() -> Facts:
    """A master that is well."""
    return _well(
        "master",
        config={"endpoint": MASTER.endpoint},
        chain=OnChain(make_registry(), balance_mist=5 * 10**8),
        secret=SecretFile("/var/lib/k3s-daas-master/sui.key", mode=0o600),
        account=ACCOUNT,
        master=MasterSays(()),
        k3s_config={"node-ip": "10.0.0.2"},
        units=(unit("k3s.service"), unit("k3s-daas-master.service")),
        certificate_expires_ms=NOW_MS + 90 * DAY_MS,
    )
