"""What each side says, as typed values. What comes from hosts is checked: they may be anybody's by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from k3s_daas.registry.model import RegistryConfig, SealTokenRecord, Worker
from k3s_daas.registry.settings import Wanted

Text = Annotated[str, Field(max_length=1000)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Unit(_Said):
    """systemd's ActiveState, SubState and UnitFileState; the last is "" for a unit that isn't installed.

    A static one is started by another unit.
    """

    active: Text
    sub: Text
    enabled: Text


class Host(_Said):
    """One host. Commitments are SHA-256 in hex, "" without a secret; `k3s_version` is the binary's own word,
    "" without one; `units` are those that are to run there."""

    commitment: Text = ""
    next_commitment: Text = ""
    seal_trouble: Text = ""
    k3s_version: Text = ""
    units: dict[str, Unit] = {}


class Node(_Said):
    """A Node object: its Ready condition, whether it is cordoned, and its kubelet's version."""

    ready: bool
    unschedulable: bool
    version: Text


class Cluster(_Said):
    """The cluster as its own API server has it, by node name. `ca_pem` is what the server serves at /cacerts;
    `announced` is the master service's word on whether the chain names it, None when it gave none."""

    nodes: dict[str, Node]
    ca_pem: str
    announced: bool | None


class Change(_Said):
    """A task of a role that would change something on a host; `what` is the file it would change, or ""."""

    host: Text
    role: Text
    task: Text
    what: Text


@dataclass(frozen=True)
class OnChain:
    """The registry, read at once. `wallet` is the operator's address, `now_ms` the chain's time."""

    config: RegistryConfig
    workers: Mapping[str, Worker]
    tokens: Mapping[str, SealTokenRecord]
    wallet: str
    now_ms: int


@dataclass(frozen=True)
class Fleet:
    """What the inventory wants: its workers by node id, its master with the addresses that it is to announce.

    `k3s_version` is "" where it is not compared; `terms` are None for another's registry.
    """

    master: str
    workers: tuple[str, ...]
    endpoint: str
    api_server: str
    attested: bool
    k3s_version: str = ""
    terms: Wanted | None = None


@dataclass(frozen=True)
class Seen:
    """Everything that could be asked. A side that gave no answer is None, or not among the hosts."""

    chain: OnChain | None = None
    cluster: Cluster | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
