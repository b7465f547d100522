"""One host: its files, its start, and whether it is well."""

import json
import shutil
import socket
import subprocess
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from testhosts import cgroups, mounts, network
from testhosts.errors import HostsError
from testhosts.names import Host
from testhosts.system import launch, remove_tree, run, wait_until, write

# PID 1 of a host until it hands over to systemd. systemd-nspawn mounts the cgroup v1 hierarchies read-only;
# left so, systemd starts services without their limits and says nothing. `bind` makes the remount one of
# this mount alone. A cgroup v2 mount is writable already.
INIT = """\
#!/bin/sh
ip link set lo up
ip address add "$1" dev host0
ip link set host0 up
ip route add default via "$2"
while read -r _ target kind _; do
  [ "$kind" = cgroup ] && mount -o remount,bind,rw,nosuid,nodev,noexec "$target"
done < /proc/mounts
exec /lib/systemd/systemd
"""
# Where k3s keeps what is made of overlay mounts itself, or is big: overlay on overlay fails.
_REAL_FOLDERS = ("/var/lib/rancher", "/var/lib/kubelet")
_NSPAWN_RUN = Path("/run/systemd/nspawn")


@dataclass(frozen=True)
class Record:
    """host.json of a host that started completely."""

    name: str
    address: str
    image: str
    kubernetes: bool
    host_key: str


@dataclass(frozen=True)
class Paths:
    """Where a host's files are."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def shared(self) -> Path:
        """A folder that all hosts of the fleet have as /srv/shared, where somebody made it."""
        return self.folder.parents[1] / "shared"

    @property
    def record(self) -> Path:
        return self.folder / "host.json"

    def read_record(self) -> Record | None:
        try:
            return Record(**json.loads(self.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def journal(self) -> str:
        """The host's journal, also of one that no longer runs or never finished its start."""
        # The layer holds it whether or not the root is mounted.
        folder = self.folder / "upper/var/log/journal"
        done = run("journalctl", "--no-pager", "--output=short-iso", "--directory", str(folder), check=False)
        return done.stdout or f"no journal: {done.stderr}"


class Starting:
    """A host on its way up."""

    def __init__(self, host: Host, paths: Paths, process: "subprocess.Popen[bytes]", record: Record) -> None:
        self.host = host
        self.paths = paths
        self.record = record
        self._process = process

    def wait_for_ssh(self, timeout_s: float) -> None:
        """Until sshd greets; raises HostsError with the console's end."""
        reached = wait_until(lambda: self._process.poll() is not None or _ssh_greets(self.host), timeout_s)
        if self._process.poll() is not None:
            raise self.failed(f"systemd-nspawn ended with exit {self._process.returncode}")
        if not reached:
            raise self.failed(f"no answer from ssh on {self.host.address} within {timeout_s:.0f} s")

    def failed(self, reason: str) -> HostsError:
        tail = "\n  ".join(self.paths.console.read_text(errors="replace").splitlines()[-12:])
        return HostsError(
            f"{self.host.name}: {reason}; `logs DIR` saves its journal; "
            f"the end of {self.paths.console}:\n  {tail}"
        )

    def finish(self) -> None:
        """Note that the start is complete: from now on the host is left alone."""
        write(self.paths.record, json.dumps(asdict(self.record)), 0o600)


def _ssh_greets(host: Host) -> bool:
    try:
        with socket.create_connection((str(host.address), 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def is_well(host: Host, paths: Paths) -> bool:
    """Whether a completely started host has all it needs: its supervisor, its disk once, its cable."""
    comms = set()
    for pid in cgroups.processes(host.cgroup):
        try:
            comms.add(Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue
    roots = [mount for mount in mounts.current() if mount.target == paths.root]
    cable = network.interfaces().get(host.veth, {})
    return "systemd-nspawn" in comms and len(roots) == 1 and cable.get("master") == host.fleet.bridge


def start(
    host: Host, paths: Paths, image: Path, public_key: str, hosts_block: str, kubernetes: bool
) -> Starting:
    """Make the host's files and start it. What was there of it must have been removed before."""
    for folder in ("upper", "work", "root"):
        (paths.folder / folder).mkdir(parents=True)
    layers = f"lowerdir={image},upperdir={paths.folder / 'upper'},workdir={paths.folder / 'work'}"
    run("mount", "-t", "overlay", "-o", layers, host.fleet.tag, str(paths.root))
    host_key = _write_files(host, paths.root, public_key, hosts_block)
    arguments = ["--quiet", "--register=no", "--keep-unit", "--resolv-conf=off", "--link-journal=no"]
    arguments += ["--console=pipe", "--kill-signal=SIGRTMIN+3", f"--directory={paths.root}"]
    arguments += [
        f"--machine={host.machine}",
        f"--hostname={host.name}",
        f"--network-bridge={host.fleet.bridge}",
    ]
    if paths.shared.is_dir():
        arguments.append(f"--bind={paths.shared}:/srv/shared")
    environment = {}
    if kubernetes:
        arguments += kubernetes_arguments(paths.folder)
        environment["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "yes"
    address = f"{host.address}/{host.fleet.subnet.prefixlen}"
    command = ["systemd-nspawn", *arguments, "/sbin/testhosts-init", address, str(host.fleet.gateway)]
    process = launch(command, cgroups.create(host.cgroup), paths.console, environment)
    record = Record(host.name, str(host.address), image.name, kubernetes, host_key)
    return Starting(host, paths, process, record)


def kubernetes_arguments(folder: Path) -> list[str]:
    """What a kubelet with containerd and runc needs beyond what a host has."""
    arguments = ["--capability=all", "--system-call-filter=@keyring bpf @mount @module"]
    arguments += [f"--bind={device}" for device in ("/dev/kmsg", "/dev/fuse") if Path(device).exists()]
    if Path("/lib/modules").is_dir():
        arguments.append("--bind-ro=/lib/modules")
    for target in _REAL_FOLDERS:
        real = folder / "real" / target.strip("/").replace("/", "-")
        real.mkdir(parents=True, exist_ok=True)
        arguments.append(f"--bind={real}:{target}")
    return arguments


def remove(host_folder: Path) -> None:
    """Remove a host's files, and the mounts below them."""
    mounts.unmount(mounts.below(mounts.current(), host_folder))
    remove_tree(host_folder)


def remove_leftovers(machine: str) -> None:
    """Remove what systemd-nspawn leaves in /run of a machine when it is killed."""
    for kind in ("propagate", "unix-export"):
        shutil.rmtree(_NSPAWN_RUN / kind / machine, ignore_errors=True)


def remove_lock(root: Path) -> None:
    """Remove systemd-nspawn's lock of a root that is still mounted: it is named after its inode."""
    found = root.stat()
    (_NSPAWN_RUN / "locks" / f"inode-{found.st_dev}:{found.st_ino}").unlink(missing_ok=True)


def _write_files(host: Host, root: Path, public_key: str, hosts_block: str) -> str:
    """What makes this host different from the others; returns its public ssh key."""
    write(root / "etc/hostname", f"{host.name}\n")
    write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    write(root / "etc/hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{hosts_block}")
    write(
        root / "etc/resolv.conf",
        resolv_conf(_first_text("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf")),
    )
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():  # this machine may trust more than Debian does, such as a proxy's certificate
        write(root / "etc/ssl/certs/ca-certificates.crt", bundle.read_text())
    ssh = root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    write(ssh / "authorized_keys", public_key, 0o600)
    key = root / "etc/ssh/ssh_host_ed25519_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key))
    write(root / "sbin/testhosts-init", INIT, 0o755)
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def _first_text(*candidates: str) -> str:
    """Content of the first file that is there; systemd-resolved keeps the real resolv.conf aside."""
    for candidate in candidates:
        if Path(candidate).exists():
            return Path(candidate).read_text()
    return ""


def resolv_conf(text: str) -> str:
    """Without name servers on this machine's loopback, which a host can't reach."""
    lines = [line for line in text.splitlines() if not line.startswith(("nameserver 127.", "nameserver ::1"))]
    return "\n".join([*lines, ""])
