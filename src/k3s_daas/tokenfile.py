"""Reading a seal token from its owner's file, and the note beside it that says until when it lives.

The file is what `library/seal_commitment.py` makes: one token, mode 0600, its reader's own. The note holds no
secret; it counts only for the token whose commitment it names, so that one left over from an earlier token
says nothing.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from k3s_daas import seal

DEFAULT = Path("~/.k3s-daas/seal-token")
_MAX_BYTES = 4096
_MAKE = "Make one with playbooks/kubectl.yml (docs/kubectl.md)."


class UnusableToken(Exception):
    """The file doesn't give a seal token; the message says what was found and wanted, never any of it."""


@dataclass(frozen=True)
class Note:
    """What the chain says about an owner's token. `commitment` in hex."""

    owner: str
    commitment: str
    generation: int
    expires_at_ms: int


def read(path: Path) -> str:
    """The seal token in `path`. Raises UnusableToken."""
    try:
        # Without following links, and without waiting for a pipe's other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise UnusableToken(
            f"Found {path}: {error.strerror}; wanted a file with an owner's seal token, mode 0600. {_MAKE}"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableToken(
                f"Found {path}, which is no regular file; wanted one with a seal token. {_MAKE}"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise UnusableToken(
                f"Found {path} with mode {mode:04o}, wanted 0600: others may have read the token. Rotate it "
                "(playbooks/kubectl.yml -e kubectl_state=rotated); the new file has the right mode."
            )
        if status.st_uid != os.geteuid():
            raise UnusableToken(
                f"Found {path} owned by user {status.st_uid}, wanted {os.geteuid()}. Run this as its owner, "
                "or make a token of your own."
            )
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    try:
        return seal.parse(content.decode("ascii"))
    except (seal.InvalidSealToken, UnicodeDecodeError) as error:
        found = str(error) if isinstance(error, seal.InvalidSealToken) else "bytes that aren't text"
        raise UnusableToken(f"{path} can't be used: {found} {_MAKE}") from None


def note_path(path: Path) -> Path:
    """Where the note about the token in `path` is."""
    return path.with_name(path.name + ".json")


def read_note(path: Path, token: str) -> Note | None:
    """The note about `token`, kept beside its file `path`; None without a readable one for this token."""
    try:
        found = json.loads(note_path(path).read_bytes()[:_MAX_BYTES])
        note = Note(
            str(found["owner"]),
            str(found["commitment"]),
            int(found["generation"]),
            int(found["expires_at_ms"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if seal.equal(note.commitment, seal.commitment(token).hex()) else None


def note_text(note: Note) -> str:
    """The note as it is kept."""
    return json.dumps(asdict(note), indent=2) + "\n"
