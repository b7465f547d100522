"""What of this machine fleets share: whose a fleet's name is, and sysctls that were changed.

Kept in /run/testhosts, in files of one boot: after a restart of the machine neither holds any more.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testhosts import cgroups, network, sysctls
from testhosts.errors import HostsError
from testhosts.names import Fleet
from testhosts.system import RUN_DIR, locked, progress, write

_FLEETS = RUN_DIR / "fleets"
_SYSCTLS = RUN_DIR / "sysctls.json"


@dataclass(frozen=True)
class Entry:
    """A fleet that was started and not taken down since."""

    state_dir: str
    subnet: str
    kubernetes: bool


def _read(path: Path) -> dict[str, Any]:
    """The file's content, or nothing when there is none of this boot."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content["content"] if content.get("boot") == _boot() else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"boot": _boot(), "content": content}))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def fleet_lock(name: str) -> Iterator[None]:
    """One run at a time works on a fleet."""
    with locked(RUN_DIR / f"{name}.lock", f"fleet {name}"):
        yield


def entry(name: str) -> Entry | None:
    content = _read(_FLEETS / f"{name}.json")
    return Entry(**content) if content else None


def others(name: str) -> dict[str, Entry]:
    """Fleets other than `name` of which something is there."""
    found = {}
    for path in sorted(_FLEETS.glob("*.json")):
        other = None if path.stem == name else entry(path.stem)
        if other and (
            f"br-{path.stem}" in network.interfaces() or cgroups.processes(f"testhosts/{path.stem}")
        ):
            found[path.stem] = other
    return found


def check_owner(fleet: Fleet, state_dir: Path) -> None:
    """Raise HostsError when hosts of the name run for another state directory, say of another checkout.

    A name of which nothing runs is free: who left it there was killed, and may never come back for it.
    """
    known = entry(fleet.name)
    if known and known.state_dir != str(state_dir) and cgroups.processes(fleet.cgroup):
        raise HostsError(
            f"fleet {fleet.name} belongs to {known.state_dir}, not to {state_dir}; choose another "
            f"--fleet and --subnet, or take it down there"
        )


def check_same(fleet: Fleet, kubernetes: bool) -> None:
    """Raise HostsError when the fleet runs with another subnet or on another kind of host."""
    known = entry(fleet.name)
    for what, found, wanted in (
        ("subnet", known and known.subnet, str(fleet.subnet)),
        ("--kubernetes", known and known.kubernetes, kubernetes),
    ):
        if known and found != wanted:
            raise HostsError(f"fleet {fleet.name} has {what} {found}, wanted {wanted}; run `down` first")


def join(fleet: Fleet, state_dir: Path, kubernetes: bool) -> None:
    """Make the fleet's network, after noting what that changes."""
    with locked(RUN_DIR / "lock", "the machine's network"):
        before = _read(_SYSCTLS)
        before.setdefault("hosts", sysctls.of_all_hosts())
        if kubernetes:
            before.setdefault("kubernetes", sysctls.of_the_machine())
        # Notes first: killed right after them, we have changed nothing and `down` has nothing to put back.
        _write(_SYSCTLS, before)
        _write(_FLEETS / f"{fleet.name}.json", asdict(Entry(str(state_dir), str(fleet.subnet), kubernetes)))
        network.up(fleet)
        sysctls.set_for_hosts()


def leave(fleet: Fleet) -> None:
    """Remove the fleet's network; the last fleet out puts the sysctls back."""
    with locked(RUN_DIR / "lock", "the machine's network"):
        network.down(fleet)
        rest = others(fleet.name)
        before = _read(_SYSCTLS)
        if not any(other.kubernetes for other in rest.values()):
            _restore(before.pop("kubernetes", {}))
        if not rest:
            _restore(before.pop("hosts", {}))
        if before:
            _write(_SYSCTLS, before)
        else:
            _SYSCTLS.unlink(missing_ok=True)
        (_FLEETS / f"{fleet.name}.json").unlink(missing_ok=True)
        cgroups.remove_parent()


def _restore(before: dict[str, str]) -> None:
    for change in sysctls.restore(before):
        progress(f"put back {change}")
