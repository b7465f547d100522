"""Reading the worker's seal token. It lives in memory only from here on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from k3s_daas import seal

from .errors import Exit, Refusal

CREDENTIAL = "seal-token"
_MAX_BYTES = 4096


def find(explicit: Path | None) -> Path:
    """The file to read: the one named, or systemd's credential (`LoadCredential=seal-token:…`)."""
    if explicit is not None:
        return explicit
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise _refusal(
            "no credential", "LoadCredential=seal-token:… in the unit, or --seal-token-file on a command line"
        )
    return Path(directory) / CREDENTIAL


def read(path: Path) -> str:
    """The seal token in `path`. Raises Refusal, which never holds any of the token."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _refusal(f"{path}: {error.strerror}", "the worker's seal token file, 0600") from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise _refusal(f"{path} is not a regular file", "the worker's seal token file, 0600")
        # systemd shows an ACL for the service's user as group bits; its directory is private to the unit.
        private = str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")
        if info.st_mode & 0o077 and not private:
            raise _refusal(
                f"{path} has mode {stat.S_IMODE(info.st_mode):04o}: others could read the token",
                "mode 0600",
                "rotate the token (others may have read it), then `chmod 600` the file",
            )
        text = os.read(descriptor, _MAX_BYTES).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
    try:
        return seal.parse(text)
    except seal.InvalidSealToken as error:
        raise _refusal(f"{path}: {error}", "exactly one seal token") from None


def _refusal(
    found: str, wanted: str, fix: str = "run playbooks/workers.yml, which makes the token"
) -> Refusal:
    return Refusal(
        "seal_token_unusable",
        "the seal token can't be read",
        found=found,
        wanted=wanted,
        fix=fix,
        exit_code=Exit.CONFIG,
    )
