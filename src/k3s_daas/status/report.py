"""What the sources said. Amounts in MIST, times in ms since 1970, ages in ms."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import RegistryConfig, SealTokenRecord, Worker
from k3s_daas.release import Release


@dataclass(frozen=True)
class KnownMaster:
    """A master and its CA that are known without the chain."""

    endpoint: str
    ca: bytes


@dataclass(frozen=True)
class OnChain:
    """The registry, its workers, and what the master's wallet holds (None without a master)."""

    config: RegistryConfig
    workers: list[Worker]
    tokens: dict[str, SealTokenRecord]
    gas_mist: int | None
    checkpoint: int
    age_ms: int


class _Said(BaseModel):
    """A part of the master's overview: what isn't shown here is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class WorkerSeen(_Said):
    """A worker as the master has it: the chain's record as last read, its node, its last heartbeat."""

    node_id: str
    owner: str
    stake_mist: int
    status: str
    reputation: int
    node_ready: bool | None
    cordoned: bool | None = None
    generation: int | None
    expires_at_ms: int | None
    revoked: bool | None
    last_heartbeat_ms: int | None


class Alert(_Said):
    severity: str
    what: str
    text: str


class Health(_Said):
    state: str
    summary: str


class Tee(_Said):
    mode: str
    attested: bool


class About(_Said):
    problems: list[str]


class Slashing(_Said):
    mode: str
    findings: int
    held_back: str | None


class Gas(_Said):
    balance_mist: int | None
    low: bool


class View(_Said):
    checkpoint: int | None
    age_ms: int | None


class Overview(_Said):
    """The master's answer to GET /api/v1/overview."""

    version: str
    health: Health
    alerts: list[Alert]
    tee: Tee
    master: About
    slashing: Slashing
    gas: Gas
    chain: View
    workers: list[WorkerSeen]


@dataclass(frozen=True)
class Node:
    ready: bool
    unschedulable: bool
    version: str


@dataclass
class Report:
    """Everything gathered. `problems` are sources that could not be read, `notices` what must be known."""

    config: ChainConfig
    now_ms: int
    chain: OnChain | None = None
    master: Overview | None = None
    endpoint: str = ""
    nodes: dict[str, Node] | None = None
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    #: Of the host that asks; None where none is recorded.
    release: Release | None = None

    def seen(self, node_id: str) -> WorkerSeen | None:
        """The master's word on a worker."""
        workers = self.master.workers if self.master else ()
        return next((one for one in workers if one.node_id == node_id), None)
