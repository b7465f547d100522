# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The release that a host runs, kept on the host so that it can be put back byte for byte.

Standard library only, Python 3.9 and later: this runs on the hosts. Below `Places.folder` there is

- `before/` while a promotion is under way: the host as it was when it began;
- `kept/` from the second release on: the host as it was before the last promotion that changed it.

Each holds `files.tar`, `k3s` (a link to the binary where that can be) and `about.json`. Keys, tokens and
state are none of it: they go on as they are, whatever release runs.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1


class Refused(Exception):
    """Can't be done; the message says what was found, what was wanted, and what to do."""


@dataclass(frozen=True)
class Places:
    """Where things are on a host.

    `paths` are patterns of what a release writes, `config` is the daemon's configuration, `record` the
    release's own name: it alone makes no other release.
    """

    folder: Path
    paths: tuple
    config: Path
    record: Path
    k3s: Path
    environment: Path
    master_db: Path
    backups: Path
    datastore_keys: tuple

    @property
    def before(self):
        return self.folder / "before"

    @property
    def kept(self):
        return self.folder / "kept"


def found_paths(places):
    """Files and links of the release that runs, in a fixed order."""
    found = {Path(name) for pattern in places.paths for name in glob.glob(pattern)}  # noqa: PTH207
    return sorted(path for path in found if path.is_symlink() or path.is_file())


def entry_of(path):
    """What a file or link is; equal for two that are the same."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return {"target": os.readlink(path)}  # noqa: PTH115
    return {
        "mode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def json_of(path):
    """A JSON object in a file; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def version_of(binary):
    """ "v1.34.2+k3s1" of `k3s version v1.34.2+k3s1 (…)`; "" when there is no such program."""
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.match(r"k3s\S* version (\S{1,100})", done.stdout)
    return found[1] if found else ""


def schema_of(database):
    """The number of the master's tables; None where it can't be told. The service may have the file open."""
    if not database.exists():
        return None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as db,
    ):
        return db.execute("PRAGMA user_version").fetchone()[0]
    return None


def datastore_keys(places):
    """Which keys open the datastore, as one hash of theirs; not what they are."""
    total = hashlib.sha256()
    for path in places.datastore_keys:
        if path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def recover(places):
    """Finish what a run that was killed left half done."""
    places.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.folder.chmod(0o700)
    shutil.rmtree(places.folder / "before.new", ignore_errors=True)
    shutil.rmtree(places.folder / "gone", ignore_errors=True)


def about_of(folder):
    """The description of what is kept there; None where nothing is."""
    about = json_of(folder / "about.json")
    if about is not None and about.get("format") != FORMAT:
        raise Refused(
            "{} has format {}, wanted {}: another release kept it. Use that one, or remove the directory, "
            "which gives up the way back.".format(folder, about.get("format"), FORMAT)
        )
    return about


def write_about(folder, about):
    descriptor, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "w") as file:
        json.dump(about, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / "about.json")  # noqa: PTH105


def begin(places, to):
    """Keep the host as it is, unless a promotion is under way: then what it began with is what counts."""
    about = about_of(places.before)
    if about is not None:
        if about["to"] != to:
            write_about(places.before, dict(about, to=to))
        return
    new = places.folder / "before.new"
    new.mkdir(mode=0o700)
    paths = found_paths(places)
    with tarfile.open(new / "files.tar", "w") as archive:
        for path in paths:
            archive.add(path, str(path).lstrip("/"), recursive=False)
    if places.k3s.is_file():
        link_or_copy(places.k3s, new / "k3s")
    write_about(
        new,
        {
            "format": FORMAT,
            "to": to,
            "back": None,
            "fresh": not places.config.exists(),
            "release": json_of(places.record),
            "k3s": version_of(places.k3s),
            "at_ms": time.time_ns() // 1000000,
            "schema": schema_of(places.master_db),
            "datastore_keys": datastore_keys(places),
            "entries": {str(path): entry_of(path) for path in paths},
        },
    )
    new.rename(places.before)


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def extra_paths(places, about):
    """What the release that runs has, and the kept one had not."""
    return [path for path in found_paths(places) if str(path) not in about["entries"]]


def put_back(places, about):
    """Make files and links what they were; returns the paths that weren't."""
    changed = []
    with tarfile.open(places.before / "files.tar") as archive:
        for name, entry in about["entries"].items():
            path = Path(name)
            if (path.is_symlink() or path.is_file()) and entry_of(path) == entry:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.back")
            temporary.unlink(missing_ok=True)
            if "target" in entry:
                temporary.symlink_to(entry["target"])
            else:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(archive.extractfile(name.lstrip("/")).read())
                    file.flush()
                    os.fsync(file.fileno())
                os.chown(temporary, entry["uid"], entry["gid"])
                temporary.chmod(entry["mode"])
            temporary.replace(path)
            changed.append(name)
    for path in extra_paths(places, about):
        path.unlink()
        changed.append(str(path))
    return changed


def is_as_before(places, about):
    """Whether the host runs what it ran then; the release's record alone makes no difference."""
    now = {str(path): entry_of(path) for path in found_paths(places)}
    ignored = str(places.record)
    same = {k: v for k, v in now.items() if k != ignored} == {
        k: v for k, v in about["entries"].items() if k != ignored
    }
    return same and version_of(places.k3s) == about["k3s"]


def drop(places, folder):
    """Remove a directory so that it is there whole or not at all."""
    if folder.exists():
        folder.rename(places.folder / "gone")
        shutil.rmtree(places.folder / "gone")
