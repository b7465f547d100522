"""Where things are on a master's host, and the parts of a backup that go there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Right below /var/lib/rancher/k3s/server: what k3s and the roles make anew.
_NOT_OF_SERVER = ("db", "manifests", "static", "etc", "logs")
#: k3s' admin kubeconfig is made by k3s at every start; the drop-in is of a restore under way.
_NOT_OF_ETC = ("k3s.yaml", "config.yaml.d")
#: Left in the service's folder once another master goes on from a later state: whose copy it is, isn't.
OVERTAKEN = "overtaken"
#: What is copied by SQLite, not as a file.
_NOT_OF_MASTER = ("master.db", "master.db-wal", "master.db-shm", OVERTAKEN)


class BackupError(Exception):
    """What was found, what was wanted, what to do."""


def new_file(path: Path) -> BinaryIO:
    """A file that wasn't there and that nobody else may read, to be written. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def have_folder(path: Path) -> None:
    """The folder and those above it; the ones that weren't there are nobody else's to look into."""
    if not path.is_dir():
        have_folder(path.parent)
        path.mkdir(mode=0o700)


@dataclass(frozen=True)
class Part:
    """A folder of a backup: files below `source`, except the names in `without` right below it."""

    name: str
    source: Path
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """The host's paths; tests have their own."""

    server: Path = Path("/var/lib/rancher/k3s/server")
    etc: Path = Path("/etc/rancher/k3s")
    config: Path = Path("/etc/k3s-daas/master.json")
    master: Path = Path("/var/lib/k3s-daas-master")
    home: Path = Path("/var/lib/k3s-daas")
    k3s: Path = Path("/usr/local/bin/k3s")

    @property
    def datastore(self) -> Path:
        return self.server / "db" / "state.db"

    @property
    def backups(self) -> Path:
        return self.home / "backups"

    @property
    def replaced(self) -> Path:
        """What a restore moved out of the way."""
        return self.home / "replaced"

    @property
    def drop_in(self) -> Path:
        """While it is there a restore isn't finished, and k3s listens on loopback only."""
        return self.etc / "config.yaml.d" / "restore.yaml"

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is copied as files."""
        return (
            Part("k3s", self.server, _NOT_OF_SERVER),
            Part("etc", self.etc, _NOT_OF_ETC),
            Part("master", self.master, _NOT_OF_MASTER),
        )
