"""Which chain and which registry: the part that every configuration file of ours has in common."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from k3s_daas.registry.model import Deployment

MAX_BYTES = 64 * 1024


class InvalidConfig(Exception):
    """A configuration can't be used; `found` and `wanted` name every wrong field."""

    def __init__(self, path: Path, found: str, wanted: str) -> None:
        super().__init__(f"{path} can't be used: found {found}; wanted {wanted}")
        self.path = path
        self.found = found
        self.wanted = wanted


def _object_id(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-f]{64}", value):
        raise ValueError("wanted 0x and 64 lowercase hexadecimal digits")
    return value


ObjectId = Annotated[str, AfterValidator(_object_id)]
Network = Literal["localnet", "devnet", "testnet", "mainnet"]


class ChainConfig(BaseModel):
    """A registry on a chain, and the endpoints by which it is reached. Unknown keys are refused."""

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


Model = TypeVar("Model", bound=ChainConfig)


def load_chain(path: Path) -> ChainConfig:
    """The chain part of any of our configuration files (watcher.json, master.json); raises InvalidConfig."""
    data = read(path)
    return parse(path, {key: data[key] for key in ChainConfig.model_fields if key in data}, ChainConfig)


def add_chain_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a command that asks the chain."""
    parser.add_argument("--config", type=Path, help="master.json, watcher.json or the chain part of either")
    parser.add_argument("--network", help="instead of --config, with the next three")
    parser.add_argument("--endpoint", action="append", default=[], help="Sui endpoint; may be repeated")
    parser.add_argument("--package-id")
    parser.add_argument("--registry-id")
    parser.add_argument("--original-package-id", help="of a package that was upgraded: its first version")
    parser.add_argument(
        "--chain-id", help="digest of the network's first checkpoint, to be sure of the network"
    )


def chain_of(options: argparse.Namespace) -> ChainConfig:
    """The chain that those options name. Raises InvalidConfig."""
    if options.config is not None:
        return load_chain(options.config)
    given = {
        "network": options.network,
        "endpoints": options.endpoint,
        "package_id": options.package_id,
        "registry_id": options.registry_id,
        "original_package_id": options.original_package_id,
        "chain_id": options.chain_id,
    }
    return parse(Path("the command line"), {k: v for k, v in given.items() if v}, ChainConfig)


def read(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises InvalidConfig."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(path, str(error.strerror), "a readable JSON file") from None
    if len(raw) > MAX_BYTES:
        raise InvalidConfig(path, f"more than {MAX_BYTES} bytes", "a JSON object")
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise InvalidConfig(path, f"no JSON ({error})", "a JSON object") from None
    if not isinstance(data, dict):
        raise InvalidConfig(path, f"a JSON {type(data).__name__}", "a JSON object")
    return data


def parse(path: Path, data: dict[str, Any], model: type[Model]) -> Model:
    """`data` as a `model`; raises InvalidConfig. `path` is only named."""
    try:
        # Through JSON, because strict mode takes an array for a tuple only there.
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        found, wanted = [], []
        for problem in error.errors(include_url=False):
            name = ".".join(str(part) for part in problem["loc"])
            missing = problem["type"] == "missing"
            if not name:
                wanted.append(problem["msg"].removeprefix("Value error, "))
                found.append(f"endpoints: {_short(data.get('endpoints'))}")
                continue
            found.append(f"{name}: {'nothing' if missing else _short(problem['input'])}")
            wanted.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
        raise InvalidConfig(path, "; ".join(found), "; ".join(wanted)) from None


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
