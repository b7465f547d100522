"""Mounts: which are a fleet's, and how they go away."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from testhosts.errors import HostsError
from testhosts.system import run


@dataclass(frozen=True)
class Mount:
    source: str
    target: Path
    kind: str
    options: str


def parse(text: str) -> list[Mount]:
    """The lines of /proc/mounts, oldest first; \\040 and the like become the characters they stand for."""
    mounts = []
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field) for field in line.split(" ")]
        if len(fields) >= 4:
            # The kernel marks a target whose directory was deleted.
            target = fields[1].removesuffix("//deleted")
            mounts.append(Mount(fields[0], Path(target), fields[2], fields[3]))
    return mounts


def current() -> list[Mount]:
    return parse(Path("/proc/self/mounts").read_text())


def of_fleet(mounts: list[Mount], tag: str) -> list[Mount]:
    """The overlay mounts that carry the fleet's tag, wherever they are; one entry per time mounted."""
    return [mount for mount in mounts if mount.kind == "overlay" and mount.source == tag]


def below(mounts: list[Mount], folder: Path) -> list[Mount]:
    return [mount for mount in mounts if mount.target.is_relative_to(folder)]


def unmount(targets: list[Mount]) -> None:
    """Unmount each, the last first; raises HostsError when one stays.

    Dying processes may hold one for a moment.
    """
    for mount in reversed(targets):
        deadline = time.monotonic() + 10
        while (done := run("umount", str(mount.target), check=False)).returncode != 0:
            if mount.target not in [other.target for other in current()]:
                break
            if time.monotonic() > deadline:
                raise HostsError(f"{mount.target} stays mounted: {done.stderr.strip()}; see fuser -m")
            time.sleep(0.05)
