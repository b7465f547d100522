"""Data keys: each snapshot has its own, and travels with it wrapped by somebody who gives it out to few."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from k3s_daas_master.sealed.errors import SealedError

KEY_BYTES = 32
_NONCE_BYTES = 12
Provider = Literal["local", "kms"]
#: What a wrapped key is bound to, in public words: without the very same it isn't unwrapped.
Context = Mapping[str, str]


@dataclass(frozen=True)
class DataKey:
    """A new key (32 bytes) and its wrapped form."""

    plain: bytes = field(repr=False)
    wrapped: bytes


class Keys(Protocol):
    """Who makes data keys and opens them again. Both block, and raise SealedError of kind `key`."""

    @property
    def provider(self) -> Provider: ...

    def new_key(self, context: Context) -> DataKey: ...

    def open_key(self, wrapped: bytes, context: Context) -> bytes: ...


class LocalKeys:
    """Wraps with a key in a file (32 bytes, 0600). It proves nothing of who opens: for simulated masters."""

    provider: Provider = "local"

    def __init__(self, path: Path) -> None:
        self._path = path

    @staticmethod
    def create(path: Path) -> bool:
        """Make the file unless it is there; whether it was made. Raises OSError."""
        draft = path.with_name(f".{path.name}.draft")
        if path.exists():
            return False
        draft.unlink(missing_ok=True)
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
        ) as to:
            to.write(secrets.token_bytes(KEY_BYTES))
            to.flush()
            os.fsync(to.fileno())
        draft.rename(path)
        return True

    def new_key(self, context: Context) -> DataKey:
        plain, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return DataKey(plain, nonce + AESGCM(self._load()).encrypt(nonce, plain, _said(context)))

    def open_key(self, wrapped: bytes, context: Context) -> bytes:
        nonce, rest = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(self._load()).decrypt(nonce, rest, _said(context))
        except (InvalidTag, ValueError):
            raise SealedError(
                "key",
                f"a data key that {self._path} doesn't open",
                "the key file that the snapshot was sealed with",
                "Put that file back: without it no snapshot can be opened by anybody.",
            ) from None

    def _load(self) -> bytes:
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            key = self._path.read_bytes()
        except OSError as error:
            raise SealedError(
                "key",
                f"{self._path}: {error.strerror}",
                "the sealing key's file",
                "Put it back, or have the role make one for a new cluster.",
            ) from None
        if mode & 0o077 or len(key) != KEY_BYTES:
            raise SealedError(
                "key",
                f"{self._path} with mode {mode:04o} and {len(key)} bytes",
                f"mode 0600 and {KEY_BYTES} bytes",
                "Put the right file back, and let nobody else read it.",
            )
        return key


def _said(context: Context) -> bytes:
    return json.dumps(dict(context), sort_keys=True).encode()
