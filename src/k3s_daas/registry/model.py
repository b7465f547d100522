"""The records our Move package keeps, as typed values. Amounts in MIST, times in ms since 1970.

Everything here comes off the chain, where anybody may write: names are checked before anyone sees them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from k3s_daas.chain.bcs import normalize_address
from k3s_daas.chain.errors import MalformedRecord

_NODE_ID = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)

COMMITMENT_BYTES = 32


class InvalidNodeId(ValueError):
    """Not a name that the contract, Kubernetes and DNS all take."""

    def __init__(self, found: object) -> None:
        shown = repr(found)
        if len(shown) > 80:
            shown = f"{shown[:77]}… ({len(str(found))} characters)"
        super().__init__(
            f"Found node id {shown}, wanted an RFC 1123 label: 1 to 63 of a-z, 0-9 and '-', starting and "
            "ending with a letter or digit. Rename the host or set its node id."
        )


def check_node_id(node_id: object) -> str:
    """`node_id` itself when it is an RFC 1123 label, else InvalidNodeId."""
    if not isinstance(node_id, str) or _NODE_ID.fullmatch(node_id) is None:
        raise InvalidNodeId(node_id)
    return node_id


class WorkerStatus(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    BUSY = "busy"
    OFFLINE = "offline"
    JAILED = "jailed"
    SLASHED = "slashed"
    UNBONDING = "unbonding"


@dataclass(frozen=True)
class Deployment:
    """Where the contracts live. `original_id` names the types' package once the package was upgraded."""

    package_id: str
    registry_id: str
    original_id: str | None = None

    def __post_init__(self) -> None:
        # Nodes write every id with 64 digits; ours are compared with theirs as text.
        for name in ("package_id", "registry_id", "original_id"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, normalize_address(value))

    @property
    def types_id(self) -> str:
        return self.original_id or self.package_id


@dataclass(frozen=True)
class SlashProposal:
    reason: int
    evidence_hash: bytes
    proposed_at_ms: int
    executable_at_ms: int
    previous: WorkerStatus


@dataclass(frozen=True)
class Worker:
    node_id: str
    owner: str
    stake_mist: int
    status: WorkerStatus
    proof_id: str
    withdrawal_address: str
    registered_at_ms: int
    status_changed_at_ms: int
    min_stake_mist: int
    slash_window_ms: int
    unbonding_window_ms: int
    slash_share_bps: int
    reputation: int
    proposal: SlashProposal | None = None
    unbonding_until_ms: int | None = None
    #: Requests assigned to it and not finished; unclaimed rewards in MIST.
    workload: int = 0
    rewards_mist: int = 0
    #: Until when its Ready time is accounted for.
    ready_reported_until_ms: int = 0

    @property
    def required_stake_mist(self) -> int:
        """What its reputation asks for: with less it gets no requests and earns nothing from the pool."""
        return self.min_stake_mist * (200 - self.reputation) // 100


@dataclass(frozen=True)
class OpenRequest:
    """A request that hasn't ended. `node_id` is the worker that the contract picked."""

    request_id: int
    requester: str
    #: The StakeProof it was submitted with.
    proof_id: str
    node_id: str
    payload_hash: bytes
    priority: int
    deposit_mist: int
    claimed: bool
    submitted_at_ms: int
    deadline_ms: int


@dataclass(frozen=True)
class SealTokenRecord:
    """`scope` is "worker" or "owner"; `node_id` is "" for an owner's token. Holds no secret."""

    scope: str
    node_id: str
    owner: str
    commitment: bytes
    generation: int
    issued_at_ms: int
    expires_at_ms: int
    revoked: bool


@dataclass(frozen=True)
class Binding:
    """What a master's attestation says beside who it is, 32 bytes each; empty without one.

    `config_hash` is of what it was given of its cluster (`k3s_daas.attestation.configuration`).
    """

    chain_id: bytes = b""
    ca_hash: bytes = b""
    config_hash: bytes = b""


@dataclass(frozen=True)
class Master:
    """`endpoint` and `api_server` are "" and `ca_hash` is empty until the master announced itself."""

    epoch: int
    account: str
    endpoint: str
    api_server: str
    ca_hash: bytes
    announced_at_ms: int
    #: Made inside the enclave, 32 bytes; what the attestation proved. Empty and 0 without one.
    public_key: bytes = b""
    pcr0: bytes = b""
    pcr3: bytes = b""
    attested_at_ms: int = 0
    attestation_expires_at_ms: int = 0
    binding: Binding = Binding()


@dataclass(frozen=True)
class RewardRates:
    """What the pool pays for a served request and for an hour of Ready time, and the most for a worker in one
    Sui epoch; MIST."""

    per_request_mist: int = 0
    per_ready_hour_mist: int = 0
    cap_per_epoch_mist: int = 0


@dataclass(frozen=True)
class RegistryConfig:
    registry_id: str
    type: str
    version: int
    name: str
    open: bool
    allowed_owners: frozenset[str]
    min_stake_mist: int
    slash_window_ms: int
    unbonding_window_ms: int
    slash_share_bps: int
    require_attestation: bool
    staked_mist: int
    treasury_mist: int
    worker_count: int
    workers_table: str
    owners_table: str
    master: Master | None
    #: The rewards pool, and what workers have earned and not claimed.
    pool_mist: int = 0
    earned_mist: int = 0
    rates: RewardRates = RewardRates()


@dataclass(frozen=True)
class Snapshot:
    """Everything at once. Follow events from `checkpoint` on: it was read before the records, so applying
    an event again that is already in them must do no harm."""

    config: RegistryConfig
    workers: dict[str, Worker]
    worker_tokens: dict[str, SealTokenRecord]
    owner_tokens: dict[str, SealTokenRecord]
    master: Master | None
    checkpoint: int


@dataclass(frozen=True)
class StakeRequest:
    """One worker to stake for: `commitment` is the SHA-256 of its seal token, made on the worker."""

    node_id: str
    commitment: bytes
    stake_mist: int
    expires_at_ms: int


@dataclass(frozen=True)
class RegistryParams:
    """How a registry is created; the contract has hard maxima (30 days, 5000 bps) and a minimum of 1 SUI."""

    name: str
    open: bool
    min_stake_mist: int
    slash_window_ms: int
    unbonding_window_ms: int
    slash_share_bps: int
    require_attestation: bool


# -- from JSON ---------------------------------------------------------------------------------------------


class Fields:
    """Typed access to a rendered Move struct; a missing or misshapen field is a MalformedRecord."""

    def __init__(self, json: Any, what: str) -> None:
        if not isinstance(json, Mapping):
            raise MalformedRecord(f"{what}: found {type(json).__name__}, wanted a struct")
        self._json = json
        self._what = what

    def raw(self, name: str) -> Any:
        try:
            return self._json[name]
        except KeyError:
            raise MalformedRecord(f"{self._what}: no field {name!r}; is the package id ours?") from None

    def text(self, name: str) -> str:
        value = self.raw(name)
        if not isinstance(value, str):
            raise self._wrong(name, value, "text")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.raw(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, value, "a list of texts")
        return value

    def number(self, name: str) -> int:
        value = self.raw(name)
        # u64 comes as text, u8 to u32 as a JSON number. The longest that Move has, a u256, has 78 digits.
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
            return int(value)
        whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if whole and value >= 0:
            return int(value)
        raise self._wrong(name, value, "an unsigned number")

    def flag(self, name: str) -> bool:
        value = self.raw(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "a boolean")
        return value

    def data(self, name: str) -> bytes:
        value = self.raw(name)
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise self._wrong(name, value, "base64") from None

    def node_id(self, name: str = "node_id") -> str:
        try:
            return check_node_id(self.raw(name))
        except InvalidNodeId as error:
            raise MalformedRecord(f"{self._what}: {error}") from None

    def status(self, name: str) -> WorkerStatus:
        value = self.raw(name)
        variant = value.get("@variant") if isinstance(value, Mapping) else value
        try:
            return WorkerStatus(str(variant).lower())
        except ValueError:
            raise self._wrong(name, value, "a worker status") from None

    def struct(self, name: str) -> Fields:
        return Fields(self.raw(name), f"{self._what}.{name}")

    def optional(self, name: str) -> Fields | None:
        return None if self.raw(name) is None else self.struct(name)

    def optional_number(self, name: str) -> int | None:
        return None if self.raw(name) is None else self.number(name)

    def _wrong(self, name: str, value: Any, wanted: str) -> MalformedRecord:
        return MalformedRecord(f"{self._what}.{name}: found {value!r:.60}, wanted {wanted}")


def parse_proposal(fields: Fields | None) -> SlashProposal | None:
    if fields is None:
        return None
    return SlashProposal(
        reason=fields.number("reason"),
        evidence_hash=fields.data("evidence_hash"),
        proposed_at_ms=fields.number("proposed_at_ms"),
        executable_at_ms=fields.number("executable_at_ms"),
        previous=fields.status("previous"),
    )


def parse_worker(json: Any) -> Worker:
    """A `worker_registry::Worker` as rendered by the node."""
    fields = Fields(json, "Worker")
    rewards = fields.struct("rewards")
    return Worker(
        node_id=fields.node_id(),
        owner=fields.text("owner"),
        stake_mist=fields.number("stake"),
        status=fields.status("status"),
        proof_id=fields.text("proof"),
        withdrawal_address=fields.text("withdrawal_address"),
        registered_at_ms=fields.number("registered_at_ms"),
        status_changed_at_ms=fields.number("status_changed_at_ms"),
        min_stake_mist=fields.number("min_stake"),
        slash_window_ms=fields.number("slash_window_ms"),
        unbonding_window_ms=fields.number("unbonding_window_ms"),
        slash_share_bps=fields.number("slash_share_bps"),
        reputation=fields.number("reputation"),
        proposal=parse_proposal(fields.optional("proposal")),
        unbonding_until_ms=fields.optional_number("unbonding_until_ms"),
        workload=fields.number("workload"),
        rewards_mist=rewards.number("balance"),
        ready_reported_until_ms=rewards.number("reported_until_ms"),
    )


def parse_seal_token(json: Any, scope: str, node_id: str, owner: str) -> SealTokenRecord:
    """A `k8s_gateway::SealToken`; whose it is stands in its dynamic field's key, not in itself."""
    fields = Fields(json, "SealToken")
    return SealTokenRecord(
        scope=scope,
        node_id=node_id,
        owner=owner,
        commitment=fields.data("commitment"),
        generation=fields.number("generation"),
        issued_at_ms=fields.number("issued_at_ms"),
        expires_at_ms=fields.number("expires_at_ms"),
        revoked=fields.flag("revoked"),
    )


def parse_master(fields: Fields | None) -> Master | None:
    if fields is None:
        return None
    return Master(
        epoch=fields.number("epoch"),
        account=fields.text("account"),
        endpoint=fields.text("endpoint"),
        api_server=fields.text("api_server"),
        ca_hash=fields.data("ca_hash"),
        announced_at_ms=fields.number("announced_at_ms"),
        public_key=fields.data("public_key"),
        pcr0=fields.data("pcr0"),
        pcr3=fields.data("pcr3"),
        attested_at_ms=fields.number("attested_at_ms"),
        attestation_expires_at_ms=fields.number("attestation_expires_at_ms"),
        binding=parse_binding(fields.struct("binding")),
    )


def parse_binding(fields: Fields) -> Binding:
    """Of a master's record, or of the event that says the same."""
    return Binding(fields.data("chain_id"), fields.data("ca_hash"), fields.data("config_hash"))


def parse_registry(registry_id: str, type_: str, json: Any) -> RegistryConfig:
    """A `worker_registry::Registry` object."""
    fields = Fields(json, "Registry")
    pool = fields.struct("rewards")
    return RegistryConfig(
        registry_id=registry_id,
        type=type_,
        version=fields.number("version"),
        name=fields.text("name"),
        open=fields.flag("open"),
        allowed_owners=frozenset(fields.struct("allowed_owners").texts("contents")),
        min_stake_mist=fields.number("min_stake"),
        slash_window_ms=fields.number("slash_window_ms"),
        unbonding_window_ms=fields.number("unbonding_window_ms"),
        slash_share_bps=fields.number("slash_share_bps"),
        require_attestation=fields.flag("require_attestation"),
        staked_mist=fields.number("staked"),
        treasury_mist=fields.number("treasury"),
        worker_count=fields.struct("workers").number("size"),
        workers_table=fields.struct("workers").text("id"),
        owners_table=fields.struct("owners").text("id"),
        master=parse_master(fields.optional("master")),
        pool_mist=pool.number("balance"),
        earned_mist=fields.number("earned"),
        rates=RewardRates(
            pool.number("per_request"), pool.number("per_ready_hour"), pool.number("cap_per_epoch")
        ),
    )


def parse_request(json: Any) -> OpenRequest:
    """A `Field<u64, k8s_scheduler::Request>`: its id is the field's name."""
    field = Fields(json, "Request field")
    value = field.struct("value")
    return OpenRequest(
        request_id=field.number("name"),
        requester=value.text("requester"),
        proof_id=value.text("proof"),
        node_id=value.node_id(),
        payload_hash=value.data("payload_hash"),
        priority=value.number("priority"),
        deposit_mist=value.number("deposit"),
        claimed=value.flag("claimed"),
        submitted_at_ms=value.number("submitted_at_ms"),
        deadline_ms=value.number("deadline_ms"),
    )
