"""A master that is started from the enclave image, simulated.

systemd-nspawn stands for the enclave, this machine for its parent, an emulator for the security module.

Nothing is put into the image's tree but what starts it: an address on the cable where an enclave would have
its vsock, and the parent's folder with the cluster's configuration and the emulator's socket. Nobody can log
in.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stage.errors import StageError
from testhosts import cgroups, host
from testhosts.fleet import FleetPaths
from testhosts.names import Fleet, Host
from testhosts.system import launch, locked, remove_tree, run, write

#: Where the parent's things are in the enclave; `k3s_daas.enclave.cluster` looks there.
PARENT = "/run/k3s-daas-parent"
#: Of the image's own user, who talks to the emulator.
_USER = 900
_NAME = "master"
_ARCHIVE = "rootfs.cpio.gz"
_STARTS_WITHIN_S = 20


def root_certificate(folder: Path) -> Path:
    """The emulator's root, made when it isn't there: a chain has to know it from its start."""
    from k3s_daas_localnet.nsm import NsmEmulator  # here, because taking a stage down must work without it

    NsmEmulator.load_or_create(folder / "nsm", time.time_ns() // 1_000_000)
    return folder / "nsm" / NsmEmulator.ROOT_FILE


def emulate(fleet: Fleet, folder: Path, name: str, pcr0: str) -> dict[str, Any]:
    """Have the emulator beside the host of that name measure this image (hex); returns what it says.

    Its socket is NAME.nsm in the shared folder. An image that is named in the file `broken-images` never
    comes up: no security module answers there. Raises StageError.
    """
    socket = folder / "shared" / f"{name}.nsm"
    socket.unlink(missing_ok=True)
    broken = folder / "broken-images"
    if broken.exists() and pcr0 in broken.read_text().split():
        cgroups.destroy(f"{fleet.cgroup}/{fleet.name}-nsm-{name}")
        return {}
    said = _emulator(fleet, folder, f"nsm-{name}", socket, {"PCR0": pcr0})
    socket.chmod(0o666)
    return said


def up(fleet: Fleet, folder: Path, address: str, image: Path, cluster: dict[str, Any]) -> dict[str, Any]:
    """Start the image as the fleet's master with the cluster's configuration; one that runs is left alone.

    Returns what the emulator says: its PCRs are the image's; and whether it was `started`. Raises StageError
    and HostsError.
    """
    master = fleet.host(_NAME, address)
    paths = FleetPaths(folder).of(_NAME)
    record = json.loads((image / "image.json").read_text())
    ready = folder / "nsm.json"
    if host.is_well(master, paths) and ready.exists():
        return dict(json.loads(ready.read_text())) | {"started": False}
    cgroups.destroy(master.cgroup)
    host.remove(paths.folder)
    parent = folder / "parent"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(mode=0o755)
    (parent / "cluster.json").write_text(json.dumps(cluster))
    said = _emulate(fleet, folder, parent, record["pcrs"])
    ready.write_text(json.dumps(said))
    tree = unpacked(image / _ARCHIVE, record["files"][_ARCHIVE], folder.parent / "enclave-roots")
    _start(master, paths, tree, parent)
    entry = host.Record(_NAME, address, tree.name, kubernetes=False, host_key="")
    write(paths.record, json.dumps(asdict(entry)), 0o600)
    return said | {"started": True}


def _emulate(fleet: Fleet, folder: Path, parent: Path, pcrs: dict[str, str]) -> dict[str, Any]:
    said = _emulator(fleet, folder, "nsm", parent / "nsm.sock", pcrs)
    os.chown(parent / "nsm.sock", _USER, _USER)
    return said


def _emulator(fleet: Fleet, folder: Path, name: str, socket: Path, pcrs: dict[str, str]) -> dict[str, Any]:
    """An emulator that measured this image, in a cgroup of the fleet's, so that its end is the fleet's."""
    group = f"{fleet.cgroup}/{fleet.name}-{name}"
    cgroups.destroy(group)
    log = folder / f"{name}.log"
    log.unlink(missing_ok=True)
    registers = [f"--pcr={name.removeprefix('PCR')}={value}" for name, value in pcrs.items()]
    command = [sys.executable, "-m", "k3s_daas_localnet", "nsm", f"--socket={socket}"]
    process = launch([*command, f"--state-dir={folder / 'nsm'}", *registers], cgroups.create(group), log)
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith('{"event"'):
                return dict(json.loads(line))
        time.sleep(0.1)
    raise StageError(f"the emulator did not start within {_STARTS_WITHIN_S} s; its last words are in {log}")


def unpacked(archive: Path, sha256: str, folder: Path) -> Path:
    """The archive's tree below `folder`, unpacked once."""
    from k3s_daas.image import cpio  # here, as above

    tree = folder / sha256[:16]
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", f"the trees in {folder}"):
        if tree.is_dir():
            return tree
        for old in folder.iterdir():  # of other images; one that runs holds its own
            if old.is_dir():
                remove_tree(old)
        building = folder / "building"
        building.mkdir()
        with gzip.open(archive) as content:
            for entry in cpio.read(content):
                path = building / entry.path
                if stat.S_ISDIR(entry.mode):
                    path.mkdir()
                elif stat.S_ISLNK(entry.mode):
                    path.symlink_to(entry.content().read().decode())
                elif stat.S_ISREG(entry.mode):
                    path.write_bytes(entry.content().read())
                else:
                    os.mknod(path, entry.mode, os.makedev(*entry.device))
                os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
                if not stat.S_ISLNK(entry.mode):
                    path.chmod(stat.S_IMODE(entry.mode))
        building.rename(tree)
    return tree


def _start(master: Host, paths: host.Paths, tree: Path, parent: Path) -> subprocess.Popen[bytes]:
    for name in ("upper", "work", "root"):
        (paths.folder / name).mkdir(parents=True)
    layers = f"lowerdir={tree},upperdir={paths.folder / 'upper'},workdir={paths.folder / 'work'}"
    run("mount", "-t", "overlay", "-o", layers, master.fleet.tag, str(paths.root))
    write(paths.root / "sbin/testhosts-init", host.INIT, 0o755)
    arguments = ["--quiet", "--register=no", "--keep-unit", "--resolv-conf=off", "--link-journal=no"]
    arguments += ["--console=pipe", "--kill-signal=SIGRTMIN+3", f"--directory={paths.root}"]
    arguments += [f"--machine={master.machine}", f"--hostname={_NAME}", f"--bind={parent}:{PARENT}"]
    arguments += [f"--network-bridge={master.fleet.bridge}"]
    address = f"{master.address}/{master.fleet.subnet.prefixlen}"
    command = ["systemd-nspawn", *arguments, "/sbin/testhosts-init", address, str(master.fleet.gateway)]
    return launch(command, cgroups.create(master.cgroup), paths.console)


def entering(fleet: Fleet, address: str) -> list[str]:
    """What a command begins with to run in the enclave, as only this machine's root can; no parent could.

    Raises StageError.
    """
    group = fleet.host(_NAME, address).cgroup
    for pid in sorted(cgroups.processes(group)):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
            return ["nsenter", f"--target={pid}", "--all", "--"]
    raise StageError(f"found no systemd in {group}; wanted an enclave that runs")
