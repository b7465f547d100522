"""What was seen of a host, and what is found about it. Times in ms since 1970, amounts in MIST."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from k3s_daas.chainconfig import ChainConfig
from k3s_daas.registry import Master, RegistryConfig, SealTokenRecord, Worker
from k3s_daas.release import Release

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, what is so, and for anything but "ok" why that is bad and what to do.

    `coming` is a warning of something that isn't so yet and may be in a moment: who waits for a host to be
    well waits for that, too.
    """

    check: str
    level: Level
    found: str
    cause: str = ""
    fix: str = ""
    coming: bool = False


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, cause: str, fix: str, *, coming: bool = False) -> Finding:
    return Finding(check, "warning", found, cause, fix, coming)


def error(check: str, found: str, cause: str, fix: str) -> Finding:
    return Finding(check, "error", found, cause, fix)


@dataclass(frozen=True)
class SuiAnswer:
    """One Sui endpoint. `unresolved` is why its name has no address; `wrong_chain` what chain it serves
    instead; `trouble` any other reason for no answer."""

    url: str
    checkpoint_ms: int | None = None
    unresolved: str | None = None
    wrong_chain: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class OnChain:
    """What the registry says. `token_of` names another worker whose token this host's file holds."""

    registry: RegistryConfig | None = None
    worker: Worker | None = None
    token: SealTokenRecord | None = None
    token_of: str | None = None
    balance_mist: int | None = None
    trouble: str | None = None

    @property
    def master(self) -> Master | None:
        return None if self.registry is None else self.registry.master


@dataclass(frozen=True)
class SecretFile:
    """A file that only root (or its service) may read. `commitment` is a seal token's, and public."""

    path: str
    missing: bool = False
    mode: int = 0
    commitment: bytes | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Port:
    """A TCP connection that was tried. `what` is served there."""

    what: str
    address: str
    unresolved: str | None = None
    refused: bool = False
    trouble: str | None = None

    @property
    def reached(self) -> bool:
        return self.unresolved is None and self.trouble is None


@dataclass(frozen=True)
class Unit:
    """systemd's word on a unit: ActiveState, SubState, Result, LoadState, automatic restarts, and when its
    process was started (None where none was)."""

    name: str
    active: str
    sub: str
    result: str
    load: str
    restarts: int
    started_ms: int | None = None


@dataclass(frozen=True)
class WatcherSays:
    """The watcher's own health page. `problems` is None where there was no answer, and `trouble` says why."""

    problems: tuple[str, ...] | None = None
    last_heartbeat_ms: int | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Disk:
    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class MasterSays:
    """The master's own API, over TLS with the on-chain CA. `reasons` are those of /readyz, None unasked."""

    reasons: tuple[str, ...] | None = None
    row: dict[str, Any] | None = None
    untrusted: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Facts:
    """Everything seen. A part that could not be looked at, because an earlier one failed, is empty."""

    role: Literal["worker", "master"]
    now_ms: int
    config_path: str
    config: dict[str, Any] = field(default_factory=dict)
    config_trouble: str | None = None
    chain_config: ChainConfig | None = None
    endpoints: tuple[SuiAnswer, ...] = ()
    chain: OnChain = field(default_factory=OnChain)
    secret: SecretFile | None = None
    #: The master's wallet address, read from its key file.
    account: str | None = None
    ports: tuple[Port, ...] = ()
    #: (found, wanted) CA hashes in hex when they differ.
    ca_mismatch: tuple[str, str] | None = None
    ca_checked: bool = False
    master: MasterSays = field(default_factory=MasterSays)
    #: This host's addresses by interface.
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    k3s_config: dict[str, Any] = field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    stop_marker: bool = False
    #: What the kubelet's health page answers; "" when it doesn't, None unasked.
    kubelet: str | None = None
    #: None unasked.
    watcher: WatcherSays | None = None
    disks: tuple[Disk, ...] = ()
    certificate_expires_ms: int | None = None
    release: Release | None = None

    @property
    def node_id(self) -> str | None:
        found = self.config.get("node_id")
        return found if isinstance(found, str) else None

    def unit(self, name: str) -> Unit | None:
        return next((unit for unit in self.units if unit.name == name), None)
