"""What the API answers, as models: they shape the JSON and are its description in the OpenAPI document.

Amounts in MIST, times in ms since 1970, ages in ms. No part of any token is in any of them. Text may come
from a chain or a worker, where anybody may write: whoever shows it, shows it as text.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from k3s_daas.openapi import Answer
from k3s_daas_master.errors import STATUS_OF

Severity = Literal["critical", "warning", "info"]


class Shape(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorDetail(Shape):
    """A refusal: what was wrong, what was found, what was wanted, and what to do."""

    code: str
    message: str
    found: str
    wanted: str
    fix: str


class ErrorAnswer(Shape):
    """Every refusal has this shape."""

    error: ErrorDetail


def errors(*codes: str) -> dict[int, Answer]:
    """The refusals with these codes, as answers of an operation."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS_OF[code], []).append(code)
    return {status: Answer(", ".join(names), ErrorAnswer) for status, names in by_status.items()}


class RegisterAnswer(Shape):
    """What a worker joins with. Holds secrets; it is not to be kept by any cache."""

    node_id: str
    server: str
    token: str
    expires_at_ms: int
    node_password: str
    ca_pem: str


class AttestationAnswer(Shape):
    """`document`: base64. `simulated`: it proves nothing."""

    document: str
    simulated: bool


class HeartbeatAnswer(Shape):
    """The worker's status on-chain."""

    status: str


class DrainAnswer(Shape):
    """`joined`: the cluster has such a node; `waiting_for` names some of the pods that are left."""

    node_id: str
    joined: bool
    drained: bool
    pods_left: int
    waiting_for: list[str]


class RequestAnswer(Shape):
    """A request as its owner sees it; hashes in hex."""

    request_id: int
    status: str
    node_id: str
    method: Annotated[str | None, Field(description="null until the body was posted, as are the next two")]
    resource: str | None
    name: str | None
    priority: int
    deposit_mist: int
    payload_hash: str
    deadline_ms: int
    body_received_ms: int | None
    executed_ms: int | None
    ended_ms: int | None
    checkpoint: Annotated[int | None, Field(description="Where it ended on-chain")]
    result_hash: str | None
    error: dict[str, str] | None


class RequestResult(RequestAnswer):
    """With the result, of which `result_hash` is the SHA-256."""

    result: str | None


class RequestList(Shape):
    """An owner's newest requests, the newest first."""

    requests: list[RequestAnswer]


class FindingRow(Shape):
    """An offence that the master found; `evidence` is the path of what proves it."""

    node_id: str
    reason: int
    offence: str
    would_propose_because: str
    evidence_sha256: str
    evidence: str
    found_ms: int
    state: str
    detail: str
    digest: Annotated[str | None, Field(description="Of the transaction that proposed the slash")]


class FindingsAnswer(Shape):
    """`held_back`: why nothing would be proposed now; `problem`: what is wrong with being armed."""

    slashing: Literal["observe", "armed"]
    held_back: str | None
    problem: str | None
    findings: list[FindingRow]


class ReadyAnswer(Shape):
    """Whether this master can do all of its work, and why not."""

    ready: bool
    reasons: list[str]
    alerts: Annotated[list[str], Field(description="To be looked at although the master works")]


class SnapshotAnswer(Shape):
    """A sealed snapshot of the master's state that the chain anchors."""

    counter: int
    hash: Annotated[str, Field(description="SHA-256 of the sealed file, in hex")]
    copied_ms: Annotated[int, Field(description="What was done until then is in it")]
    bytes: int


class WorkerRow(Shape):
    """One worker: the chain's record, the cluster's node, and what its last heartbeat reported."""

    node_id: str
    owner: str
    stake_mist: int
    status: str
    reputation: int
    registered_at_ms: int
    requests_succeeded: Annotated[int, Field(description="Of the chain, as counted by this master")]
    requests_failed: Annotated[int, Field(description="Completed with an error")]
    requests_missed: Annotated[int, Field(description="Claimed and not completed in time")]
    request_mean_ms: Annotated[int | None, Field(description="From body to result; null before the first")]
    node_ready: Annotated[bool | None, Field(description="null: the cluster has no such node")]
    cordoned: bool | None
    version: Annotated[str | None, Field(description="The kubelet's version")]
    generation: Annotated[int | None, Field(description="Of its seal token; null without one")]
    expires_at_ms: int | None
    revoked: bool | None
    last_heartbeat_ms: int | None
    running_pods: Annotated[int | None, Field(description="As reported by the worker")]
    resource_usage: Annotated[
        dict[str, int | float | str | None], Field(description="As reported by the worker; decides nothing")
    ]


class MasterInfo(Shape):
    """This master and what the chain says of it."""

    account: str | None
    epoch: int | None
    endpoint: str
    api_server: str
    ca_hash: str | None
    announced: bool
    tee: Literal["SIMULATED", "nitro"]
    problems: list[str]
    alerts: Annotated[list[str], Field(description="As /readyz has them")]


class ChainInfo(Shape):
    """This master's view of the chain; `age_ms` is null before the first checkpoint."""

    network: str
    registry_id: str
    checkpoint: int | None
    age_ms: int | None


class WorkerStatistics(Shape):
    """The worker pool in figures. `active` counts the busy, too."""

    total: int
    active: int
    offline: int
    by_status: dict[str, int]
    stake_total_mist: int
    stake_average_mist: int


class RequestStatistics(Shape):
    """The API's answers since this master started, and the chain's requests as far as it followed them."""

    succeeded: int
    refused: Annotated[int, Field(description="Answered 4xx")]
    failed: Annotated[int, Field(description="Answered 5xx")]
    median_ms: Annotated[float | None, Field(description="Of the last 2,048 answers")]
    p99_ms: float | None
    chain_succeeded: int
    chain_failed: int
    chain_missed: int


class Statistics(Shape):
    workers: WorkerStatistics
    requests: RequestStatistics


class WorkersAnswer(Shape):
    """The registry as this master sees it."""

    workers: list[WorkerRow]
    statistics: Statistics
    master: MasterInfo
    chain: ChainInfo


class Health(Shape):
    """`down`: it can't do all of its work. `degraded`: it can, but something needs a look."""

    state: Literal["healthy", "degraded", "down"]
    summary: str
    ready: bool


class Alert(Shape):
    severity: Severity
    what: str
    text: str


class Tee(Shape):
    """`attested`: the chain holds an attestation of this master that hasn't expired."""

    mode: Literal["nitro", "simulated"]
    attested: bool
    pcr0: str | None
    expires_at_ms: int | None


class Nodes(Shape):
    """Workers' nodes. `wanted` are the workers that should have one: active and busy."""

    ready: int
    wanted: int
    joined: int
    cordoned: int
    unregistered: Annotated[int, Field(description="Nodes of the cluster that are no registered worker")]
    versions: list[str]
    stand_in: Annotated[bool, Field(description="k3s is a stand-in for tests; it runs no pods")]


class SealAuth(Shape):
    """Token checks for the API server, answered from one index in memory."""

    tokens: int
    owner_tokens: int
    checks: int
    refused: int
    checks_per_s: float
    refused_per_s: float
    expiring: Annotated[int, Field(description="Workers' tokens that expire within 14 days")]
    expired: int


class Slashing(Shape):
    """The master's own findings; `held_back` says why nothing would be proposed now, null when it would."""

    mode: Literal["observe", "armed"]
    held_back: str | None
    findings: int
    disruptions: Annotated[int, Field(description="Times that much of the fleet fell silent")]


class Resources(Shape):
    """Sums and means over the workers that reported lately, as they reported them."""

    reporting: int
    cpu_percent: float | None
    memory_percent: float | None
    disk_percent: float | None
    disk_percent_max: float | None
    network_received_bytes: int | None
    network_sent_bytes: int | None
    running_pods: int


class SuiEndpoint(Shape):
    name: str
    ok: bool
    checkpoint: int | None
    age_ms: int | None
    latency_ms: float | None
    error: str | None


class SuiRpc(Shape):
    """The followed chain and each configured endpoint."""

    checkpoint: int | None
    age_ms: int | None
    fresh: bool
    events: int
    replay_gaps: int
    endpoints: list[SuiEndpoint]


class Gas(Shape):
    """`price_mist` is the network's reference gas price; null until read."""

    price_mist: int | None
    balance_mist: int | None
    low: bool


class Overview(Shape):
    """Everything the status page shows."""

    generated_ms: int
    version: str
    started_ms: int
    network: str
    registry_id: str
    health: Health
    alerts: list[Alert]
    tee: Tee
    master: MasterInfo
    nodes: Nodes
    slashing: Slashing
    tenants: Annotated[int, Field(description="Owners that have their namespace")]
    seal: SealAuth
    resources: Resources
    chain: SuiRpc
    gas: Gas
    statistics: Statistics
    workers: list[WorkerRow]
