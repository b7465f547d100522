"""The worker's own Ed25519 key: what it says in a heartbeat, it has said.

The public half goes to the master with the registration; every heartbeat carries a signature over the exact
bytes of its body. Two signed bodies of one moment are an offence, so no moment is ever signed for twice: see
`Watcher._timestamp`. The key isn't a wallet's and is worth nothing elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .errors import Exit, Refusal

CREDENTIAL = "heartbeat-key"
DEFAULT_PATH = Path("/etc/k3s-daas/heartbeat.key")
SIGNATURE_HEADER = "X-Worker-Signature"
_SEED_BYTES = 32


class HeartbeatKey:
    """Never shown: neither its repr nor any error holds the seed."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    def __repr__(self) -> str:
        return f"HeartbeatKey({self.public_key})"

    @property
    def public_key(self) -> str:
        """Base64 of its 32 bytes."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, body: bytes) -> str:
        """Base64 of the 64 bytes of the signature over `body`."""
        return base64.b64encode(self._private.sign(body)).decode()


def find(explicit: Path | None) -> Path:
    """The file to read: the one named, systemd's credential, or where the role puts it."""
    if explicit is not None:
        return explicit
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(directory) / CREDENTIAL if directory else None
    return credential if credential is not None and credential.exists() else DEFAULT_PATH


def load(path: Path) -> HeartbeatKey:
    """The key in `path`. Raises Refusal."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            info = os.fstat(descriptor)
            seed = os.read(descriptor, _SEED_BYTES + 1) if stat.S_ISREG(info.st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refusal(f"{path}: {error.strerror}") from None
    # systemd shows an ACL for the service's user as group bits; its directory is private to the unit.
    private = str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")
    if info.st_mode & 0o077 and not private:
        raise _refusal(f"{path} has mode {stat.S_IMODE(info.st_mode):04o}: others could sign in its place")
    if len(seed) != _SEED_BYTES:
        raise _refusal(f"{path} is no file of {_SEED_BYTES} bytes")
    return HeartbeatKey(seed)


def create(path: Path) -> bool:
    """Make a key at `path` (0600) unless there is one; whether it was made. Raises Refusal."""
    if path.exists():
        load(path)
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_SEED_BYTES))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # whole or not at all, and never over one that is there
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
    except OSError as error:
        raise _refusal(f"{path}: {error.strerror}") from None
    return True


def _refusal(found: str) -> Refusal:
    return Refusal(
        "heartbeat_key_unusable",
        "the key that signs heartbeats can't be used",
        found=found,
        wanted=f"a file of {_SEED_BYTES} random bytes, mode 0600",
        fix="run playbooks/workers.yml, which makes it; if others could read it, remove it first, and "
        "/var/lib/k3s-daas/agent-joined too, so that the new one is registered when the agent restarts",
        exit_code=Exit.CONFIG,
    )
