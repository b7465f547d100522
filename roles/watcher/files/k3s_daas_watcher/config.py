"""The watcher's configuration: one JSON file, checked strictly, with errors a person can act on."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from k3s_daas.chainconfig import ChainConfig, InvalidConfig, parse, read
from k3s_daas.listening import split_listen

from .errors import Exit, Refusal

#: An RFC 1123 label.
LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def _node_id(value: str) -> str:
    if not re.match(LABEL, value) or value.endswith("\n"):
        raise ValueError("wanted an RFC 1123 label: a-z, 0-9 and '-', at most 63, no '-' at the ends")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or ".." in Path(value).parts:
        raise ValueError("wanted an absolute path without '..'")
    return value


def _unit(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_.@-]{1,240}\.service", value) or value.startswith("-"):
        raise ValueError("wanted the name of a systemd service, like k3s-agent.service")
    return value


def _loopback(value: str) -> str:
    host, _ = split_listen(value)
    if not _is_loopback(host):
        raise ValueError("wanted a loopback address: this API is for the host itself")
    return value


def _address(value: str) -> str:
    host, _ = split_listen(value)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("wanted an IP address of this host and a port, like 10.0.0.12:10281") from None
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("wanted a URL like http://127.0.0.1:10248/healthz")
    if not _is_loopback(parts.hostname):
        raise ValueError("wanted a loopback address: the kubelet of this very host")
    return value


NodeId = Annotated[str, AfterValidator(_node_id)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class WatcherConfig(ChainConfig):
    """`watcher.json`. Durations in seconds as the names say; no secrets in here."""

    node_id: NodeId
    tee_mode: Literal["nitro", "simulated"]
    accept_simulated: bool = False
    # Root certificate of an emulated security module on a localnet: then a simulated master, too, has to
    # prove itself before it is trusted, which proves that the checks work and nothing else.
    simulation_root_file: AbsolutePath | None = None
    heartbeat_s: Annotated[int, Field(ge=1, le=120)] = 30
    chain_poll_s: Annotated[int, Field(ge=1, le=60)] = 10
    listen: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1:10280"
    # A second address that answers GET /metrics and nothing else; None: there is none.
    metrics_listen: Annotated[str, AfterValidator(_address)] | None = None
    state_dir: AbsolutePath = "/var/lib/k3s-daas-watcher"
    agent_unit: Annotated[str, AfterValidator(_unit)] = "k3s-agent.service"
    register_unit: Annotated[str, AfterValidator(_unit)] = "k3s-daas-register.service"
    # What runs the pods, as the agent was told. There is no third one.
    runtime: Literal["containerd", "docker"] = "containerd"
    # Where root puts a copy of the kubelet's certificate and key.
    kubelet_credentials_dir: AbsolutePath = "/run/k3s-daas-kubelet"
    kubelet_health_url: Annotated[str, AfterValidator(_loopback_url)] = "http://127.0.0.1:10248/healthz"
    # Root's answer to a request, and root's word that the agent must not be started again.
    confirmation_file: AbsolutePath = "/run/k3s-daas/agent-control.done"
    stop_marker: AbsolutePath = "/var/lib/k3s-daas/agent-stopped"

    @model_validator(mode="after")
    def _check_root(self) -> WatcherConfig:
        if self.simulation_root_file is not None and not (self.simulated and self.network == "localnet"):
            raise ValueError(
                f"simulation_root_file is for tee_mode simulated on a localnet, found it with "
                f"{self.tee_mode} on {self.network}; remove it: AWS's root alone is trusted there"
            )
        return self

    @property
    def simulated(self) -> bool:
        return self.tee_mode == "simulated"

    @property
    def wants_proof(self) -> bool:
        """Whether a master has to prove itself before it is told any secret."""
        return not self.simulated or self.simulation_root_file is not None


def load(path: Path) -> WatcherConfig:
    """Read and check `path`; raises Refusal that names every wrong field."""
    try:
        return parse(path, read(path), WatcherConfig)
    except InvalidConfig as error:
        raise Refusal(
            "config_invalid",
            f"{path} can't be used",
            found=error.found,
            wanted=error.wanted,
            fix="correct the role's variables and run the playbook again",
            exit_code=Exit.CONFIG,
        ) from None
