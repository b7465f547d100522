"""What a backup says of itself. Read back it is outside input: a path in it never leads out of the backup."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from k3s_daas_master.backups.places import BackupError, new_file

FORMAT = 1
NAME = "manifest.json"
#: Names of backups: UTC, so that they sort by time.
TIME = "%Y%m%dT%H%M%SZ"
NAMED = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]{1,3})?", re.ASCII)
FOLDERS = ("datastore", "k3s", "etc", "master")
DATASTORE, STORE = "datastore/state.db", "master/master.db"
#: Without these it isn't the same cluster, or not the same master.
REQUIRED = (
    DATASTORE,
    STORE,
    "k3s/token",
    "k3s/tls/server-ca.crt",
    "k3s/tls/server-ca.key",
    "k3s/tls/client-ca.crt",
    "k3s/tls/client-ca.key",
    "master/sui.key",
    "master/node-password.key",
)
_RELEASE = re.compile(
    r"v([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:-[a-z0-9.]{1,20})?\+k3s([0-9]{0,4})", re.ASCII
)


def is_path(value: str) -> bool:
    """Whether it is a file's place below one of a backup's folders."""
    parts = PurePosixPath(value).parts
    plain = value == "/".join(parts) and len(parts) >= 2 and parts[0] in FOLDERS
    return plain and not any(part in (".", "..") or "\0" in part for part in parts)


def _path(value: str) -> str:
    if not is_path(value):
        raise ValueError(f"wanted a path below {', '.join(FOLDERS)}")
    return value


class Entry(BaseModel):
    """One file: its mode is octal, its time in ns since 1970."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    path: Annotated[str, AfterValidator(_path), Field(max_length=1000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")]
    modified_ns: Annotated[int, Field(ge=0, lt=2**63)]


class Manifest(BaseModel):
    """What a backup is of. `ca_hash` is k3s' hash of the server CA, which agents pin and the chain knows;
    `token_id` the first 12 hex digits of the SHA-256 of the server token that opens the datastore."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Annotated[int, Field(ge=1)]
    name: str
    created_ms: Annotated[int, Field(ge=0)]
    k3s_version: str
    k3s_daas_version: str
    network: str
    chain_id: str | None
    package_id: str
    registry_id: str
    ca_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    token_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    files: list[Entry]


def load(backup: Path) -> Manifest:
    """The manifest of the backup in this directory. Raises BackupError."""
    path = backup / NAME
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BackupError(
            f"{path}: {error.strerror}. Wanted a backup's directory, as backup.yml makes it; `ls` its folder."
        ) from None
    try:
        found = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BackupError(
            f"{path} is no manifest: {where or 'it'}: {first['msg']}. It is damaged, or another program's. "
            "Take another backup."
        ) from None
    if found.format != FORMAT:
        raise BackupError(
            f"{path} has format {found.format}, wanted {FORMAT}. Use the release that made it "
            f"({found.k3s_daas_version})."
        )
    return found


def verify(backup: Path, manifest: Manifest) -> None:
    """Every file is there and is what was written. Raises BackupError that names what isn't."""
    listed = {entry.path for entry in manifest.files}
    wrong = [f"{name} isn't listed" for name in REQUIRED if name not in listed]
    for entry in manifest.files:
        path = backup / entry.path
        if not path.is_file() or path.is_symlink():
            wrong.append(f"{entry.path} is missing")
        elif sha256(path) != entry.sha256:
            wrong.append(f"{entry.path} has another SHA-256")
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise BackupError(f"Backup {backup} is damaged: {shown}. Nothing was changed. Take another backup.")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(backup: Path, manifest: Manifest) -> None:
    """Last of all: a backup without it is none."""
    path = backup / NAME
    with new_file(path) as file:
        file.write(json.dumps(manifest.model_dump(), indent=1).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def release(version: str) -> tuple[int, int, int, int]:
    """A k3s version to compare: v1.34.2+k3s1 is (1, 34, 2, 1). Raises BackupError."""
    match = _RELEASE.match(version)
    if match is None:
        raise BackupError(f"Found k3s version {version[:80]!r}, wanted one like v1.34.2+k3s1.")
    return int(match[1]), int(match[2]), int(match[3]), int(match[4] or 0)
