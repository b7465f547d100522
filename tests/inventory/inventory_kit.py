"""A fleet as the plugin reads it, made up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from k3s_daas.inventory import FleetView

SUI = 1_000_000_000
OWNER = "0x" + "a1" * 32
OTHER = "0x" + "b2" * 32
PACKAGE = "0x" + "c3" * 32
REGISTRY = "0x" + "d4" * 32

SOURCE: dict[str, Any] = {
    "network": "localnet",
    "chain_id": "5LFTqdbFLGRp58s21cQd2MAVNWHYuyrxjXRMdrwXwr9C",
    "package_id": PACKAGE,
    "registry_id": REGISTRY,
    "checkpoint": 716,
    "timestamp_ms": 1_795_289_192_627,
    "read_at_ms": 1_795_289_196_208,
}


def record(node_id: str, **more: Any) -> dict[str, Any]:
    """A worker's record as the plugin keeps it."""
    usual: dict[str, Any] = {
        "node_id": node_id,
        "owner": OWNER,
        "status": "active",
        "reputation": 100,
        "stake_mist": SUI,
        "required_stake_mist": SUI,
        "rewards_mist": 0,
        "workload": 0,
        "withdrawal_address": OWNER,
        "proof_id": "0x" + "e5" * 32,
        "registered_at_ms": 1,
        "status_changed_at_ms": 2,
        "slash_window_ms": 0,
        "slash_share_bps": 5000,
        "unbonding_window_ms": 0,
        "unbonding_until_ms": None,
        "ready_reported_until_ms": 1,
        "proposal": None,
        "seal_token": {"generation": 1, "issued_at_ms": 1, "expires_at_ms": 2, "revoked": False},
    }
    return usual | more


def view(workers: Iterable[dict[str, Any]], **source: Any) -> FleetView:
    records = {worker["node_id"]: worker for worker in workers}
    return FleetView.load({"source": SOURCE | source, "workers": records}, "test")


@dataclass
class Chain:
    """Stands for `read_fleet`: gives `answer`, or raises it, and remembers what it was asked."""

    answer: FleetView | Exception
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def __call__(
        self, endpoints: Any, network: Any, where: Any, chain_id: Any, *, timeout_s: float
    ) -> FleetView:
        self.asked.append((endpoints, network, where, chain_id, timeout_s))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
