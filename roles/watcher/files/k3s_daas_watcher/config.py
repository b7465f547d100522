"""The watcher's configuration: one JSON file, checked strictly, with errors a person can act on."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from k3s_daas.registry.model import Deployment

from .errors import Exit, Refusal

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MAX_BYTES = 64 * 1024


def _object_id(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-f]{64}", value):
        raise ValueError("wanted 0x and 64 lowercase hexadecimal digits")
    return value


def _node_id(value: str) -> str:
    if not _LABEL.fullmatch(value):
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


def split_listen(value: str) -> tuple[str, int]:
    """`host:port` as a pair; raises ValueError."""
    host, separator, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("wanted <address>:<port>, like 127.0.0.1:10280")
    return host, int(port)


def _loopback(value: str) -> str:
    host, _ = split_listen(value)
    try:
        if ipaddress.ip_address(host).is_loopback:
            return value
    except ValueError:
        pass
    raise ValueError("wanted a loopback address: this API is for the host itself")


def _loopback_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("wanted a URL like http://127.0.0.1:10248/healthz")
    _loopback(parts.netloc)
    return value


ObjectId = Annotated[str, AfterValidator(_object_id)]
NodeId = Annotated[str, AfterValidator(_node_id)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Network = Literal["localnet", "devnet", "testnet", "mainnet"]


class ChainConfig(BaseModel):
    """Which chain, and which registry on it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    network: Network
    endpoints: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]
    chain_id: str | None = None
    package_id: ObjectId
    # The package's first version, which types keep naming after an upgrade.
    original_package_id: ObjectId | None = None
    registry_id: ObjectId

    @model_validator(mode="after")
    def _check_endpoints(self) -> ChainConfig:
        for endpoint in self.endpoints:
            parts = urlsplit(endpoint)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("endpoints: wanted URLs like https://fullnode.testnet.sui.io:443")
            if parts.scheme == "http" and self.network != "localnet":
                raise ValueError(
                    f"endpoints: http:// is plaintext and refused on {self.network}; use https://"
                )
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError("endpoints: the same one is named twice, so two answers would not be two")
        if len(self.endpoints) < self.wanted_answers:
            raise ValueError("endpoints: mainnet needs two of different providers, so that one can't lie")
        return self

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.package_id, self.registry_id, self.original_package_id)

    @property
    def wanted_answers(self) -> int:
        """How many endpoints must answer, and agree, before anything is believed."""
        return 2 if self.network == "mainnet" else 1


class WatcherConfig(ChainConfig):
    """`watcher.json`. Durations in seconds as the names say; no secrets in here."""

    node_id: NodeId
    tee_mode: Literal["nitro", "simulated"]
    accept_simulated: bool = False
    heartbeat_s: Annotated[int, Field(ge=1, le=120)] = 30
    chain_poll_s: Annotated[int, Field(ge=1, le=60)] = 10
    listen: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1:10280"
    state_dir: AbsolutePath = "/var/lib/k3s-daas-watcher"
    agent_unit: Annotated[str, AfterValidator(_unit)] = "k3s-agent.service"
    kubelet_health_url: Annotated[str, AfterValidator(_loopback_url)] = "http://127.0.0.1:10248/healthz"
    # Root's answer to a request, and root's word that the agent must not be started again.
    confirmation_file: AbsolutePath = "/run/k3s-daas/agent-control.done"
    stop_marker: AbsolutePath = "/var/lib/k3s-daas/agent-stopped"

    @property
    def simulated(self) -> bool:
        return self.tee_mode == "simulated"


Model = TypeVar("Model", bound=ChainConfig)


def load(path: Path) -> WatcherConfig:
    """Read and check `path`; raises Refusal that names every wrong field."""
    return _parse(path, _read(path), WatcherConfig)


def load_chain(path: Path) -> ChainConfig:
    """The chain part of any of our configuration files (watcher.json, master.json); raises Refusal."""
    data = _read(path)
    return _parse(path, {key: data[key] for key in ChainConfig.model_fields if key in data}, ChainConfig)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(path, str(error.strerror), "a readable JSON file") from None
    if len(raw) > MAX_BYTES:
        raise _refusal(path, f"more than {MAX_BYTES} bytes", "a JSON object")
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise _refusal(path, f"no JSON ({error})", "a JSON object") from None
    if not isinstance(data, dict):
        raise _refusal(path, f"a JSON {type(data).__name__}", "a JSON object")
    return data


def _parse(path: Path, data: dict[str, Any], model: type[Model]) -> Model:
    try:
        # Through JSON, because strict mode takes an array for a tuple only there.
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        found, wanted = [], []
        for problem in error.errors(include_url=False):
            name = ".".join(str(part) for part in problem["loc"]) or "the whole"
            missing = problem["type"] == "missing"
            value = "nothing" if missing else _short(problem["input"]) if problem["loc"] else "what is there"
            found.append(f"{name}: {value}")
            wanted.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
        raise _refusal(path, "; ".join(found), "; ".join(wanted)) from None


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _refusal(path: Path, found: str, wanted: str) -> Refusal:
    return Refusal(
        "config_invalid",
        f"{path} can't be used",
        found=found,
        wanted=wanted,
        fix="correct the role's variables and run the playbook again",
        exit_code=Exit.CONFIG,
    )
