"""The workers of a registry as records that an inventory may hold, and a cache may keep.

Whoever writes on-chain, or answers for the chain, or writes the cache's file, chooses what is in them. So a
record has no free text: each value is a number, a digest, an address, or one of a few words, or all of it is
refused. Amounts in MIST, times in ms since 1970.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from k3s_daas.chain import Key, MalformedRecord
from k3s_daas.registry import AgreedRegistry, Deployment, WorkerStatus, find_registry
from k3s_daas.registry.model import SealTokenRecord, Worker
from k3s_daas.registry.render import to_json

NodeId = Annotated[str, Field(pattern=r"^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$")]
Address = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ChainId = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{32,44}$")]
Number = Annotated[int, Field(ge=0, lt=2**64)]
Status = Annotated[str, AfterValidator(lambda word: WorkerStatus(word).value)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ProposalRecord(_Record):
    """An open slash."""

    reason: Number
    evidence_hash: Digest
    proposed_at_ms: Number
    executable_at_ms: Number
    previous: Status


class TokenRecord(_Record):
    """What is on-chain of a worker's seal token, without its commitment."""

    generation: Number
    issued_at_ms: Number
    expires_at_ms: Number
    revoked: bool


class WorkerRecord(_Record):
    """One worker. `seal_token` is None before one was minted, `proposal` where no slash is open."""

    node_id: NodeId
    owner: Address
    status: Status
    reputation: Annotated[int, Field(ge=0, le=100)]
    stake_mist: Number
    required_stake_mist: Number
    rewards_mist: Number
    workload: Number
    withdrawal_address: Address
    proof_id: Address
    registered_at_ms: Number
    status_changed_at_ms: Number
    slash_window_ms: Number
    slash_share_bps: Number
    unbonding_window_ms: Number
    unbonding_until_ms: Number | None
    ready_reported_until_ms: Number
    proposal: ProposalRecord | None
    seal_token: TokenRecord | None


class Source(_Record):
    """Where and when the records were read.

    `checkpoint` was the chain's newest just before, at `timestamp_ms` of the chain's own time; `read_at_ms`
    is the reader's clock. The records are at least as new as that checkpoint.
    """

    network: Literal["localnet", "devnet", "testnet", "mainnet"]
    chain_id: ChainId
    package_id: Address
    registry_id: Address
    checkpoint: Number
    timestamp_ms: Number
    read_at_ms: Number


class FleetView(_Record):
    """All workers of one registry by node id. `source` is None where no registry has the name asked for."""

    source: Source | None
    workers: dict[NodeId, WorkerRecord]

    @model_validator(mode="after")
    def _names_agree(self) -> FleetView:
        for name, worker in self.workers.items():
            if name != worker.node_id:
                raise ValueError(f"the record under {name} is that of {worker.node_id}")
        if self.workers and self.source is None:
            raise ValueError("there are workers of no registry")
        return self

    @classmethod
    def load(cls, data: Any, what: str) -> FleetView:
        """`data` as it came out of `model_dump()`, through JSON or not. Raises MalformedRecord."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part)[:70] for part in first["loc"]) or "the whole"
            raise MalformedRecord(
                f"{what}: found {first['input']!r:.80} as {where!a}, wanted that {_wanted(first)} "
                f"({error.error_count()} such values). Check the package id; if it is right, an endpoint "
                "lies."
            ) from None


def _wanted(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ").replace("String should", "it should").rstrip(".")


def view_of(
    source: Mapping[str, Any], workers: Iterable[Worker], tokens: Mapping[str, SealTokenRecord]
) -> FleetView:
    """The view of `workers`; `source` has the fields of Source.

    Raises MalformedRecord when any of it is nothing that our contracts can have written.
    """
    records = {worker.node_id: _record(worker, tokens.get(worker.node_id)) for worker in workers}
    return FleetView.load({"source": source, "workers": records}, f"Registry {source['registry_id']}")


def _record(worker: Worker, token: SealTokenRecord | None) -> dict[str, Any]:
    known = to_json(worker) | {"required_stake_mist": worker.required_stake_mist}
    record = {name: known[name] for name in WorkerRecord.model_fields if name != "seal_token"}
    shown = to_json(token)
    kept = {name: shown[name] for name in TokenRecord.model_fields} if token is not None else None
    return record | {"seal_token": kept}


@dataclass(frozen=True)
class Named:
    """A registry by its name, among those that the key's address administers."""

    name: str
    key: Key


async def read_fleet(
    endpoints: Sequence[str],
    network: str,
    where: Deployment | Named,
    chain_id: str | None = None,
    *,
    timeout_s: float = 10.0,
) -> FleetView:
    """All workers of a registry, as its chain knows them now; none where no registry has the name.

    On mainnet two endpoints have to agree. Raises what `k3s_daas.chain.errors` lists, EndpointsDisagree and
    AmbiguousRegistry.
    """
    from k3s_daas.chain import SuiClient  # costs a second, which what comes out of a cache doesn't take

    key = where.key if isinstance(where, Named) else None
    async with await SuiClient.connect(endpoints, network, key, chain_id, timeout_s=timeout_s) as chain:
        if isinstance(where, Named):
            found = await find_registry(chain, chain.require_address(), where.name)
            if found is None:
                return FleetView(source=None, workers={})
            where = found
        checkpoint, timestamp_ms = await chain.latest_checkpoint()
        snapshot = await AgreedRegistry(chain, where).snapshot()
        source = {
            "network": chain.network,
            "chain_id": chain.chain_id,
            "package_id": where.package_id,
            "registry_id": where.registry_id,
            "checkpoint": checkpoint,
            "timestamp_ms": timestamp_ms,
            "read_at_ms": time.time_ns() // 1_000_000,
        }
        return view_of(source, snapshot.workers.values(), snapshot.worker_tokens)
