"""The contract's events as typed values. Amounts in MIST, times in ms since 1970."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k3s_daas.chain.model import Event
from k3s_daas.registry.model import Binding, Deployment, Fields, WorkerStatus, parse_binding


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
class TermsChanged:
    """What holds for workers that are staked from now on."""

    min_stake_mist: int
    slash_window_ms: int
    unbonding_window_ms: int
    slash_share_bps: int


@dataclass(frozen=True)
class StakeDeposited:
    node_id: str
    owner: str
    amount_mist: int
    timestamp_ms: int
    #: What the worker has now.
    stake_mist: int


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
    public_key: bytes = b""
    attestation_expires_at_ms: int = 0


@dataclass(frozen=True)
class MasterKeyAnnounced:
    epoch: int
    public_key: bytes


@dataclass(frozen=True)
class MasterAttested:
    epoch: int
    account: str
    public_key: bytes
    pcr0: bytes
    pcr3: bytes
    attested_at_ms: int
    expires_at_ms: int
    binding: Binding


@dataclass(frozen=True)
class MasterVoided:
    """The registry has no master any more: attestation is required now, and this one never had it."""

    epoch: int
    account: str


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
class SlashLapsed:
    node_id: str
    timestamp_ms: int


@dataclass(frozen=True)
class RewardsPaid:
    node_id: str
    recipient: str
    amount_mist: int
    timestamp_ms: int


@dataclass(frozen=True)
class RequestScheduled:
    """`node_id` is the worker that the contract picked."""

    request_id: int
    requester: str
    node_id: str
    payload_hash: bytes
    priority: int
    deposit_mist: int
    deadline_ms: int


@dataclass(frozen=True)
class RequestClaimed:
    request_id: int
    node_id: str


@dataclass(frozen=True)
class RequestCompleted:
    request_id: int
    node_id: str
    payload_hash: bytes
    result_hash: bytes
    deposit_mist: int
    reward_mist: int


@dataclass(frozen=True)
class RequestTimedOut:
    request_id: int
    node_id: str
    requester: str
    refund_mist: int
    missed: bool


@dataclass(frozen=True)
class ReputationChanged:
    node_id: str
    reputation: int
    required_stake_mist: int


@dataclass(frozen=True)
class WorkerSlashed:
    node_id: str
    owner: str
    amount_mist: int
    remaining_mist: int
    timestamp_ms: int


@dataclass(frozen=True)
class SnapshotAnchored:
    """`hash` is the SHA-256 of the sealed file; `counter` is 1 for the first."""

    epoch: int
    counter: int
    hash: bytes
    anchored_at_ms: int


@dataclass(frozen=True)
class SnapshotsAbandoned:
    """An operator gave the state up."""

    counter: int
    hash: bytes


RegistryEvent = (
    RegistryCreated
    | TermsChanged
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
    | MasterKeyAnnounced
    | MasterAttested
    | MasterVoided
    | SlashLapsed
    | RewardsPaid
    | RequestScheduled
    | RequestClaimed
    | RequestCompleted
    | RequestTimedOut
    | ReputationChanged
    | SnapshotAnchored
    | SnapshotsAbandoned
)


def _scoped_node(f: Fields) -> str:
    return "" if f.text("scope") == "owner" else f.node_id()


_PARSERS: dict[str, Callable[[Fields], RegistryEvent]] = {
    "worker_registry::RegistryCreatedEvent": lambda f: RegistryCreated(f.text("name"), f.text("creator")),
    "worker_registry::TermsChangedEvent": lambda f: TermsChanged(
        f.number("min_stake"),
        f.number("slash_window_ms"),
        f.number("unbonding_window_ms"),
        f.number("slash_share_bps"),
    ),
    "worker_registry::WorkerRegisteredEvent": lambda f: WorkerRegistered(
        f.node_id(),
        f.text("owner"),
        f.number("stake_amount"),
        f.text("withdrawal_address"),
        f.number("timestamp_ms"),
    ),
    "worker_registry::StakeDepositedEvent": lambda f: StakeDeposited(
        f.node_id(), f.text("owner"), f.number("amount"), f.number("timestamp_ms"), f.number("stake")
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
        f.number("epoch"),
        f.text("endpoint"),
        f.text("api_server"),
        f.data("ca_hash"),
        f.data("public_key"),
        f.number("attestation_expires_at_ms"),
    ),
    "k8s_gateway::MasterKeyAnnouncedEvent": lambda f: MasterKeyAnnounced(
        f.number("epoch"), f.data("public_key")
    ),
    "nautilus::MasterAttestedEvent": lambda f: MasterAttested(
        f.number("epoch"),
        f.text("account"),
        f.data("public_key"),
        f.data("pcr0"),
        f.data("pcr3"),
        f.number("attested_at_ms"),
        f.number("expires_at_ms"),
        parse_binding(f),
    ),
    "nautilus::MasterVoidedEvent": lambda f: MasterVoided(f.number("epoch"), f.text("account")),
    "slashing::SlashLapsedEvent": lambda f: SlashLapsed(f.node_id(), f.number("timestamp_ms")),
    "reward_account::RewardsPaidEvent": lambda f: RewardsPaid(
        f.node_id(), f.text("recipient"), f.number("amount"), f.number("timestamp_ms")
    ),
    "k8s_scheduler::K8sAPIRequestScheduledEvent": lambda f: RequestScheduled(
        f.number("request_id"),
        f.text("requester"),
        f.node_id(),
        f.data("payload_hash"),
        f.number("priority"),
        f.number("deposit"),
        f.number("deadline_ms"),
    ),
    "k8s_scheduler::K8sAPIRequestClaimedEvent": lambda f: RequestClaimed(f.number("request_id"), f.node_id()),
    "k8s_scheduler::K8sAPIRequestCompletedEvent": lambda f: RequestCompleted(
        f.number("request_id"),
        f.node_id(),
        f.data("payload_hash"),
        f.data("result_hash"),
        f.number("deposit"),
        f.number("reward"),
    ),
    "k8s_scheduler::K8sAPIRequestTimedOutEvent": lambda f: RequestTimedOut(
        f.number("request_id"), f.node_id(), f.text("requester"), f.number("refund"), f.flag("missed")
    ),
    "k8s_scheduler::WorkerReputationChangedEvent": lambda f: ReputationChanged(
        f.node_id(), f.number("reputation"), f.number("required_stake")
    ),
    "snapshots::SnapshotAnchoredEvent": lambda f: SnapshotAnchored(
        f.number("epoch"), f.number("counter"), f.data("hash"), f.number("anchored_at_ms")
    ),
    "snapshots::SnapshotsAbandonedEvent": lambda f: SnapshotsAbandoned(f.number("counter"), f.data("hash")),
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
