"""Cgroups: what belongs to a host is what is in its cgroups, in whichever hierarchy."""

import contextlib
import os
import signal
import time
from pathlib import Path

from testhosts import mounts
from testhosts.errors import HostsError
from testhosts.names import PROGRAM
from testhosts.system import wait_until

_ROOT = Path("/sys/fs/cgroup")


def hierarchies(table: list[mounts.Mount]) -> list[Path]:
    """Mount points of every cgroup hierarchy, v1 and v2, out of a mount table."""
    return [
        mount.target
        for mount in table
        if mount.kind in ("cgroup", "cgroup2") and mount.target.is_relative_to(_ROOT)
    ]


def paths(cgroup: str) -> list[Path]:
    """The folder of `cgroup` (such as testhosts/demo/demo-11) in every hierarchy of this machine."""
    if cgroup.split("/")[0] != PROGRAM or ".." in cgroup:
        raise ValueError(f"not a cgroup of ours: {cgroup}")
    found = [hierarchy / cgroup for hierarchy in hierarchies(mounts.current())]
    if not found:
        raise HostsError(
            f"no cgroup hierarchy is mounted below {_ROOT}; mount one, or run on a machine that has"
        )
    return found


def create(cgroup: str) -> list[Path]:
    """Make it in every hierarchy, ready to take processes."""
    for _ in range(10):
        # Once more when another fleet's `down` takes the empty parent away under us.
        with contextlib.suppress(FileNotFoundError):
            for hierarchy in hierarchies(mounts.current()):
                _create(hierarchy, Path(cgroup))
            return paths(cgroup)
    raise HostsError(f"cgroup {cgroup} vanishes whenever it is made; does something else clean up cgroups?")


def _create(hierarchy: Path, cgroup: Path) -> None:
    folder = hierarchy
    for part in cgroup.parts:
        _pass_controllers_on(folder)
        parent, folder = folder, folder / part
        folder.mkdir(exist_ok=True)
        _fill_cpuset(parent, folder)


def _pass_controllers_on(folder: Path) -> None:
    """cgroup v2: children have a controller only when the parent says so. v1 has no such file."""
    control = folder / "cgroup.subtree_control"
    if not control.exists():
        return
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # one that can't be passed on isn't worth failing for
            control.write_text(f"+{controller}")


def _fill_cpuset(parent: Path, folder: Path) -> None:
    """cgroup v1: a cpuset without processors or memory nodes takes no process."""
    if (folder / "cgroup.subtree_control").exists():
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder / name).exists() and not (folder / name).read_text().strip():
            (folder / name).write_text((parent / name).read_text())


def children(cgroup: str) -> set[str]:
    """Names of the cgroups right below, in any hierarchy."""
    return {
        entry.name for path in paths(cgroup) if path.is_dir() for entry in path.iterdir() if entry.is_dir()
    }


def processes(cgroup: str) -> set[int]:
    """Process ids in it and below, in any hierarchy."""
    pids: set[int] = set()
    for path in paths(cgroup):
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):  # it went away meanwhile
                pids.update(int(line) for line in (Path(folder) / "cgroup.procs").read_text().split())
    return pids - {0}  # 0: a process that this process namespace can't see


def is_member(proc_cgroup: str, cgroup: str) -> bool:
    """Whether the text of a /proc/PID/cgroup names `cgroup` or one below it, in any hierarchy."""
    lines = [line.split(":", 2)[2] for line in proc_cgroup.splitlines() if line.count(":") >= 2]
    return any(f"{line}/".startswith(f"/{cgroup}/") for line in lines)


def _kill(pid: int, cgroup: str) -> None:
    """SIGKILL, if the process still is one of the cgroup's.

    Between reading a number and using it the process may end and its number go to a stranger, so: hold the
    process first, then look again what it is.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(OSError):  # it ended meanwhile
            if is_member(Path(f"/proc/{pid}/cgroup").read_text(), cgroup):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def destroy(cgroup: str) -> None:
    """Kill everything in it and remove it from every hierarchy; raises HostsError when something stays."""
    deadline = time.monotonic() + 15
    while pids := processes(cgroup):
        for pid in pids:
            _kill(pid, cgroup)
        if time.monotonic() > deadline:
            raise HostsError(f"processes {sorted(pids)} of cgroup {cgroup} don't die; see /proc/PID/stack")
        time.sleep(0.02)
    if not wait_until(lambda: _remove(cgroup), timeout_s=10):
        raise HostsError(f"cgroup {cgroup} can't be removed from {', '.join(map(str, _present(cgroup)))}")


def remove_parent() -> None:
    """Remove the parent of all our cgroups, unless some fleet or image build has one there."""
    for path in paths(PROGRAM):
        with contextlib.suppress(OSError):
            path.rmdir()


def _present(cgroup: str) -> list[Path]:
    return [path for path in paths(cgroup) if path.exists()]


def _remove(cgroup: str) -> bool:
    """Remove what is empty; a cgroup stays busy for a moment after its last process."""
    for path in _present(cgroup):
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    return not _present(cgroup)
