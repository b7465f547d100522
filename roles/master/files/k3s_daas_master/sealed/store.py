"""Where snapshots lie. Nothing of it is believed: it may give an old one, another's, half of one, or none."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.snapshot import MAX_BYTES

_NAMED = re.compile(r"([0-9]{12})-([0-9a-f]{64})\.sealed", re.ASCII)
_DRAFT = ".draft-"
T = TypeVar("T")


def name_of(counter: int, hash_: bytes) -> str:
    """A snapshot's name in a store: the counter, so that names sort, and the hash of the file."""
    return f"{counter:012d}-{hash_.hex()}.sealed"


def is_name(name: str) -> bool:
    """Whether a snapshot could have this name."""
    return _NAMED.fullmatch(name) is not None


def counter_in(name: str) -> int:
    """The counter in the name of a snapshot."""
    return int(name[:12])


class Store(Protocol):
    """Files by name. Each call blocks, and raises SealedError of kind `store`."""

    def names(self) -> list[str]:
        """The names of all that look like snapshots, the newest last."""

    def read(self, name: str) -> bytes | None:
        """A snapshot's bytes, at most MAX_BYTES of them and a little more; None when it isn't there."""

    def write(self, name: str, sealed: bytes) -> None:
        """Keep it, durably, whole or not at all."""

    def remove(self, name: str) -> None:
        """Let go of it; nothing happens when it isn't there."""


class DirectoryStore:
    """A directory: a disk of the parent's, or a mount of anything that has files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def names(self) -> list[str]:
        return self._try(
            lambda: sorted(entry.name for entry in os.scandir(self._folder) if is_name(entry.name))
        )

    def read(self, name: str) -> bytes | None:
        def read() -> bytes | None:
            try:
                # A pipe would hold us up, and a link lead elsewhere.
                handle = os.open(
                    self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except FileNotFoundError:
                return None
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(0, "not a regular file", name)
                return file.read(MAX_BYTES + 2**20)

        return self._try(read)

    def write(self, name: str, sealed: bytes) -> None:
        def write() -> None:
            for left in self._folder.glob(f"{_DRAFT}*"):
                left.unlink(missing_ok=True)
            draft = self._folder / f"{_DRAFT}{name}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._folder / name)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

        self._try(write)

    def remove(self, name: str) -> None:
        self._try(lambda: (self._folder / name).unlink(missing_ok=True))

    def _try(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except OSError as error:
            raise SealedError(
                "store",
                f"{error.filename or self._folder}: {error.strerror}",
                f"a directory {self._folder} with room, whose files this can read and write",
                "Mount it, or make room; then this is tried again.",
            ) from None
