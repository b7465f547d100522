"""Deciding a registry's settings: its creation, and what its administrator changes later.

One transaction brings all of it to what is wanted: who may stake, the terms, the reward rates, the version,
whether attestation is required. Amounts in MIST, times in ms.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3s_daas.chain.bcs import normalize_address
from k3s_daas.chain.errors import ChainError, MoveAbort
from k3s_daas.registry.caps import RIGHTS
from k3s_daas.registry.client import Registry
from k3s_daas.registry.deploy import creating_registry, find_registry
from k3s_daas.registry.model import Deployment, RegistryConfig, RegistryParams, RewardRates
from k3s_daas.registry.operation import (
    Operation,
    conditions_in_words,
    duration,
    names,
    slash_conditions,
)
from k3s_daas.units import format_sui, parse_sui

if TYPE_CHECKING:
    from k3s_daas.chain.client import SuiClient
    from k3s_daas.chain.transaction import Arg, Build, Transaction

TERMS = ("min_stake_mist", "slash_window_ms", "unbonding_window_ms", "slash_share_bps")
_Step = Callable[["Transaction", "Arg"], None]


class CantChange(ChainError):
    """A setting that is fixed for ever, or can only be turned on."""


@dataclass(frozen=True)
class Wanted:
    """Without `owners` (addresses) or `rates` these are left as they are."""

    params: RegistryParams
    owners: frozenset[str] | None = None
    rates: RewardRates | None = None

    def outcome(self, config: RegistryConfig | None) -> dict[str, Any]:
        """What `describe` will say, of a registry that is `config` now."""
        owners = self.owners if self.owners is not None else config.allowed_owners if config else ()
        rates = self.rates or (config.rates if config else RewardRates())
        return _shown(self.params, owners, rates)


@dataclass(frozen=True)
class SettingsPlan:
    """`deployment` and `config` are None where there is no registry of that name yet."""

    deployment: Deployment | None
    config: RegistryConfig | None
    migrates: bool
    operation: Operation


def parse_wanted(given: Mapping[str, Any]) -> Wanted:
    """From what an inventory says: the fields of `RegistryParams`, with `min_stake` and `reward_rates` in
    SUI or MIST as text, and optionally `allowed_owners`. Raises ValueError."""
    plain = (
        "name",
        "open",
        "slash_window_ms",
        "unbonding_window_ms",
        "slash_share_bps",
        "require_attestation",
    )
    if negative := [name for name in plain[2:5] if given[name] < 0]:
        raise ValueError(f"Found {negative[0]}={given[negative[0]]}, wanted 0 or more.")
    owners, rates = given.get("allowed_owners"), given.get("reward_rates")
    return Wanted(
        RegistryParams(min_stake_mist=parse_sui(given["min_stake"]), **{name: given[name] for name in plain}),
        None if owners is None else frozenset(map(normalize_address, owners)),
        RewardRates(**{f"{k}_mist": parse_sui(v) for k, v in rates.items()}) if rates else None,
    )


def describe(config: RegistryConfig) -> dict[str, Any]:
    return _shown(config, config.allowed_owners, config.rates)


def _shown(
    terms: RegistryConfig | RegistryParams, owners: Collection[str], rates: RewardRates
) -> dict[str, Any]:
    shown = {name: getattr(terms, name) for name in ("open", *TERMS, "require_attestation")}
    return shown | {"allowed_owners": sorted(owners), "reward_rates": dict(vars(rates))}


async def plan_settings(chain: SuiClient, package_id: str, wanted: Wanted) -> SettingsPlan:
    """What is missing for the wallet's registry of that name. CantChange when it can't become what is wanted.

    A registry that isn't there is only created: allowing owners and setting rates takes a second plan,
    because no transaction can name an object that another is about to make.
    """
    deployment = await find_registry(chain, chain.require_address(), wanted.params.name, package_id)
    if deployment is None:
        return SettingsPlan(None, None, False, creation(package_id, wanted, chain.require_address()))
    registry = Registry(chain, deployment)
    config = await registry.config()
    _check(config, wanted.params)
    cap = await registry.cap("AdminCap")
    migrates = await _is_old(registry, cap)
    steps, meaning = _changes(registry, config, wanted)
    if migrates:
        steps.insert(0, _call(registry, "worker_registry::migrate"))
        meaning.insert(
            0,
            f"Migrates registry {config.name!r} to package {deployment.package_id}. Older versions of the "
            "package are refused from then on, withdrawals included, so hosts must be told the new one.",
        )
    builds = [_transaction(cap, steps)] if steps else []
    operation = Operation(builds, meaning=meaning, conditions=slash_conditions(wanted.params))
    return SettingsPlan(deployment, config, migrates, operation)


def creation(package_id: str, wanted: Wanted, wallet: str) -> Operation:
    """Creating the registry; `package_id` may stand for a package that isn't there yet."""
    params = wanted.params
    listed = names(sorted(wanted.owners or ())) or "nobody yet"
    who = "anybody may stake" if params.open else f"only listed owners may stake ({listed})"
    attested = (
        "only a master with an attestation of a listed image, for ever"
        if params.require_attestation
        else "the master that the operator appoints; attestation can be required later, for ever"
    )
    caps = "; ".join(f"{kind}, who holds it {rights}" for kind, rights in RIGHTS.items())
    meaning = [
        f"Creates registry {params.name!r}, in which {who}, with at least "
        f"{format_sui(params.min_stake_mist)} a worker. This can't be taken back.",
        conditions_in_words(params),
        f"It takes {attested}.",
        f"Its capabilities all go to {wallet}: {caps}.",
    ]
    if wanted.owners or wanted.rates:
        meaning.append(
            "Owners and reward rates take a second transaction, which can't be estimated before the first."
        )
    build = creating_registry(package_id, params)
    return Operation([build], meaning=meaning, conditions=slash_conditions(params))


def _check(config: RegistryConfig, params: RegistryParams) -> None:
    if config.open != params.open:
        raise CantChange(
            f"Registry {config.name!r} ({config.registry_id}) was created with open={config.open}, wanted "
            f"{params.open}. That is fixed: set what it has, or choose another name for a new registry."
        )
    if config.require_attestation and not params.require_attestation:
        raise CantChange(
            f"Registry {config.name!r} ({config.registry_id}) has require_attestation=True, wanted False. "
            "There is no way back from it: set what it has, or choose another name for a new registry."
        )


def _changes(registry: Registry, config: RegistryConfig, wanted: Wanted) -> tuple[list[_Step], list[str]]:
    """(calls, what each means) for everything that differs."""
    steps: list[_Step] = []
    meaning: list[str] = []
    params, owners, rates = wanted.params, wanted.owners, wanted.rates
    if owners is not None and (added := sorted(owners - config.allowed_owners)):
        steps += [_owner(registry, "allow_owner", owner) for owner in added]
        meaning.append(f"Lets {names(added)} stake.")
    if owners is not None and (removed := sorted(config.allowed_owners - owners)):
        steps += [_owner(registry, "disallow_owner", owner) for owner in removed]
        meaning.append(f"Takes {names(removed)} off the list: no new stakes; the workers they have stay.")
    if any(getattr(config, name) != getattr(params, name) for name in TERMS):
        steps.append(
            _call(registry, "worker_registry::set_terms", *(getattr(params, name) for name in TERMS))
        )
        meaning.append(
            f"Changes the terms from {_terms(config)} to {_terms(params)}, for workers that stake from now "
            "on; the others keep those they staked under."
        )
    if rates is not None and rates != config.rates:
        steps.append(_call(registry, "rewards::set_reward_rates", *vars(rates).values()))
        meaning.append(
            f"From now on the pool, which holds {format_sui(config.pool_mist)}, pays "
            f"{format_sui(rates.per_request_mist)} for a served request and "
            f"{format_sui(rates.per_ready_hour_mist)} for an hour of Ready time, to one worker at most "
            f"{format_sui(rates.cap_per_epoch_mist)} in a Sui epoch."
        )
    if params.require_attestation and not config.require_attestation:
        steps.append(_call(registry, "nautilus::enable_attestation"))
        meaning.append(f"Requires attested masters from now on, for ever.{_who_is_voided(config)}")
    return steps, meaning


def _who_is_voided(config: RegistryConfig) -> str:
    master = config.master
    if master is None or master.attestation_expires_at_ms:
        return ""
    return (
        f" The master {master.account} (epoch {master.epoch}) has no attestation and is none any more at "
        "once: no worker joins and nothing is reported until an image on the operator's list attests itself."
    )


def _terms(terms: RegistryConfig | RegistryParams) -> str:
    return (
        f"(minimum {format_sui(terms.min_stake_mist)}, slash window {duration(terms.slash_window_ms)}, "
        f"unbonding window {duration(terms.unbonding_window_ms)}, slash share "
        f"{terms.slash_share_bps / 100:g} %)"
    )


def _call(registry: Registry, function: str, *numbers: int) -> _Step:
    """A call of an administrator's function that takes numbers."""
    return lambda tx, cap: registry.call(tx, function, cap, *map(tx.u64, numbers))


def _owner(registry: Registry, verb: str, owner: str) -> _Step:
    return lambda tx, cap: registry.call(tx, f"worker_registry::{verb}", cap, tx.address(owner))


def _transaction(cap: str, steps: Sequence[_Step]) -> Build:
    async def build(tx: Transaction) -> None:
        for step in steps:
            step(tx, tx.object(cap))

    return build


async def _is_old(registry: Registry, cap: str) -> bool:
    """Whether the registry's version is older than the package's, which only the package knows."""
    try:
        await registry.chain.simulate(_transaction(cap, [_call(registry, "worker_registry::migrate")]))
    except MoveAbort as error:
        if error.name == "ENotUpgrade":
            return False
        raise
    return True
