"""A fleet as a whole: up, down, sweep, status, logs."""

import contextlib
import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testhosts import cgroups, host, image, mounts, names, network, registry
from testhosts.errors import HostsError
from testhosts.host import Paths, Starting
from testhosts.names import Fleet, Host
from testhosts.system import progress, remove_tree, run, write

_START_TIMEOUT_S = 60
# Under a cap of 64 MB, 10 MB must be had and 300 MB must not. The bytes are written, or they'd cost nothing.
_HOG = "import sys; sys.exit(len(b'x' * (int(sys.argv[1]) << 20)) == 0)"


@dataclass(frozen=True)
class FleetPaths:
    """Absolute paths in a fleet's state directory."""

    state: Path

    @property
    def hosts(self) -> Path:
        return self.state / "hosts"

    @property
    def key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def public_key(self) -> Path:
        return self.state / "id_ed25519.pub"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    def of(self, name: str) -> Paths:
        return Paths(self.hosts / name)


def check_paths(*paths: Path) -> None:
    """Raise HostsError for a path that can't be an overlay's layer."""
    for path in paths:
        if set(str(path)) & set(",:\\\n"):
            raise HostsError(
                f"{path}: ',', ':' and '\\' have a meaning in mount options; choose another directory"
            )


def well_hosts(fleet: Fleet, paths: FleetPaths) -> list[Host]:
    """Hosts that started completely and are well now."""
    found = []
    for folder in sorted(paths.hosts.iterdir()) if paths.hosts.is_dir() else []:
        record = Paths(folder).read_record()
        if record:
            candidate = fleet.host(record.name, record.address)
            if host.is_well(candidate, Paths(folder)):
                found.append(candidate)
    return found


def sweep(fleet: Fleet, paths: FleetPaths, keep: Sequence[Host]) -> None:
    """Remove everything of the fleet's hosts but those in `keep`: found by cgroup, cable and mount."""
    machines = {kept.machine for kept in keep}
    swept = {machine for machine in cgroups.children(fleet.cgroup) if machine not in machines}
    for machine in sorted(swept):
        progress(f"sweeping {machine}")
        cgroups.destroy(f"{fleet.cgroup}/{machine}")
    if not machines:
        cgroups.destroy(fleet.cgroup)
    network.remove_interfaces(fleet, {kept.veth for kept in keep})
    roots = {paths.of(kept.name).root for kept in keep}
    mounted = mounts.of_fleet(mounts.current(), fleet.tag)
    dead = [mount for mount in mounted if mount.target not in roots]
    for mount in dead:
        host.remove_lock(mount.target)
    mounts.unmount(dead)
    folders = {paths.of(kept.name).folder for kept in keep}
    for folder in paths.hosts.iterdir() if paths.hosts.is_dir() else []:
        if folder not in folders:
            host.remove(folder)
    for machine in swept:
        host.remove_leftovers(machine)


def up(fleet: Fleet, paths: FleetPaths, wanted: list[Host], image_dir: Path, kubernetes: bool) -> None:
    """Make each wanted host run; those that do are left alone. Raises HostsError; can be run again then."""
    registry.check_owner(fleet, paths.state)
    registry.check_same(fleet, kubernetes)
    network.check_free(fleet)
    check_paths(paths.state, image_dir)
    root = image.ensure(image_dir, kubernetes)
    running = well_hosts(fleet, paths)
    _check_apart(wanted, running)
    sweep(fleet, paths, running)
    paths.hosts.mkdir(parents=True, exist_ok=True)
    paths.hosts.chmod(0o700)  # user ids in the hosts' disks are other people's on this machine
    _make_key(paths)
    registry.join(fleet, paths.state, kubernetes)
    missing = [new for new in wanted if new not in running]
    for same in wanted:
        if same in running:
            record = paths.of(same.name).read_record()
            outdated = record is not None and record.image != root.name
            progress(
                f"{same.name}: runs already" + (", on an older image; `down` first renews it" * outdated)
            )
    block = names.etc_hosts([*running, *missing])
    _tell_names(paths, running, block)
    if not missing:
        _write_ssh_files(paths, running, {})
        return
    progress(f"starting {', '.join(f'{new.name} ({new.address})' for new in missing)}")
    public_key = paths.public_key.read_text()
    starting: dict[str, Starting] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        for begun in pool.map(
            lambda new: host.start(new, paths.of(new.name), root, public_key, block, kubernetes), missing
        ):
            starting[begun.host.name] = begun
        _write_ssh_files(
            paths, [*running, *missing], {name: it.record.host_key for name, it in starting.items()}
        )
        list(pool.map(lambda begun: _wait(begun, paths), starting.values()))
    first = starting[missing[0].name]
    _check_memory_limit(first, paths)
    for begun in starting.values():
        begun.finish()


def _check_apart(wanted: list[Host], running: list[Host]) -> None:
    for new in wanted:
        for other in running:
            if new != other and (new.name == other.name or new.address == other.address):
                raise HostsError(
                    f"{new.name}={new.address} was asked for and {other.name}={other.address} runs; "
                    f"run `down` first, or ask for another name and address"
                )


def _make_key(paths: FleetPaths) -> None:
    if not paths.key.exists() or not paths.public_key.exists():
        # Made aside: a key without its public half, of a killed run, would be kept for ever.
        temporary = paths.hosts / ".id_ed25519"
        for file in (temporary, Path(f"{temporary}.pub")):
            file.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testhosts", "-f", str(temporary))
        Path(f"{temporary}.pub").replace(paths.public_key)
        temporary.replace(paths.key)
    paths.key.chmod(0o600)


def _tell_names(paths: FleetPaths, running: list[Host], block: str) -> None:
    for known in running:
        file = paths.of(known.name).root / "etc/hosts"
        current = file.read_text()
        if (text := names.with_etc_hosts(current, block)) != current:
            write(file, text)


def _write_ssh_files(paths: FleetPaths, hosts: list[Host], new_keys: dict[str, str]) -> None:
    lines = []
    for known in hosts:
        record = paths.of(known.name).read_record()
        key = new_keys.get(known.name) or (record.host_key if record else "")
        lines.append(f"{known.name},{known.address} {key}\n")
    write(paths.known_hosts, "".join(lines))
    write(paths.ssh_config, names.ssh_config(hosts, str(paths.key), str(paths.known_hosts)))


def ssh_command(paths: FleetPaths, name: str, command: str) -> list[str]:
    return ["ssh", "-F", str(paths.ssh_config), "-o", "BatchMode=yes", name, "--", command]


def _wait(begun: Starting, paths: FleetPaths) -> None:
    """Until ssh lets us in and systemd has started all it wants to."""
    begun.wait_for_ssh(_START_TIMEOUT_S)
    name = begun.host.name
    command = f"timeout {_START_TIMEOUT_S} systemctl is-system-running --wait"
    done = run(*ssh_command(paths, name, command), check=False)
    state = done.stdout.strip()
    if state == "degraded":
        failed = run(*ssh_command(paths, name, "systemctl --failed --plain --no-legend"), check=False)
        progress(f"{name}: warning, these units failed: {failed.stdout.strip()}")
    elif state != "running":
        raise begun.failed(f"systemd says {state or done.stderr.strip()!r}, wanted running or degraded")
    progress(f"{name}: {state} at {begun.host.address}")


def _check_memory_limit(begun: Starting, paths: FleetPaths) -> None:
    """systemd takes MemoryMax= and enforces nothing when its cgroups aren't right; see that it does."""
    for megabytes, survives in ((10, True), (300, False)):
        command = (
            "systemd-run --quiet --wait --collect --property=MemoryMax=64M --property=MemorySwapMax=0 "
            f'/usr/bin/python3 -c "{_HOG}" {megabytes}'
        )
        done = run(*ssh_command(paths, begun.host.name, command), check=False)
        if (done.returncode == 0) != survives:
            raise begun.failed(
                f"{megabytes} MB under MemoryMax=64M gave exit {done.returncode}, "
                f"wanted {'0' if survives else 'a kill'}: memory limits don't work in hosts on this machine "
                f"({done.stderr.strip() or 'no message'})"
            )
    progress("memory limits are enforced")


def down(fleet: Fleet, paths: FleetPaths) -> None:
    """Remove all of the fleet. What isn't there is fine."""
    registry.check_owner(fleet, paths.state)
    sweep(fleet, paths, [])
    registry.leave(fleet)
    remove_tree(paths.hosts)
    for file in (paths.key, paths.public_key, paths.known_hosts, paths.ssh_config):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others may keep something there
        paths.state.rmdir()
    progress(f"fleet {fleet.name} is down")


def status(fleet: Fleet, paths: FleetPaths) -> dict[str, Any]:
    """What there is of the fleet."""
    well = well_hosts(fleet, paths)
    hosts = []
    for folder in sorted(paths.hosts.iterdir()) if paths.hosts.is_dir() else []:
        record = Paths(folder).read_record()
        if not folder.is_dir():
            continue
        running = [it for it in well if it.name == folder.name]
        hosts.append(
            {
                "name": folder.name,
                "address": record.address if record else None,
                "state": "running" if running else "dead" if record else "incomplete",
                "processes": len(cgroups.processes(running[0].cgroup)) if running else 0,
                "console": str(Paths(folder).console),
            }
        )
    return {
        "fleet": fleet.name,
        "subnet": str(fleet.subnet),
        "bridge": fleet.bridge if fleet.bridge in network.interfaces() else None,
        "gateway": str(fleet.gateway),
        "ssh_config": str(paths.ssh_config),
        "hosts": hosts,
    }


def logs(fleet: Fleet, paths: FleetPaths, target: Path) -> None:
    """Save status, journals and consoles below `target`; works on hosts that are dead, too."""
    target.mkdir(parents=True, exist_ok=True)
    state = status(fleet, paths)
    write(target / "status.json", json.dumps(state, indent=2) + "\n", 0o600)
    for known in state["hosts"]:
        folder = target / known["name"]
        folder.mkdir(exist_ok=True)
        of_host = paths.of(known["name"])
        write(folder / "journal.txt", of_host.journal(), 0o600)
        if of_host.console.exists():
            write(folder / "console.txt", of_host.console.read_text(errors="replace"), 0o600)
    progress(f"logs of {len(state['hosts'])} hosts are in {target}")


def execute(paths: FleetPaths, name: str, command: str) -> int:
    """Run a command in a host with our input and output; returns its exit status."""
    if not paths.ssh_config.exists():
        raise HostsError(f"no {paths.ssh_config}: the fleet isn't up; run `up` first")
    return subprocess.run(ssh_command(paths, name, command)).returncode
