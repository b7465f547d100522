"""The service's configuration: one JSON file, checked whole before anything starts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from k3s_daas.attestation.configuration import CLUSTER_KEYS, config_hash
from k3s_daas.chain.endpoints import wanted_answers
from k3s_daas.listening import split_listen
from k3s_daas.registry import Deployment
from k3s_daas.requests.policy import RESOURCES
from k3s_daas.requests.schema import Method
from k3s_daas_master.tenant_objects import DEFAULT_CONTAINER, DEFAULT_QUOTA

_OBJECT_ID = re.compile(r"0x[0-9a-f]{64}")
#: The ARN of a key of AWS KMS; aliases can be turned to another key.
KMS_KEY = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):kms:(?P<region>[a-z0-9-]{4,32}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}",
    re.ASCII,
)
#: Where sealed snapshots lie in S3: a folder of a bucket, whose name has no dots, or TLS couldn't name it.
SNAPSHOT_URL = re.compile(
    r"https://(?P<host>[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\.s3\.(?P<region>[a-z0-9-]{4,32})\.amazonaws\.com(\.cn)?)"
    r"/(?P<folder>[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,7})",
    re.ASCII,
)


class ConfigError(Exception):
    """The configuration can't be used. The message has one line per finding."""


def _object_id(value: str) -> str:
    if not _OBJECT_ID.fullmatch(value):
        raise ValueError("wanted 0x and 64 lower-case hex digits, as the contracts play reports it")
    return value


def _https_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "https" or not parts.hostname or port is None or parts.path or parts.query:
        raise ValueError("wanted https://host:port and nothing after it")
    return value


def _sui_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("wanted http(s)://host[:port] of a Sui full node, without credentials")
    return value


def _listen(value: str) -> str:
    split_listen(value)
    return value


def _loopback(value: str) -> str:
    host, _ = split_listen(value)
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("wanted a loopback address: whoever reaches the webhook can try tokens unseen")
    return value


def _kms_key(value: str) -> str:
    if not KMS_KEY.fullmatch(value):
        raise ValueError("wanted arn:aws:kms:REGION:ACCOUNT:key/ID")
    return value


def _snapshot_url(value: str) -> str:
    if not SNAPSHOT_URL.fullmatch(value):
        raise ValueError("wanted https://BUCKET.s3.REGION.amazonaws.com/FOLDER, the bucket without dots")
    return value


def _requestable(value: str) -> str:
    if value not in RESOURCES:
        raise ValueError(f"wanted one of {', '.join(RESOURCES)}: nothing else can be allowed")
    return value


ObjectId = Annotated[str, AfterValidator(_object_id)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Config(BaseModel):
    """Everything the service is told. Unknown keys are refused: a typo must not fall back to a default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    network: Literal["localnet", "devnet", "testnet", "mainnet"]
    endpoints: Annotated[list[Annotated[str, AfterValidator(_sui_endpoint)]], Field(min_length=1)]
    chain_id: str | None = None
    package_id: ObjectId
    original_package_id: ObjectId | None = None
    registry_id: ObjectId
    # The registry's OperatorCap: its holder is in the group k3s-daas:operators. None: nobody is.
    operator_cap_id: ObjectId | None = None
    tee_mode: Literal["simulated", "nitro"]
    # An emulated security module's Unix socket, for simulated masters on a localnet. Nitro has /dev/nsm.
    nsm_socket: Path | None = None
    listen: Annotated[str, AfterValidator(_listen)] = "0.0.0.0:8443"
    webhook_listen: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1:8444"
    endpoint: HttpsUrl
    api_server: HttpsUrl
    # Other names that its certificates are good for.
    names: list[str] = []
    kubeconfig: Path
    key_file: Path
    state_dir: Path
    tls_cert: Path = Path("/etc/k3s-daas/tls/server.crt")
    tls_key: Path = Path("/etc/k3s-daas/tls/server.key")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # How often the cluster is compared with the chain.
    reconcile_s: Seconds = 2.0
    offline_after_s: Annotated[float, Field(ge=60, le=86_400)] = 300.0
    bootstrap_ttl_s: Annotated[float, Field(ge=60, le=600)] = 600.0
    drain_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    # Whether offences are only shown, or also proposed on-chain.
    slashing: Literal["observe", "armed"] = "observe"
    # The wallet's alert, and what of it is kept for announcements and slashes.
    gas_low_mist: Annotated[int, Field(ge=0, le=10**18)] = 100_000_000
    gas_reserve_mist: Annotated[int, Field(ge=0, le=10**18)] = 20_000_000
    # How much Ready time of a worker is gathered before it is reported on-chain, if the registry pays for it.
    ready_report_s: Annotated[float, Field(ge=60, le=86_400)] = 3600.0
    # Registrations one source address may try: a burst, then so many a second.
    registration_burst: Annotated[int, Field(ge=1, le=10_000)] = 20
    registration_per_s: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    # Requests with an unknown seal token, or without any, that one source address may try.
    unknown_token_burst: Annotated[int, Field(ge=1, le=10_000)] = 20
    unknown_token_per_s: Annotated[float, Field(gt=0, le=10_000)] = 1.0

    # Tenants: how often every object is compared, how long a namespace outlives its owner's last worker, and
    # what each owner gets (ResourceQuota's `hard`, LimitRange's defaults for a container).
    tenant_check_s: Seconds = 30.0
    tenant_grace_s: Annotated[float, Field(ge=0, le=31_536_000)] = 86_400.0
    tenant_quota: dict[str, str] = dict(DEFAULT_QUOTA)
    tenant_container: dict[Literal["default", "defaultRequest", "max", "min"], dict[str, str]] = {
        "default": dict(DEFAULT_CONTAINER["default"]),
        "defaultRequest": dict(DEFAULT_CONTAINER["defaultRequest"]),
    }

    # What owners' requests from the chain may do (see k3s_daas.requests.policy), for how long one call may
    # take, and how long and how much of their results is kept.
    request_methods: list[Method] = list(get_args(Method))
    request_resources: list[Annotated[str, AfterValidator(_requestable)]] = list(RESOURCES)
    request_timeout_s: Annotated[float, Field(ge=1, le=30)] = 15.0
    request_results_keep_s: Annotated[float, Field(ge=600, le=31_536_000)] = 604_800.0
    request_results_max_mb: Annotated[int, Field(ge=1, le=4096)] = 64

    # Sealed snapshots of this master's state: where they lie (a folder, or one in a bucket of S3), how much
    # time may be lost, how many stay, and who wraps their data keys: a key in a file, or one in AWS KMS that
    # opens to attested enclaves.
    snapshot_dir: Path | None = None
    snapshot_url: Annotated[str, AfterValidator(_snapshot_url)] | None = None
    snapshot_interval_s: Annotated[float, Field(ge=5, le=86_400)] = 300.0
    snapshot_keep: Annotated[int, Field(ge=1, le=1000)] = 5
    snapshot_key_file: Path | None = None
    snapshot_kms_key: Annotated[str, AfterValidator(_kms_key)] | None = None

    @model_validator(mode="after")
    def _snapshot_rules(self) -> Config:
        if self.snapshot_key_file is not None and self.tee_mode == "nitro":
            raise ValueError(
                f"snapshot_key_file {self.snapshot_key_file} opens the state to whoever has the file; found "
                "it with tee_mode nitro, wanted a KMS key that opens to the attested enclave alone"
            )
        if self.snapshot_dir is not None and self.snapshot_url is not None:
            raise ValueError("found snapshot_dir and snapshot_url; wanted one place for the snapshots")
        if self.snapshot_dir is not None and self.tee_mode == "nitro":
            raise ValueError(
                f"found snapshot_dir {self.snapshot_dir} with tee_mode nitro; wanted snapshot_url: an "
                "enclave has no disk, and what it keeps in a folder ends with it"
            )
        if self.seals and self.chain_id is None:
            raise ValueError("sealed state wants chain_id: snapshots are bound to the network they are of")
        keys = [name for name in ("snapshot_key_file", "snapshot_kms_key") if getattr(self, name) is not None]
        if len(keys) != self.seals:
            place = self.snapshot_dir or self.snapshot_url
            raise ValueError(
                f"found {place or 'no place'} for snapshots and {' and '.join(keys) or 'no key'}; wanted "
                "snapshot_dir or snapshot_url with one of snapshot_key_file and snapshot_kms_key, or none of "
                "them"
            )
        if self.snapshot_kms_key is not None and self.tee_mode != "nitro" and self.nsm_socket is None:
            raise ValueError("snapshot_kms_key opens to an attested enclave; wanted tee_mode nitro")
        return self

    @model_validator(mode="after")
    def _network_rules(self) -> Config:
        if self.tee_mode == "simulated" and self.network == "mainnet":
            raise ValueError("tee_mode simulated proves nothing and is refused on mainnet; wanted nitro")
        if self.nsm_socket is not None and (self.tee_mode != "simulated" or self.network != "localnet"):
            raise ValueError(
                f"nsm_socket is an emulator's, for tee_mode simulated on a localnet; found it with "
                f"{self.tee_mode} on {self.network}; wanted none"
            )
        if self.network in ("testnet", "mainnet"):
            plain = [url for url in self.endpoints if not url.startswith("https://")]
            if plain:
                raise ValueError(f"endpoints {plain} are plaintext; wanted https:// on {self.network}")
        if len(set(self.endpoints)) < wanted_answers(self.network):
            raise ValueError("endpoints: mainnet needs two of different providers, so that one can't lie")
        return self

    @property
    def seals(self) -> bool:
        """Whether sealed snapshots are made of its state."""
        return self.snapshot_dir is not None or self.snapshot_url is not None

    @property
    def deployment(self) -> Deployment:
        return Deployment(self.package_id, self.registry_id, self.original_package_id)

    @property
    def cluster_hash(self) -> bytes:
        """The hash of what it was told of its cluster, which it states wherever it proves itself."""
        return config_hash(self.model_dump(mode="json", include=set(CLUSTER_KEYS)))


def load(path: Path) -> Config:
    """The configuration in `path`. Raises ConfigError with every finding, each with its key."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"Configuration {path}: {error.strerror or error}. Wanted a readable JSON file; the master role "
            "writes it, run the master play."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"Configuration {path} isn't UTF-8 text. Wanted JSON.") from None
    try:
        json.loads(text)
    except ValueError as error:
        raise ConfigError(f"Configuration {path} isn't JSON: {error}.") from None
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        findings = [
            f"  {'.'.join(str(part) for part in item['loc']) or '(whole)'}: {item['msg']}"
            + (
                ""
                if item["type"] in ("missing", "value_error") and not item["loc"]
                else f"; found {item['input']!r:.80}"
            )
            for item in error.errors(include_url=False)
        ]
        raise ConfigError(
            f"Configuration {path} has {len(findings)} problem(s):\n" + "\n".join(findings)
        ) from None
