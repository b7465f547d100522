"""The bodies of the loopback API. Times in ms since the epoch, ages in seconds, MIST as text; no secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .config import LABEL


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlertView(_Body):
    """An alert that is raised now."""

    name: str
    raised_at_ms: int
    detail: str


class HeartbeatView(_Body):
    """How heartbeats go; `detail` tells the last failure in words."""

    last_ms: int | None
    age_s: float | None
    consecutive_failures: int
    last_failure: str | None
    detail: str


class EndpointView(_Body):
    """One Sui endpoint, without anything of its URL that may be a credential."""

    name: str
    ok: bool
    error: str | None


class ChainView(_Body):
    """The last look at the chain; `outcome` is null before the first."""

    outcome: str | None
    detail: str
    last_validation_ms: int | None
    age_s: float | None
    status: str | None
    stake_mist: str | None
    slash_proposed: bool
    endpoints: list[EndpointView]


class TokenView(_Body):
    """Which seal token it is; no part of it."""

    generation: int | None
    expires_at_ms: int | None


class MasterView(_Body):
    """The master that is on-chain; `ca_hash` is in hexadecimal."""

    endpoint: str
    epoch: int
    ca_hash: str


class AgentView(_Body):
    """The k3s agent; it is looked at when heartbeats fail."""

    unit: str
    state: str | None
    detail: str
    restarts: int
    next_restart_ms: int | None


class Health(_Body):
    """`problems` is empty exactly when all is well; `alerts` are those raised and not cleared."""

    status: Literal["ok", "degraded"]
    problems: list[str]
    alerts: list[AlertView]
    node_id: str
    network: str
    tee: str
    heartbeat: HeartbeatView
    chain: ChainView
    token: TokenView
    master: MasterView | None
    agent: AgentView


class Staking(_Body):
    """The worker's record as last agreed by all endpoints that answered."""

    node_id: str
    network: str
    registry_id: str
    status: str | None
    stake_mist: str | None
    slash_proposed: bool
    validated_at_ms: int | None
    age_s: float | None
    token: TokenView


class HostView(_Body):
    """The host as a whole; network bytes since it started."""

    cpu_percent: float | None
    memory_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_percent: float
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


class PodsView(_Body):
    """`running` is null while nobody can say."""

    running: int | None
    asked_at_ms: int | None
    runtime: str


class Usage(_Body):
    """Resource usage of the host, and the pods on it."""

    node_id: str
    at_ms: int
    host: HostView
    pods: PodsView


class Configuration(_Body):
    """What this watcher was told, without secrets; of endpoints only scheme, host and port."""

    network: str
    endpoints: list[str]
    chain_id: str | None
    package_id: str
    original_package_id: str | None
    registry_id: str
    node_id: str
    tee_mode: str
    accept_simulated: bool
    heartbeat_s: int
    chain_poll_s: int
    listen: str
    metrics_listen: str | None
    agent_unit: str
    runtime: str


class Target(_Body):
    """Names the worker that is meant, so that a command for another host does nothing here."""

    node_id: Annotated[str, Field(pattern=LABEL)]


class Registration(_Body):
    """What came of a new registration. `requested`: root hasn't answered yet."""

    status: Literal["started", "requested"]
    request_id: str
    detail: str


class Unstaked(_Body):
    """The node is empty, and the owner may sign.

    `transaction` is the base64 of the BCS of the TransactionData that requests the unstake.
    """

    status: Literal["drained"]
    node_id: str
    sender: str
    transaction: str
    digest: str
    gas_budget_mist: str
    stake_mist: str
    unbonding_window_ms: int
    fix: str


class Draining(_Body):
    """Pods are still on the node; `waiting_for` names some of them."""

    status: Literal["draining"]
    node_id: str
    pods_left: int
    waiting_for: list[str]
    fix: str


class Problem(_Body):
    """Why something was refused."""

    code: str
    message: str
    found: str
    wanted: str
    fix: str


class Error(_Body):
    """The body of every refusal."""

    error: Problem
