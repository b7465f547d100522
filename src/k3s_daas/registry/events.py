"""The contract's events as typed values. Amounts in MIST, times in ms since 1970."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k3s_daas.chain.model import Event
from k3s_daas.registry.model import Deployment, Fields, WorkerStatus


@dataclass(frozen=True)
class RegistryCreated:
    name: str
    creator: str


@dataclass(frozen=True)
class WorkerRegistered:
    node_id: str
    owner: str
    stake_mist: int
    withdrawal_address: str
    timestamp_ms: int


@dataclass(frozen=True)
class StakeDeposited:
    node_id: str
    owner: str
    amount_mist: int
    timestamp_ms: int


@dataclass(frozen=True)
class WorkerStatusChanged:
    node_id: str
    old_status: WorkerStatus
    new_status: WorkerStatus
    timestamp_ms: int


@dataclass(frozen=True)
class UnstakeRequested:
    node_id: str
    owner: str
    unbonding_until_ms: int
    timestamp_ms: int


@dataclass(frozen=True)
class StakeWithdrawn:
    node_id: str
    recipient: str
    amount_mist: int
    timestamp_ms: int


@dataclass(frozen=True)
class SealTokenCreated:
    """Also emitted when a token is rotated: the newer generation replaces the older one."""

    scope: str
    node_id: str
    owner: str
    commitment: bytes
    generation: int
    expires_at_ms: int


@dataclass(frozen=True)
class SealTokenRevoked:
    scope: str
    node_id: str
    owner: str
    generation: int


@dataclass(frozen=True)
class MasterAppointed:
    epoch: int
    account: str


@dataclass(frozen=True)
class MasterAnnounced:
    epoch: int
    endpoint: str
    api_server: str
    ca_hash: bytes


@dataclass(frozen=True)
class SlashProposed:
    node_id: str
    reason: int
    evidence_hash: bytes
    executable_at_ms: int


@dataclass(frozen=True)
class SlashCancelled:
    node_id: str
    timestamp_ms: int


@dataclass(frozen=True)
class WorkerSlashed:
    node_id: str
    owner: str
    amount_mist: int
    remaining_mist: int
    timestamp_ms: int


RegistryEvent = (
    RegistryCreated
    | WorkerRegistered
    | StakeDeposited
    | WorkerStatusChanged
    | UnstakeRequested
    | StakeWithdrawn
    | SealTokenCreated
    | SealTokenRevoked
    | MasterAppointed
    | MasterAnnounced
    | SlashProposed
    | SlashCancelled
    | WorkerSlashed
)


def _scoped_node(f: Fields) -> str:
    return "" if f.text("scope") == "owner" else f.node_id()


_PARSERS: dict[str, Callable[[Fields], RegistryEvent]] = {
    "worker_registry::RegistryCreatedEvent": lambda f: RegistryCreated(f.text("name"), f.text("creator")),
    "worker_registry::WorkerRegisteredEvent": lambda f: WorkerRegistered(
        f.node_id(),
        f.text("owner"),
        f.number("stake_amount"),
        f.text("withdrawal_address"),
        f.number("timestamp_ms"),
    ),
    "worker_registry::StakeDepositedEvent": lambda f: StakeDeposited(
        f.node_id(), f.text("owner"), f.number("amount"), f.number("timestamp_ms")
    ),
    "worker_registry::WorkerStatusChangedEvent": lambda f: WorkerStatusChanged(
        f.node_id(), f.status("old_status"), f.status("new_status"), f.number("timestamp_ms")
    ),
    "worker_registry::UnstakeRequestedEvent": lambda f: UnstakeRequested(
        f.node_id(), f.text("owner"), f.number("unbonding_until_ms"), f.number("timestamp_ms")
    ),
    "worker_registry::StakeWithdrawnEvent": lambda f: StakeWithdrawn(
        f.node_id(), f.text("recipient"), f.number("amount"), f.number("timestamp_ms")
    ),
    "k8s_gateway::SealTokenCreatedEvent": lambda f: SealTokenCreated(
        f.text("scope"),
        _scoped_node(f),
        f.text("owner"),
        f.data("commitment"),
        f.number("generation"),
        f.number("expires_at_ms"),
    ),
    "k8s_gateway::SealTokenRevokedEvent": lambda f: SealTokenRevoked(
        f.text("scope"), _scoped_node(f), f.text("owner"), f.number("generation")
    ),
    "k8s_gateway::MasterAnnouncedEvent": lambda f: MasterAnnounced(
        f.number("epoch"), f.text("endpoint"), f.text("api_server"), f.data("ca_hash")
    ),
    "nautilus::MasterAppointedEvent": lambda f: MasterAppointed(f.number("epoch"), f.text("account")),
    "slashing::SlashProposedEvent": lambda f: SlashProposed(
        f.node_id(), f.number("reason"), f.data("evidence_hash"), f.number("executable_at_ms")
    ),
    "slashing::SlashCancelledEvent": lambda f: SlashCancelled(f.node_id(), f.number("timestamp_ms")),
    "slashing::WorkerSlashedEvent": lambda f: WorkerSlashed(
        f.node_id(), f.text("owner"), f.number("amount"), f.number("remaining"), f.number("timestamp_ms")
    ),
}


def parse_event(event: Event, deployment: Deployment) -> RegistryEvent | None:
    """The typed event, or None when it is another package's, another registry's or of an unknown kind.

    Anybody may create a registry from our package, so the registry's id is compared too. Raises
    MalformedRecord when an event of ours is not shaped as the contract writes it.
    """
    package, _, kind = event.type.partition("::")
    parser = _PARSERS.get(kind)
    if parser is None or package != deployment.types_id:
        return None
    if event.json.get("registry") != deployment.registry_id:
        return None
    return parser(Fields(event.json, kind))
