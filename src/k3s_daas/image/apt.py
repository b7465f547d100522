"""Debian packages by apt, apart from this machine's own: what to take, the files, a repository of just these.

This machine's apt.conf still says how to reach a mirror; sources, state and cache are ours. The archive's
signature is checked by apt when a lock is made; from then on each file's SHA-256 in the lock decides.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock, Package

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCE_LINE = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class Source:
    """Where packages come from: apt's one-line sources without `deb` and options, and the suite.

    Without lines, where this machine has the suite from.
    """

    lines: tuple[str, ...]
    suite: str
    architecture: str


def own_sources(suite: str) -> tuple[str, ...]:
    """Where this machine has this suite from: its archive, its updates and its security updates.

    As in Source.lines. Raises ImageError when this machine has another release.
    """
    done = subprocess.run(
        # Of what the sources say, whether or not their lists were ever fetched.
        ["apt-get", "indextargets", "--no-release-info", "--format", _SOURCE_LINE, "Created-By: Packages"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    found = [line for line in done.stdout.splitlines() if line]
    suites = {suite, f"{suite}-updates", f"{suite}-security"}
    ours = [line for line in found if line.split()[-2] in suites and line.split()[-1] == "main"]
    if not ours:
        raise ImageError(
            f"Found {'; '.join(found) or 'no package source'} on this machine, wanted one with {suite} main. "
            "Name sources with it in enclave_image_sources."
        )
    return tuple(dict.fromkeys(ours))


class Apt:
    """An apt of our own below `folder`."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder = folder
        self._source = source
        for below in ("state/lists/partial", "cache/archives/partial"):
            (folder / below).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        self._name_sources(source.lines)
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state";\n'
            f'Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
            'Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::preferences "/dev/null";\n'
            'Dir::Etc::preferencesparts "/dev/null";\n'
            f'APT::Architecture "{source.architecture}";\n'
            f'APT::Architectures {{ "{source.architecture}"; }};\n'
            'APT::Install-Recommends "false";\n'
            'APT::Sandbox::User "";\n'
            'Acquire::ForceHash "SHA256";\n'
            'Acquire::Languages "none";\n'
            # A snapshot's lists have long lapsed.
            'Acquire::Check-Valid-Until "false";\n'
        )

    def _name_sources(self, lines: Sequence[str]) -> None:
        options = f"arch={self._source.architecture} signed-by={KEYRING}"
        (self._folder / "sources.list").write_text("".join(f"deb [{options}] {one}\n" for one in lines))

    def update(self) -> None:
        """Fetch the lists. Raises ImageError."""
        if not self._source.lines:
            # Not before they are needed: a build from kept packages runs on any machine.
            self._source = replace(self._source, lines=own_sources(self._source.suite))
            self._name_sources(self._source.lines)
        self._run("update", "--error-on=any")

    def resolve(self, wanted: Sequence[str]) -> Lock:
        """The closure of `wanted` and of all that is essential, in the newest versions. Raises ImageError.

        Its time is that of the newest list: no file of these packages is newer.
        """
        printed = self._run("--print-uris", "--yes", "install", "?essential", *wanted)
        packages = [_package(match) for match in _URI.finditer(printed)]
        source = self._source
        releases = [path.read_text() for path in (self._folder / "state/lists").glob("*_InRelease")]
        dates = [match[1] for text in releases for match in re.finditer(r"^Date: (.+)$", text, re.MULTILINE)]
        source_date_epoch = max(int(parsedate_to_datetime(date).timestamp()) for date in dates)
        return Lock(
            source.suite,
            source.architecture,
            source_date_epoch,
            tuple(sorted(wanted)),
            tuple(sorted(packages)),
        )

    def download(self, packages: Sequence[Package], folder: Path) -> None:
        """Put these into `folder`; their hashes are still to be checked. Raises ImageError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._run("download", *(f"{one.name}={one.version}" for one in packages), cwd=folder)

    def _run(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["apt-get", "-qq", *arguments],
            cwd=cwd,
            env=os.environ | {"APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ImageError(
                f"apt-get {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-1500:]}\n"
                f"Wanted packages from {'; '.join(self._source.lines)}. A mirror drops a version when a "
                "newer one is out: name an archive that keeps them in enclave_image_sources, or make the "
                "lock anew with -e enclave_image_update_lock=true, which makes another image."
            )
        return done.stdout


def fetch(apt: Apt, lock: Lock, cache: Path) -> list[Path]:
    """The lock's files in `cache`, each as its hash says; missing ones are downloaded. Raises ImageError."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package in lock.packages if not (cache / package.file).exists()]
    if missing:
        new = cache / "new"
        shutil.rmtree(new, ignore_errors=True)
        apt.update()
        apt.download(missing, new)
        for package in missing:
            _check(package, new / package.file)
            (new / package.file).replace(cache / package.file)
        new.rmdir()
    files = [cache / package.file for package in lock.packages]
    for package, file in zip(lock.packages, files, strict=True):
        _check(package, file)
    return files


def _check(package: Package, file: Path) -> None:
    found = sha256(file)
    if found != package.sha256:
        file.unlink(missing_ok=True)
        raise ImageError(
            f"{file.name} has the SHA-256 {found}, wanted {package.sha256} as the lock says. It was removed "
            "and not used; run this again, or find out who changed it."
        )


def sha256(file: Path) -> str:
    """Hex digest of a file; of none, "no file"."""
    if not file.is_file():
        return "no file"
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def repository(lock: Lock, files: Sequence[Path], folder: Path) -> str:
    """A repository of just these files in `folder`; returns its line for apt. Raises ImageError.

    It needs no signature: each file was held against the lock.
    """
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).hardlink_to(file)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        controls = list(pool.map(_control, files))
    stanzas = [
        f"{control}Filename: ./{package.file}\nSize: {package.size}\nSHA256: {package.sha256}\n"
        for control, package in zip(controls, lock.packages, strict=True)
    ]
    packages = "\n".join(stanzas).encode()
    (folder / "Packages").write_bytes(packages)
    (folder / "Release").write_text(
        f"Suite: {lock.suite}\nCodename: {lock.suite}\nArchitectures: {lock.architecture}\n"
        "Date: Thu, 01 Jan 1970 00:00:00 UTC\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    )
    return f"deb [trusted=yes] copy://{folder} ./"


def _control(file: Path) -> str:
    done = subprocess.run(["dpkg-deb", "--field", str(file)], capture_output=True, text=True)
    if done.returncode:
        raise ImageError(f"dpkg-deb can't read {file}: {done.stderr.strip()}. Remove it and run this again.")
    return done.stdout if done.stdout.endswith("\n") else f"{done.stdout}\n"


def _package(match: re.Match[str]) -> Package:
    name, version, architecture = match["file"].removesuffix(".deb").split("_")
    return Package(name, urllib.parse.unquote(version), architecture, match["sha256"], int(match["size"]))
