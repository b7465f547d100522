"""A registry in memory instead of a chain: a benchmark needs thousands of owners, each with a key of its own.

It is a fake, and says what a node would say: a snapshot, then checkpoints with events as the node renders
them. What reads it is the master's own code. It keeps no more than it must, since it lives in the process
whose memory is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from k3s_daas.chain import CheckpointEvents, Event, Receipt
from k3s_daas.registry import (
    Master,
    OpenRequest,
    RegistryConfig,
    SealTokenRecord,
    Snapshot,
    Worker,
    WorkerStatus,
)

PACKAGE_ID = "0x" + "aa" * 32
REGISTRY_ID = "0x" + "bb" * 32
MASTER = "0x" + "cc" * 32
SUI = 1_000_000_000
DAY_MS = 86_400_000
CHECKPOINTS_PER_S = 4  # as on Sui's public networks


class SyntheticChain:
    """What the master asks of a chain and of a registry.

    `commitments` has a line for each owner: those of its one worker's token and of its own token, in hex.
    While there is a file `revoking`, the owners' tokens die one after another; the file `revoked` counts.
    """

    def __init__(self, folder: Path, revocations_per_s: int) -> None:
        self._commitments = folder / "commitments"
        self._revoking = folder / "revoking"
        self._count = folder / "revoked"
        self._revocations_per_s = revocations_per_s
        self._sequence = 1000
        self.revoked = 0

    endpoint = "http://synthetic.invalid"
    chain_id = "11111111111111111111111111111111"

    def all_endpoints(self) -> list[SyntheticChain]:
        return [self]

    async def reference_gas_price(self) -> int:
        return 1000

    async def latest_checkpoint(self) -> tuple[int, int]:
        return self._sequence, _now_ms()

    async def checkpoints(
        self, after: int | None, packages: Iterable[str] | None = None, digest: str | None = None
    ) -> AsyncGenerator[CheckpointEvents, None]:
        due, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(1 / CHECKPOINTS_PER_S)
            passed, last = time.monotonic() - last, time.monotonic()
            due += self._revocations_per_s * passed if self._revoking.exists() else 0.0
            events = [self._revoke() for _ in range(int(due))]
            due -= len(events)
            if events:
                self._count.write_text(str(self.revoked))
            self._sequence += 1
            yield CheckpointEvents(self._sequence, _now_ms(), events)

    def _revoke(self) -> Event:
        owner = _address(self.revoked)
        fields = {"registry": REGISTRY_ID, "scope": "owner", "node_id": "", "owner": owner, "generation": "1"}
        self.revoked += 1
        kind = f"{PACKAGE_ID}::k8s_gateway::SealTokenRevokedEvent"
        return Event(f"digest{self.revoked}", 0, kind, fields, owner)

    def leave_endpoint(self) -> None:
        """There is no other."""

    async def balance(self, address: str) -> int:
        return SUI

    async def snapshot(self) -> Snapshot:
        then = _now_ms() - DAY_MS
        workers: dict[str, Worker] = {}
        worker_tokens: dict[str, SealTokenRecord] = {}
        owner_tokens: dict[str, SealTokenRecord] = {}
        for number, line in enumerate(self._commitments.read_text().splitlines()):
            owner, node_id = _address(number), f"worker-{number}"
            of_worker, of_owner = (bytes.fromhex(commitment) for commitment in line.split())
            workers[node_id] = Worker(
                node_id, owner, SUI, WorkerStatus.ACTIVE, "0x5", owner, then, then, SUI, 0, 0, 0, 100
            )
            worker_tokens[node_id] = _record("worker", node_id, owner, of_worker, then)
            owner_tokens[owner] = _record("owner", "", owner, of_owner, then, revoked=number < self.revoked)
        master = Master(1, MASTER, "", "", b"", 0)
        type_ = f"{PACKAGE_ID}::worker_registry::Registry"
        config = RegistryConfig(
            REGISTRY_ID, type_, 1, "benchmark", True, frozenset(), SUI, 0, 0, 0, False, 0, 0, len(workers),
            "0x1", "0x2", master,
        )  # fmt: skip
        return Snapshot(config, workers, worker_tokens, owner_tokens, master, self._sequence)

    async def worker(self, node_id: str) -> Worker | None:
        return (await self.snapshot()).workers.get(node_id)

    async def workers_by_id(self, node_ids: Iterable[str]) -> dict[str, Worker]:
        workers = (await self.snapshot()).workers
        return {name: workers[name] for name in node_ids if name in workers}

    async def config(self) -> RegistryConfig:
        return (await self.snapshot()).config

    async def open_requests(self) -> list[OpenRequest]:
        return []

    async def open_request(self, request_id: int) -> OpenRequest | None:
        return None

    async def find_cap(self, kind: str, holder: str) -> str | None:
        return None

    async def cap_holder(self, kind: str, cap_id: str) -> str | None:
        return None

    async def set_statuses(self, statuses: Mapping[str, WorkerStatus]) -> Receipt:
        _refuse()

    async def announce_master(self, endpoint: str, api_server: str, ca_hash: bytes) -> Receipt:
        _refuse()

    async def masters(self) -> list[Master | None]:
        return []

    async def register_master(self, document: bytes) -> Receipt:
        _refuse()

    async def claim_request(self, request_id: int) -> Receipt:
        _refuse()

    async def complete_request(self, request_id: int, result_hash: bytes) -> Receipt:
        _refuse()

    async def time_out_request(self, request_id: int) -> Receipt:
        _refuse()

    async def propose_slash(self, node_id: str, reason: int, evidence_hash: bytes) -> Receipt:
        _refuse()

    async def report_ready(self, ready_ms: Mapping[str, int]) -> Receipt:
        _refuse()


def _refuse() -> NoReturn:
    raise NotImplementedError("the synthetic registry takes no transactions; nothing here should send one")


def _address(number: int) -> str:
    return f"0x{number + 1:064x}"


def _record(
    scope: str, node_id: str, owner: str, commitment: bytes, issued_ms: int, *, revoked: bool = False
) -> SealTokenRecord:
    expires_ms = issued_ms + 90 * DAY_MS
    return SealTokenRecord(scope, node_id, owner, commitment, 1, issued_ms, expires_ms, revoked)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
