"""Deciding what to do about seal tokens on-chain: create, rotate, revoke. From records, sending nothing.

A rotation is named by the new secret's commitment, which is on the host before it is on-chain: so a rotation
that was killed anywhere is found done or not done, and never done twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.model import SealTokenRecord, StakeRequest, Worker, WorkerStatus
from k3s_daas.registry.operation import Operation, names
from k3s_daas.registry.staking import Wanted, expiry, placeholder

if TYPE_CHECKING:
    from k3s_daas.registry.client import Registry

State = Literal["present", "rotated", "revoked"]
#: Tokens in one transaction, each a call with up to four inputs of its own.
BATCH = 100


class CantMint(ChainError):
    """A seal token that can't be brought into the wanted state."""


@dataclass(frozen=True)
class TokenPlan:
    """Names are node ids; of an owner's token, the owner's address."""

    create: tuple[StakeRequest, ...] = ()
    rotate: tuple[StakeRequest, ...] = ()
    revoke: tuple[str, ...] = ()

    def operation(self, registry: Registry, scope: str) -> Operation:
        steps = [("create", one) for one in self.create] + [("rotate", one) for one in self.rotate]
        steps += [("revoke", StakeRequest(name, b"", 0, 0)) for name in self.revoke]
        batches = [steps[start : start + BATCH] for start in range(0, len(steps), BATCH)]
        meaning = []
        if self.create:
            meaning.append(
                f"Puts the commitment of a first {scope} seal token on-chain for {_of(self.create)}."
            )
        if self.rotate:
            meaning.append(
                f"Rotates the {scope} seal token of {_of(self.rotate)}: the old secret is worthless at "
                "once, and "
                "what uses it is refused until it has the new one."
            )
        if self.revoke:
            meaning.append(
                f"Revokes the {scope} seal token of {names(self.revoke)}: it is worthless at once, and only "
                "another secret can follow it."
            )
        return Operation([registry.minting(batch, scope) for batch in batches], meaning=meaning)


def plan_tokens(
    wanted: Sequence[Wanted],
    state: State,
    wallet: str,
    workers: Mapping[str, Worker],
    tokens: Mapping[str, SealTokenRecord],
    now_ms: int,
    lifetime_days: float,
) -> TokenPlan:
    """Of workers' tokens. CantMint when one is not ours, or can't be what is wanted."""
    todo: dict[str, list[StakeRequest]] = {"create": [], "rotate": [], "revoke": []}
    for one in wanted:
        worker = workers.get(one.node_id)
        step = decide(one, tokens.get(one.node_id), state, now_ms)
        if worker is not None and worker.owner != wallet:
            raise CantMint(
                f"Worker {one.node_id} belongs to {worker.owner}, and the wallet's address is {wallet}. "
                "Use the "
                "owner's key."
            )
        if step in ("create", "rotate"):
            _check_eligible(one.node_id, worker)
        if step is not None:
            todo[step].append(_request(one, now_ms, lifetime_days))
    revoke = tuple(one.node_id for one in todo["revoke"])
    return TokenPlan(tuple(todo["create"]), tuple(todo["rotate"]), revoke)


def plan_owner_token(
    wanted: Wanted, record: SealTokenRecord | None, state: State, now_ms: int, lifetime_days: float
) -> TokenPlan:
    """Of the wallet's own kubectl token; `wanted.node_id` is the wallet's address."""
    request = _request(wanted, now_ms, lifetime_days)
    match decide(wanted, record, state, now_ms):
        case "create":
            return TokenPlan(create=(request,))
        case "rotate":
            return TokenPlan(rotate=(request,))
        case "revoke":
            return TokenPlan(revoke=(wanted.node_id,))
    return TokenPlan()


def decide(
    wanted: Wanted, record: SealTokenRecord | None, state: State, now_ms: int
) -> Literal["create", "rotate", "revoke"] | None:
    """The step that is missing, None when there is none."""
    if state == "revoked":
        return None if record is None or record.revoked else "revoke"
    if record is None:
        return "create"
    if record.commitment == wanted.commitment:
        if record.revoked or record.expires_at_ms <= now_ms:
            raise CantMint(
                f"The seal token of {wanted.node_id} (generation {record.generation}) is "
                f"{'revoked' if record.revoked else 'expired'}, wanted a live one. The chain takes a "
                "secret only "
                "once: make a new one (seal_commitment with state next) and rotate."
            )
        return None
    if state == "rotated":
        return "rotate"
    found = wanted.commitment.hex() if wanted.commitment else "no secret"
    raise CantMint(
        f"{wanted.node_id} has another secret than the chain knows: found {found}, wanted commitment "
        f"{record.commitment.hex()} (generation {record.generation}). Bring the secret back, or rotate."
    )


def _request(wanted: Wanted, now_ms: int, lifetime_days: float) -> StakeRequest:
    commitment = wanted.commitment or placeholder(wanted.node_id)
    return StakeRequest(wanted.node_id, commitment, 0, expiry(wanted.node_id, now_ms, lifetime_days))


def _check_eligible(node_id: str, worker: Worker | None) -> None:
    if worker is None:
        raise CantMint(
            f"Found no worker {node_id} in the registry, wanted it staked: run playbooks/workers.yml."
        )
    if worker.status in (WorkerStatus.SLASHED, WorkerStatus.UNBONDING):
        raise CantMint(
            f"Worker {node_id} is {worker.status.value}, and gets no seal token any more. Leave it out."
        )


def _of(requests: Sequence[StakeRequest]) -> str:
    return names([request.node_id for request in requests])
