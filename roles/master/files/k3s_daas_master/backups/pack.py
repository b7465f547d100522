"""A backup's files as one tar, and back: only what a manifest may list."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import IO

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.manifest import NAME
from k3s_daas_master.backups.places import BackupError, have_folder, new_file


def pack(backup: Path, into: IO[bytes]) -> None:
    """Raises OSError."""
    with tarfile.open(fileobj=into, mode="w") as tar:
        for path in sorted(backup.rglob("*")):
            if path.is_file():
                tar.add(path, str(path.relative_to(backup)))


def unpack(plain: IO[bytes], into: Path) -> None:
    """Plain files with the names that a manifest may list, and nothing else.

    Raises BackupError, OSError, tarfile.TarError.
    """
    with tarfile.open(fileobj=plain, mode="r") as tar:
        for member in tar:
            if not member.isreg() or not (member.name == NAME or manifests.is_path(member.name)):
                raise BackupError(
                    f"Found {member.name[:80]!r} in the backup, wanted files of a backup. It is damaged."
                )
            target = into / member.name
            have_folder(target.parent)
            content = tar.extractfile(member)
            assert content is not None
            with new_file(target) as file:
                shutil.copyfileobj(content, file)
