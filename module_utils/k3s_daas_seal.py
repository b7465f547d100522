# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The file that holds a seal token: made, read and replaced so that a kill at any point loses no secret.

Standard library only, Python 3.9 and later: this runs on the worker itself. The format is that of
k3s_daas.seal. While a token is rotated there are two files: the live secret, and `<name>.next`, which becomes
the live one once the chain has its commitment.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import stat

_TOKEN = re.compile(r"seal_([A-Za-z0-9_-]{43})")
_FIX = "Remove it to have a new secret made; a worker that is staked then needs its token rotated."


class Refused(Exception):
    """Found something else than a seal token of ours; the message never holds its content."""


def encode(data):
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def make_token():
    """A new secret: 256 bits from the operating system."""
    return "seal_" + encode(os.urandom(32))


def commitment_of(token):
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def next_path(path):
    """Where the secret waits that is to replace the one at `path`."""
    return path.with_name(path.name + ".next")


def temporary_path(path):
    """Where a secret is written before it gets its name."""
    return path.with_name(f".{path.name}.new")


def read_token(path):
    """The secret at `path`, None when there is no file. Refused when it is unsafe or malformed."""
    try:
        # Without following links, and without waiting for a pipe's other end.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(
            f"Seal token file {path} can't be opened ({error.strerror}), wanted a regular file with "
            "mode 0600. Remove what is there."
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"Seal token {path} is no regular file, wanted one with mode 0600. Remove it.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise Refused(
                f"Seal token file {path} has mode {mode:04o}, wanted 0600: others may have read the "
                f"secret. {_FIX}"
            )
        if status.st_uid != os.geteuid():
            raise Refused(
                f"Seal token file {path} belongs to user {status.st_uid}, wanted {os.geteuid()}: its "
                f"owner knows the secret. {_FIX}"
            )
        content = os.read(fd, 4096)
    finally:
        os.close(fd)
    token = parse_token(content)
    if token is None:
        raise Refused(
            f"Seal token file {path} holds {len(content)} bytes that are no seal token, wanted 'seal_' "
            f"and 43 characters of base64url. It may be cut off. {_FIX}"
        )
    return token


def parse_token(content):
    """The secret in a file's bytes, None when they are none."""
    try:
        token = content.decode("ascii")
    except UnicodeDecodeError:
        return None
    token = token[:-1] if token.endswith("\n") else token
    match = _TOKEN.fullmatch(token)
    # The last character carries two bits too many, and one secret must not have two spellings.
    return token if match and encode(base64.urlsafe_b64decode(match[1] + "=")) == match[1] else None


def commitment_at(path):
    """Commitment of the secret at `path`, "" when there is none."""
    token = read_token(path)
    return "" if token is None else commitment_of(token)


def write_token(path, token):
    """Put a new secret at `path`, complete or not at all, and never over one that is there."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)  # whatever the umask: services read other files in here
    temporary = temporary_path(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(token.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    # The name has to survive a power cut too: the commitment is about to cost money.
    sync_directory(path.parent)


def ensure_token(path, check_mode):
    """(changed, commitment) of there being a secret at `path`; one that is there is never replaced."""
    if not check_mode:
        # Of a run that was killed: a secret that nobody has seen, or a second name of the one at `path`.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary_path(path).unlink()
    found = commitment_at(path)
    if found:
        return False, found
    if check_mode:
        return True, ""
    with contextlib.suppress(FileExistsError):  # somebody was faster: theirs it is
        write_token(path, make_token())
    made = commitment_at(path)  # what is on the disk counts, not what was meant to be
    if not made:
        raise Refused(f"Seal token file {path} vanished while it was made. Run again.")
    return True, made


def promote(path, commitment, check_mode):
    """(changed, commitment) of the secret with `commitment` (hex) being the live one at `path`.

    The waiting secret takes the live one's place only when it is the one that the chain knows.
    """
    waiting = next_path(path)
    ready, live = commitment_at(waiting), commitment_at(path)
    if live == commitment:
        return False, live
    if ready != commitment:
        raise Refused(
            f"Found no secret with commitment {commitment}: {waiting} has {ready or 'none'}, {path} has "
            f"{live or 'none'}. Nothing was renamed. Rotate again: state next, put that commitment on-chain, "
            "then state promoted."
        )
    if not check_mode:
        os.replace(waiting, path)  # noqa: PTH105 - one step, which is the point
        sync_directory(path.parent)
    return True, commitment


def remove(path, check_mode):
    """Whether there was anything of the secret at `path`, or of its successor, to remove."""
    files = [path, next_path(path)]
    files += [temporary_path(file) for file in files]
    found = [file for file in files if os.path.lexists(file)]
    for file in found if not check_mode else ():
        file.unlink()
    return bool(found)


def sync_directory(folder):
    """Make names that were added to or changed in `folder` survive a power cut."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
