"""Sysctls of this machine that hosts change, and how they are put back."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path("/proc/sys")
_FORWARD = "net/ipv4/ip_forward"
# Each systemd with path units takes a dozen, and Debian's 128 are for all hosts together.
_WATCHERS = "fs/inotify/max_user_instances"
_ENOUGH_WATCHERS = 1024
# Change by themselves, or do something when written.
_VOLATILE = (
    "kernel/ns_last_pid",
    "kernel/random/",
    "kernel/sched_domain/",
    "vm/compact_memory",
    "vm/drop_caches",
)


def read(names: Iterable[str]) -> dict[str, str]:
    """Their values; those that are not there or can't be read are left out."""
    values = {}
    for name in names:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            values[name] = (_ROOT / name).read_text().strip()
    return values


def of_all_hosts() -> dict[str, str]:
    """What any host needs: ip_forward, with what the kernel changes along with it, and inotify's limit."""
    interfaces = [entry.name for entry in (_ROOT / "net/ipv4/conf").iterdir()]
    others = [
        f"net/ipv4/conf/{name}/{key}" for name in interfaces for key in ("forwarding", "accept_redirects")
    ]
    return read([_FORWARD, *others, _WATCHERS])


def of_the_machine() -> dict[str, str]:
    """What a Kubernetes host could change for all: whatever isn't separate for each network namespace."""
    folders = ("fs", "kernel", "net/bridge", "net/netfilter", "user", "vm")
    names = [
        str(path.relative_to(_ROOT))
        for folder in folders
        for path in sorted((_ROOT / folder).rglob("*"))
        if path.is_file() and path.stat().st_mode & 0o200
    ]
    return read(name for name in names if not name.startswith(_VOLATILE) and name != _WATCHERS)


def set_for_hosts() -> None:
    found = read([_FORWARD, _WATCHERS])
    if found.get(_FORWARD) != "1":
        (_ROOT / _FORWARD).write_text("1\n")
    if int(found.get(_WATCHERS, _ENOUGH_WATCHERS)) < _ENOUGH_WATCHERS:
        (_ROOT / _WATCHERS).write_text(f"{_ENOUGH_WATCHERS}\n")


def restore(before: dict[str, str]) -> list[str]:
    """Write back each value that differs; returns 'name: found -> wanted' of those.

    ip_forward comes first in its record, because writing it changes the others.
    """
    changed = []
    for name, wanted in before.items():
        found = read([name]).get(name)
        if found is not None and found != wanted:
            with contextlib.suppress(OSError):
                (_ROOT / name).write_text(wanted + "\n")
                changed.append(f"{name.replace('/', '.')}: {found} -> {wanted}")
    return changed
