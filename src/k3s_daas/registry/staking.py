"""Deciding what to stake: which workers are there already, what is missing, and what must not go on.

All of it is decided before anything is sent, from the wanted workers and the records on-chain.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.client import MAX_STAKE_BATCH
from k3s_daas.registry.model import (
    RegistryConfig,
    SealTokenRecord,
    StakeRequest,
    Worker,
    WorkerStatus,
    check_node_id,
)
from k3s_daas.registry.operation import Operation, conditions_in_words, names, slash_conditions
from k3s_daas.units import format_sui, parse_sui

if TYPE_CHECKING:
    from k3s_daas.registry.client import Registry

_COMMITMENT = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_DAY_MS = 86_400_000
MAX_LIFETIME_DAYS = 365
_MAY_ADD = (WorkerStatus.PENDING, WorkerStatus.ACTIVE, WorkerStatus.BUSY, WorkerStatus.OFFLINE)


class CantStake(ChainError):
    """A wanted worker can't be staked for, or is not ours."""


@dataclass(frozen=True)
class Wanted:
    """A worker as the playbook wants it. `commitment` is None where check mode can't know it yet;
    `next_commitment` is that of a secret that waits on the host, of a rotation that was interrupted."""

    node_id: str
    commitment: bytes | None
    stake_mist: int = 0
    next_commitment: bytes | None = None


@dataclass(frozen=True)
class StakePlan:
    """`stake`: not there yet. `mint`: staked, without a seal token. `add`: MIST to add to a stake. `present`:
    nothing to do, except perhaps to add."""

    stake: tuple[StakeRequest, ...]
    mint: tuple[StakeRequest, ...]
    present: tuple[str, ...]
    add: Mapping[str, int] = field(default_factory=dict)

    @property
    def stake_mist(self) -> int:
        return sum(request.stake_mist for request in self.stake) + sum(self.add.values())

    def operation(
        self,
        registry: Registry,
        config: RegistryConfig,
        withdrawal_address: str,
        batch: int = MAX_STAKE_BATCH,
    ) -> Operation:
        """In as few transactions as there can be; each is for all of its workers or for none."""
        none: tuple[StakeRequest, ...] = ()
        parts = [(self.stake[i : i + batch], none) for i in range(0, len(self.stake), batch)]
        parts += [(none, self.mint[i : i + batch]) for i in range(0, len(self.mint), batch)]
        if len(self.stake) + len(self.mint) <= batch:
            parts = [(self.stake, self.mint)] if self.stake or self.mint else []
        meaning = []
        if self.stake:
            meaning = [
                f"Stakes {format_sui(sum(one.stake_mist for one in self.stake))} for {len(self.stake)} "
                "workers "
                f"({names([one.node_id for one in self.stake])}) in registry {config.name!r}, to be paid "
                "back to "
                f"{withdrawal_address}.",
                conditions_in_words(config),
            ]
        if self.add:
            meaning.append(
                f"Adds {format_sui(sum(self.add.values()))} to the stakes of {names(list(self.add))}."
            )
        if self.mint:
            meaning.append(f"Mints a first seal token for {names([one.node_id for one in self.mint])}.")
        builds = [registry.staking(stake, withdrawal_address, mint) for stake, mint in parts]
        more = list(self.add.items())
        builds += [registry.adding(dict(more[i : i + batch])) for i in range(0, len(more), batch)]
        return Operation(builds, self.stake_mist, meaning=meaning, conditions=slash_conditions(config))

    def outcome(self, known: Mapping[str, Worker], owner: str) -> dict[str, dict[str, str]]:
        """What `describe` will say once the plan is carried out."""
        after = describe(known)
        for request in self.stake:
            after[request.node_id] = summary("pending", owner, request.stake_mist)
        for request in self.mint:
            after[request.node_id] |= {"seal_token": "minted"}
        for name, amount in self.add.items():
            after[name] |= {"stake": format_sui(known[name].stake_mist + amount)}
        return after


def parse_commitment(text: str) -> bytes:
    """The 32 bytes of a commitment in hex. CantStake when it isn't one."""
    if _COMMITMENT.fullmatch(text) is None:
        # Not shown: somebody may have passed the secret itself.
        raise CantStake(
            f"Found a commitment of {len(text)} characters, wanted the SHA-256 of the seal token: 64 hex "
            "digits, as seal_commitment returns it."
        )
    return bytes.fromhex(text)


def parse_wanted(
    entries: Sequence[Mapping[str, Any]], stake_mist: int, *, without_secrets: bool
) -> list[Wanted]:
    """The workers a playbook lists, each with `node_id`, `commitment` (hex) and perhaps `stake_mist`, checked
    as far as that goes without the chain. `without_secrets` lets commitments be empty (check mode)."""
    wanted = []
    for number, entry in enumerate(entries):
        node_id, commitment = entry.get("node_id"), str(entry.get("commitment") or "")
        if not node_id:
            raise CantStake(f"Found workers[{number}] without node_id, wanted node_id and commitment.")
        if not commitment and not without_secrets:
            raise CantStake(
                f"Found no commitment for {node_id}, wanted the one seal_commitment returned on the host."
            )
        own, waiting = entry.get("stake_mist"), str(entry.get("next_commitment") or "")
        amount = stake_mist if own is None else parse_sui(f"{own} MIST")
        known = [parse_commitment(text) if text else None for text in (commitment, waiting)]
        wanted.append(Wanted(node_id, known[0], amount, known[1]))
    check_wanted(wanted)
    return wanted


def check_wanted(wanted: Sequence[Wanted]) -> None:
    """Refuse bad and doubled names and commitments, without asking the chain."""
    seen: dict[str, str] = {}
    for worker in wanted:
        check_node_id(worker.node_id)
        for what in (worker.node_id, worker.commitment.hex() if worker.commitment else None):
            if what is None:
                continue
            if what in seen:
                raise CantStake(
                    f"Found {what} twice, for {seen[what]} and {worker.node_id}; wanted node ids and "
                    "commitments that are all different. Two hosts must not share a name or a secret: "
                    "remove the copy."
                )
            seen[what] = worker.node_id


def check_lifetime(days: float) -> None:
    if not 0 < days <= MAX_LIFETIME_DAYS:
        raise CantStake(
            f"Found a token lifetime of {days:g} days, wanted more than 0 and at most {MAX_LIFETIME_DAYS}."
        )


def expiry(node_id: str, now_ms: int, lifetime_days: float) -> int:
    """When a seal token made now expires, in ms since 1970: up to a tenth earlier than the lifetime, by name,
    so that a fleet staked at once doesn't expire at once."""
    check_lifetime(lifetime_days)
    lifetime_ms = int(lifetime_days * _DAY_MS)
    spread = int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:4], "big")
    return now_ms + lifetime_ms - spread % max(1, lifetime_ms // 10)


def plan(
    wanted: Sequence[Wanted],
    config: RegistryConfig,
    owner: str,
    workers: Mapping[str, Worker],
    tokens: Mapping[str, SealTokenRecord],
    now_ms: int,
    lifetime_days: float,
) -> StakePlan:
    """What is missing. CantStake when a worker belongs to somebody else, has another secret, or has too
    little stake."""
    stake, mint, present = [], [], []
    add: dict[str, int] = {}
    for worker in wanted:
        known = workers.get(worker.node_id)
        commitment = worker.commitment or placeholder(worker.node_id)
        request = StakeRequest(
            worker.node_id, commitment, worker.stake_mist, expiry(worker.node_id, now_ms, lifetime_days)
        )
        if known is None:
            _check_stake(worker, config)
            _check_allowed(config, owner)
            stake.append(request)
            continue
        if known.owner != owner:
            raise CantStake(
                f"Node id {worker.node_id} is taken: found owner {known.owner}, wanted {owner}. Give the "
                "host another node id, or use the key of that owner."
            )
        if known.status == WorkerStatus.SLASHED:
            present.append(worker.node_id)  # final: nothing on the host can change it
        elif (token := tokens.get(worker.node_id)) is None:
            if known.status != WorkerStatus.UNBONDING:
                mint.append(request)
        elif token.commitment == worker.next_commitment:
            raise CantStake(
                f"A rotation of worker {worker.node_id}'s seal token was interrupted: found the new "
                "secret (generation "
                f"{token.generation}) on-chain, and on the host still waiting. "
                "Run playbooks/rotate.yml -e rotate=seal_tokens, which finishes it."
            )
        elif token.commitment != worker.commitment:
            found = worker.commitment.hex() if worker.commitment else "no secret"
            raise CantStake(
                f"Worker {worker.node_id} has another secret than the chain knows: found {found} on the "
                f"host, wanted commitment {token.commitment.hex()} (generation {token.generation}). "
                "Bring back the host's seal token file, or rotate the worker's seal token."
            )
        else:
            present.append(worker.node_id)
        if known.status in _MAY_ADD and worker.stake_mist > known.stake_mist:
            add[worker.node_id] = worker.stake_mist - known.stake_mist
    return StakePlan(tuple(stake), tuple(mint), tuple(present), add)


async def plan_for(
    registry: Registry, wanted: Sequence[Wanted], lifetime_days: float
) -> tuple[RegistryConfig, dict[str, Worker], StakePlan]:
    """The registry's terms, those workers that are there, and what is missing."""
    config, now_ms = await registry.config(), await registry.clock_ms()
    ids = [worker.node_id for worker in wanted]
    known, tokens = await registry.workers_by_id(ids), await registry.worker_tokens(ids)
    owner = registry.chain.require_address()
    return config, known, plan(wanted, config, owner, known, tokens, now_ms, lifetime_days)


def foreseen(wanted: Sequence[Wanted]) -> Operation:
    """As far as it can be known before there is a registry: nothing to send, but money to be locked."""
    locked = sum(worker.stake_mist for worker in wanted)
    ids = [worker.node_id for worker in wanted]
    meaning = [f"Stakes {format_sui(locked)} for {len(ids)} workers ({names(ids)})."]
    return Operation(locks_mist=locked, meaning=meaning)


def placeholder(name: str) -> bytes:
    """Stands for a commitment that check mode can't know: as long, and different for each name."""
    return hashlib.sha256(b"unknown " + name.encode()).digest()


def _check_stake(worker: Wanted, config: RegistryConfig) -> None:
    if worker.stake_mist < config.min_stake_mist:
        raise CantStake(
            f"Found a stake of {format_sui(worker.stake_mist)} for {worker.node_id}, wanted at least "
            f"{format_sui(config.min_stake_mist)}, the minimum of registry {config.name!r}. Raise the stake."
        )


def _check_allowed(config: RegistryConfig, owner: str) -> None:
    if not config.open and owner not in config.allowed_owners:
        raise CantStake(
            f"Registry {config.name!r} takes only owners on its list, and {owner} is not on it. Ask its "
            "administrator to allow this address."
        )


# -- for the operator's eyes -------------------------------------------------------------------------------


def summary(status: str, owner: str, stake_mist: int) -> dict[str, str]:
    return {"status": status, "owner": owner, "stake": format_sui(stake_mist)}


def describe(workers: Mapping[str, Worker]) -> dict[str, dict[str, str]]:
    return {name: summary(w.status.value, w.owner, w.stake_mist) for name, w in workers.items()}
