"""Making a backup while everything runs.

Both databases are copied by SQLite in one read transaction each (`VACUUM INTO`); the rest is files that are
replaced whole when they change. The store comes before the datastore, which then has all that it speaks of.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from k3s_daas import join
from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.manifest import DATASTORE, NAMED, REQUIRED, STORE, TIME, Entry, Manifest
from k3s_daas_master.backups.places import BackupError, Part, Places, have_folder, new_file
from k3s_daas_master.config import Config, load


def make(
    places: Places,
    keep: int,
    *,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    k3s_version: Callable[[Places], str] | None = None,
) -> Path:
    """A new backup below `places.backups`, whose newest `keep` stay. Raises BackupError, ConfigError."""
    if keep < 1:
        raise BackupError(f"Found {keep} backups to keep, wanted at least 1. Set backup_keep.")
    config = load(places.config)
    want_sqlite(places)
    moment = now()
    try:
        places.home.mkdir(parents=True, exist_ok=True)
        have_folder(places.backups)
        for left in places.backups.glob(".draft-*"):
            shutil.rmtree(left)  # of a run that was killed
        name = _free_name(places.backups, moment.strftime(TIME))
        draft = places.backups / f".draft-{name}"
        copy_state(places, draft, name, moment, config, (k3s_version or version_of_k3s)(places))
        os.sync()
        draft.rename(places.backups / name)
    except OSError as error:
        raise BackupError(
            f"{error.filename}: {error.strerror}. Wanted a running master, and room below {places.backups}. "
            "No backup was made; run this again."
        ) from None
    prune(places.backups, keep)
    return places.backups / name


def copy_state(
    places: Places,
    into: Path,
    name: str,
    moment: dt.datetime,
    config: Config,
    k3s_version: str,
    *,
    without: Collection[str] = (),
) -> Manifest:
    """What a backup of this name is of, as files below `into`, a new folder; its manifest.

    `without` are paths below a backup's folders that are left out. Raises BackupError, OSError.
    """
    into.mkdir(mode=0o700)
    _copy_database(places.master / "master.db", into / STORE)
    _copy_database(places.datastore, into / DATASTORE)
    for part in places.parts:
        for path in files_of(part):
            place = f"{part.name}/{path.relative_to(part.source)}"
            if place not in without:
                _copy_file(path, into / place)
    if missing := [path for path in REQUIRED if not (into / path).is_file()]:
        raise BackupError(
            f"Found no {', '.join(missing)} here; wanted a k3s server and a master that have run. "
            "No backup was made. Run playbooks/master.yml first."
        )
    found = _describe(into, name, moment, config, k3s_version)
    manifests.write(into, found)
    manifests.verify(into, found)
    return found


def prune(backups: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep`; returns the names of those removed."""
    found = sorted(path.name for path in backups.iterdir() if NAMED.fullmatch(path.name))
    for name in found[:-keep]:
        # Out of sight first: half a backup must not look like one.
        gone = backups / f".draft-{name}"
        (backups / name).rename(gone)
        shutil.rmtree(gone)
    return found[:-keep]


def files_of(part: Part) -> Iterator[Path]:
    """The regular files of a part; links and sockets are made anew by whoever made them."""
    for folder, folders, names in os.walk(part.source):
        top = Path(folder) == part.source
        folders[:] = sorted(name for name in folders if not (top and name in part.without))
        for name in sorted(names):
            path = Path(folder) / name
            if not (top and name in part.without) and stat.S_ISREG(path.lstat().st_mode):
                yield path


def version_of_k3s(places: Places) -> str:
    """The running server's, which wrote the datastore; the binary's where none answers."""
    asked = _run(places, "kubectl", "get", "--raw", "/version")
    try:
        return str(json.loads(asked)["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return version_of_binary(places)


def version_of_binary(places: Places) -> str:
    """What is installed, v1.34.2+k3s1. Raises BackupError."""
    words = _run(places, "--version").split()
    if words[:2] != ["k3s", "version"] or len(words) < 3:
        raise BackupError(
            f"{places.k3s} --version doesn't tell a version; wanted k3s. Install it (role k3s_binary)."
        )
    return words[2]


def _run(places: Places, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [str(places.k3s), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def want_sqlite(places: Places) -> None:
    if places.datastore.is_file():
        return
    etcd = (places.server / "db" / "etcd").exists()
    raise BackupError(
        f"Found {'embedded etcd' if etcd else f'no {places.datastore}'}; wanted k3s' SQLite datastore, which "
        "the role k3s_server sets up. "
        + ("Use `k3s etcd-snapshot save` for etcd." if etcd else "Run playbooks/master.yml first.")
    )


def _free_name(backups: Path, name: str) -> str:
    """Two in one second are two."""
    names = [name, *(f"{name}-{number}" for number in range(1, 1000))]
    return next(one for one in names if not (backups / one).exists())


def _copy_database(source: Path, target: Path) -> None:
    """A consistent, compact copy, whoever writes to the source meanwhile. Raises BackupError, OSError."""
    have_folder(target.parent)
    new_file(target).close()
    try:
        # As root SQLite gives a journal that it has to make to the database's owner.
        with closing(
            sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
        ) as database:
            database.execute("VACUUM INTO ?", (str(target),))
        with closing(sqlite3.connect(target)) as copy:
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(
            f"{source} can't be copied: {error}. Wanted an intact SQLite file, and room for a copy of it."
        ) from None
    if found != "ok":
        raise BackupError(f"{source} is damaged: {found}. Restore an older backup.")


def _copy_file(source: Path, target: Path) -> None:
    have_folder(target.parent)
    with (
        source.open("rb") as reader,
        new_file(target) as writer,
    ):
        shutil.copyfileobj(reader, writer)
    times = source.stat()
    os.utime(target, ns=(times.st_mtime_ns, times.st_mtime_ns))


def _describe(draft: Path, name: str, moment: dt.datetime, config: Config, running: str) -> Manifest:
    try:
        token = (draft / "k3s/token").read_bytes()
        ca = join.ca_hash((draft / "k3s/tls/server-ca.crt").read_bytes())
    except join.InvalidCaBundle as error:
        raise BackupError(f"k3s' server-ca.crt: {error}") from None
    return Manifest(
        format=manifests.FORMAT,
        name=name,
        created_ms=int(moment.timestamp() * 1000),
        k3s_version=running,
        k3s_daas_version=version("k3s-daas"),
        network=config.network,
        chain_id=config.chain_id,
        package_id=config.package_id,
        registry_id=config.registry_id,
        ca_hash=ca.hex(),
        token_id=hashlib.sha256(token.strip()).hexdigest()[:12],
        files=[_entry(draft, path) for path in sorted(draft.rglob("*")) if path.is_file()],
    )


def _entry(draft: Path, path: Path) -> Entry:
    about = path.stat()
    return Entry(
        path=str(path.relative_to(draft)),
        sha256=manifests.sha256(path),
        bytes=about.st_size,
        mode="0600",
        modified_ns=about.st_mtime_ns,
    )
