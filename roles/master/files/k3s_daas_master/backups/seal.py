"""A backup for another place than its host: one file, encrypted with age (https://age-encryption.org).

The host knows the public key only, so whoever takes the host can't read the backups that left it. The secret
key, as `age-keygen` writes it, stays with the operator; `age --decrypt --identity KEY` opens the file, too.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyrage

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.manifest import NAMED
from k3s_daas_master.backups.pack import pack, unpack
from k3s_daas_master.backups.places import BackupError, have_folder, new_file

SUFFIX = ".age"
_SECRET = re.compile(r"^AGE-SECRET-KEY-1[0-9A-Z]{58}$", re.MULTILINE)


def make_key(path: Path) -> str:
    """A new key in `path` (0600), unless there is one; returns its public half. Raises BackupError."""
    if not path.exists():
        identity = pyrage.x25519.Identity.generate()
        content = f"# public key: {identity.to_public()}\n{identity}\n"
        try:
            with new_file(path) as file:
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BackupError(
                f"{path}: {error.strerror}. Wanted a place for the key that one may write."
            ) from None
    return recipient(path)


def recipient(path: Path) -> str:
    """The public half, age1…, of the key in this file. Raises BackupError."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BackupError(f"{path} can be read by others; wanted mode 0600. chmod 600 {path}")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BackupError(
            f"{path}: {getattr(error, 'strerror', None) or 'no text'}. Wanted an age key: "
            "`k3s-daas-master backup keygen --key-file PATH` makes one."
        ) from None
    return str(_identity(text, str(path)).to_public())


def seal(backup: Path, public_key: str) -> Path:
    """Encrypt a backup for the holder of the key into BACKUP.age beside it (0600). Raises BackupError."""
    manifests.verify(backup, manifests.load(backup))
    target = backup.with_name(f"{backup.name}{SUFFIX}")
    draft = backup.with_name(f".draft-{target.name}")
    try:
        to = pyrage.x25519.Recipient.from_str(public_key)
        with _nameless(backup.parent) as plain:
            pack(backup, plain)
            plain.seek(0)
            draft.unlink(missing_ok=True)
            with new_file(draft) as out:
                pyrage.encrypt_io(plain, out, [to])
                out.flush()
                os.fsync(out.fileno())
        draft.rename(target)
    except pyrage.RecipientError as error:
        raise BackupError(f"Found {public_key[:80]!r}, wanted a public key age1…: {error}.") from None
    except OSError as error:
        raise BackupError(f"{target}: {error}. Wanted room for the encrypted backup.") from None
    return target


def unseal(sealed: Path, secret: str, backups: Path) -> Path:
    """Decrypt into a directory below `backups`, named as the backup was. Raises BackupError.

    `secret` is the content of the key file. A backup of that name that is there is replaced.
    """
    identity = _identity(secret, "the key")
    try:
        have_folder(backups)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=backups))
        with _nameless(backups) as plain:
            with sealed.open("rb") as source:
                pyrage.decrypt_io(source, plain, [identity])
            plain.seek(0)
            unpack(plain, draft)
        found = manifests.load(draft)
        if not NAMED.fullmatch(found.name):
            raise BackupError(
                f"{sealed} holds a backup called {found.name[:80]!r}, wanted a time. It is damaged."
            )
        target = backups / found.name
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except pyrage.DecryptError as error:
        raise BackupError(
            f"{sealed} can't be decrypted: {error}. Wanted the key it was encrypted for."
        ) from None
    except (OSError, tarfile.TarError) as error:
        # A changed byte shows as OSError, too.
        raise BackupError(f"{sealed} is damaged, or can't be read: {error}. Take another backup.") from None
    return target


def _identity(text: str, where: str) -> pyrage.x25519.Identity:
    found = _SECRET.search(text)
    try:
        if found is None:
            raise BackupError(
                f"Found no AGE-SECRET-KEY-1… in {where}; wanted an age key as `age-keygen` writes it."
            )
        return pyrage.x25519.Identity.from_str(found[0])
    except pyrage.IdentityError as error:
        raise BackupError(f"The age key in {where} is none: {error}.") from None


@contextmanager
def _nameless(folder: Path) -> Iterator[IO[bytes]]:
    """A temporary file that nobody else can open, gone with this process."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file
