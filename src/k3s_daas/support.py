"""`k3s-daas support`: what somebody who helps wants to see of this host, in one file, without its secrets.

Each look has a limit in time and bytes and may fail by itself: the file tells of it, and the rest is there.
All of it goes through the logs' redaction, and every secret that this host keeps in a file is taken out by
its value, whatever it looks like.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from k3s_daas import logs

LIMIT_S = 20.0
#: Of one look, in bytes; of more than that the end is kept.
LIMIT_BYTES = 4_000_000
#: The files with this host's secrets; what they hold is known, so that it can be taken out.
SECRET_FILES = (
    "/etc/k3s-daas/seal-token",
    "/etc/k3s-daas/heartbeat.key",
    "/etc/k3s-daas/master.key",
    "/etc/rancher/k3s/agent-token",
    "/etc/rancher/k3s/encryption.json",
    "/etc/rancher/node/password",
    "/var/lib/rancher/k3s/server/token",
)
# Shorter words aren't secrets, and would be found in other words.
_SECRET = re.compile(rb"[A-Za-z0-9+/=_-]{16,}")

_BIN = f"{sys.prefix}/bin"
_KUBECTL = ("/usr/local/bin/k3s", "kubectl", "--kubeconfig=/etc/rancher/k3s/k3s.yaml")
_STATUS = (
    *(f"{_BIN}/k3s-daas", "status", "--config=/etc/k3s-daas/master.json"),
    *("--kubectl=/usr/local/bin/k3s kubectl", "--kubeconfig=/etc/rancher/k3s/k3s.yaml"),
    "--ca=/var/lib/rancher/k3s/server/tls/server-ca.crt",
)
_UNITS = ("k3s*", "k3s-daas*")


@dataclass(frozen=True)
class Look:
    """One file of the bundle, and the command whose output it holds."""

    name: str
    command: tuple[str, ...]
    #: Only where this is there.
    where: str = "/"


LOOKS = (
    Look("doctor.txt", (f"{_BIN}/k3s-daas", "doctor", "--all")),
    Look("status.txt", _STATUS, "/etc/k3s-daas/master.json"),
    Look("configuration/master.json", ("cat", "/etc/k3s-daas/master.json"), "/etc/k3s-daas/master.json"),
    Look("configuration/watcher.json", ("cat", "/etc/k3s-daas/watcher.json"), "/etc/k3s-daas/watcher.json"),
    Look("configuration/k3s.yaml", ("cat", "/etc/rancher/k3s/config.yaml"), "/etc/rancher/k3s/config.yaml"),
    Look("cluster/nodes.txt", (*_KUBECTL, "get", "nodes", "--output=wide"), "/etc/rancher/k3s/k3s.yaml"),
    Look("cluster/nodes.yaml", (*_KUBECTL, "get", "nodes", "--output=yaml"), "/etc/rancher/k3s/k3s.yaml"),
    Look("cluster/pods.txt", (*_KUBECTL, "get", "pods", "-A", "--output=wide"), "/etc/rancher/k3s/k3s.yaml"),
    Look(
        "cluster/events.txt",
        (*_KUBECTL, "get", "events", "-A", "--sort-by=.lastTimestamp"),
        "/etc/rancher/k3s/k3s.yaml",
    ),
    Look("units.txt", ("systemctl", "--no-pager", "--lines=0", "status", "--all", *_UNITS)),
    Look("timers.txt", ("systemctl", "--no-pager", "list-timers", "--all")),
    Look(
        "journal.txt",
        (
            *("journalctl", "--no-pager", "--output=short-iso", "--lines=20000"),
            *(f"--unit={unit}" for unit in _UNITS),
        ),
    ),
    Look("kernel.txt", ("journalctl", "--no-pager", "--output=short-iso", "--lines=500", "--dmesg")),
    Look("host/k3s-version.txt", ("/usr/local/bin/k3s", "--version")),
    Look("host/system.txt", ("uname", "-a")),
    Look("host/os-release.txt", ("cat", "/etc/os-release")),
    Look("host/clock.txt", ("timedatectl", "status")),
    Look("host/memory.txt", ("cat", "/proc/meminfo")),
    Look("host/disks.txt", ("df", "--human-readable", "--print-type")),
    Look("host/addresses.txt", ("ip", "address")),
    Look("host/routes.txt", ("ip", "route", "show", "table", "all")),
    Look("host/listeners.txt", ("ss", "--listening", "--tcp", "--udp", "--numeric", "--processes")),
)


@dataclass(frozen=True)
class Seen:
    """How one look went. `exit_code` is None where the command could not be run to its end."""

    name: str
    command: tuple[str, ...]
    exit_code: int | None
    seconds: float
    bytes: int
    cut: bool
    trouble: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", type=Path, required=True, help="the file to write, a .tar.gz, 0600")


def run(options: argparse.Namespace, looks: Sequence[Look] = LOOKS) -> int:
    """Write the bundle; 0, or 1 where it can't be written."""
    try:
        write(options.out, looks, known_secrets(SECRET_FILES))
    except OSError as error:
        print(
            f"k3s-daas support: found {error}, wanted a new file at {options.out}; name another with --out",
            file=sys.stderr,
        )
        return 1
    print(options.out)
    return 0


def write(path: Path, looks: Sequence[Look], secrets: frozenset[bytes]) -> None:
    """All looks as a tar file, with index.json of how each went. Raises OSError, also if `path` exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as bundle:
        index = []
        for look in looks:
            if not Path(look.where).exists():
                continue
            print(f"k3s-daas support: {look.name}", file=sys.stderr)
            seen, output = see(look, secrets)
            _add(bundle, look.name, output)
            index.append(asdict(seen))
        _add(bundle, "index.json", json.dumps(index, indent=2).encode())


def see(look: Look, secrets: frozenset[bytes]) -> tuple[Seen, bytes]:
    """What a look brings, without secrets. Never raises."""
    started = time.monotonic()
    code, trouble, output = None, "", b""
    try:
        done = subprocess.run(
            look.command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False
        )
        code, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        trouble = f"ended after {LIMIT_S:g} s"
        output = (error.stdout or b"") + (error.stderr or b"")
    except OSError as error:
        trouble = str(error)
    shown = scrub(output, secrets)
    kept = shown[-LIMIT_BYTES:]
    seconds = round(time.monotonic() - started, 3)
    return Seen(look.name, look.command, code, seconds, len(kept), len(kept) < len(shown), trouble), kept


def known_secrets(files: Sequence[str]) -> frozenset[bytes]:
    """The values in these files; one that can't be read has none that we could show."""

    def values() -> Iterator[bytes]:
        for name in files:
            try:
                text = Path(name).read_bytes()
            except OSError:
                continue
            # An EncryptionConfiguration has words of its own that are no secrets; before the "::" of k3s'
            # full token format stands the CA's hash, which is public.
            secret = rb'"secret":\s*"([^"]*)"'
            parts = re.findall(secret, text) if name.endswith(".json") else [text.rpartition(b"::")[2]]
            for part in parts:
                yield from _SECRET.findall(part)

    return frozenset(values())


def scrub(output: bytes, secrets: frozenset[bytes]) -> bytes:
    """`output` without these values and without whatever looks like a secret."""
    # The longest first: one may be part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        output = output.replace(secret, logs.REDACTED.encode())
    return logs.redact(output.decode("utf-8", "replace")).encode()


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(f"{os.uname().nodename}/{name}")
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    bundle.addfile(entry, io.BytesIO(content))
