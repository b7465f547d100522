"""What the parent tells an enclave about its cluster: one small JSON object, checked whole.

Nothing in it can loosen what the image decides. The chain, the package and the registry are in what the
enclave proves to its clients, so a false one is found out; of the rest a false one costs availability, which
the parent can end anyway.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

#: Where a simulated enclave's parent puts things: `cluster.json`, and the emulator's socket.
SIMULATED_PARENT = Path("/run/k3s-daas-parent")
#: The parent's address on vsock, and the port where it gives the object to whoever connects.
PARENT_CID, PORT = 3, 7000
MAX_BYTES = 65_536
_TIMEOUT_S = 30.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
_OBJECT_ID = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_CHAIN_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}", re.ASCII)


class ClusterError(Exception):
    """The enclave can't be configured. The message has one line per finding."""


def _address(value: str) -> str:
    if not isinstance(ipaddress.ip_address(value), ipaddress.IPv4Address):
        raise ValueError("wanted an IPv4 address")
    return value


def _matching(form: re.Pattern[str], wanted: str) -> AfterValidator:
    def check(value: str) -> str:
        if not form.fullmatch(value):
            raise ValueError(f"wanted {wanted}")
        return value

    return AfterValidator(check)


ObjectId = Annotated[str, _matching(_OBJECT_ID, "0x and 64 lower-case hex digits")]
Name = Annotated[str, Field(max_length=253), _matching(_NAME, "a DNS name in lower case")]
Endpoint = Annotated[str, Field(max_length=500), _matching(re.compile(r"https?://[!-~]+"), "http(s)://host")]


class Cluster(BaseModel):
    """Unknown keys are refused: whatever is not here is the image's to decide."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    network: Literal["localnet", "devnet", "testnet", "mainnet"]
    endpoints: Annotated[list[Endpoint], Field(min_length=1, max_length=16)]
    chain_id: Annotated[str, _matching(_CHAIN_ID, "the digest of the network's first checkpoint, in base58")]
    package_id: ObjectId
    original_package_id: ObjectId | None = None
    registry_id: ObjectId
    operator_cap_id: ObjectId | None = None
    #: Where workers and clients reach the enclave: the parent's, or a load balancer's.
    address: Annotated[str, AfterValidator(_address)]
    #: More names that its certificates are good for.
    names: Annotated[list[Name], Field(max_length=16)] = []


def parse(text: bytes) -> Cluster:
    """The object in `text`. Raises ClusterError with every finding."""
    if len(text) > MAX_BYTES:
        raise ClusterError(
            f"Found more than {MAX_BYTES} bytes of cluster configuration; wanted a small object."
        )
    try:
        json.loads(text)
        return Cluster.model_validate_json(text)
    except ValidationError as error:
        findings = [
            f"  {'.'.join(str(part) for part in item['loc']) or '(whole)'}: {item['msg']}"
            for item in error.errors(include_url=False)
        ]
        raise ClusterError("\n".join(["The cluster's configuration can't be used:", *findings])) from None
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"The cluster's configuration is no JSON: {error}. Wanted one object.") from None


def from_parent(simulated: Path = SIMULATED_PARENT) -> bytes:
    """What the parent says: over vsock, or where the enclave is simulated, a file. Raises ClusterError."""
    file = simulated / "cluster.json"
    try:
        if simulated.is_dir():
            with file.open("rb") as content:
                return content.read(MAX_BYTES + 1)
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as channel:
            channel.settimeout(_TIMEOUT_S)
            channel.connect((PARENT_CID, PORT))
            return read_all(channel)
    except OSError as error:
        raise ClusterError(
            f"The parent gave no configuration of the cluster ({error}). Wanted it at vsock port {PORT} of "
            f"CID {PARENT_CID}; in a simulated enclave, in {file}."
        ) from None


def read_all(channel: socket.socket) -> bytes:
    """What comes until the other side ends, and no more than one byte too much."""
    found = b""
    while len(found) <= MAX_BYTES and (part := channel.recv(MAX_BYTES)):
        found += part
    return found
