"""The root file system that all hosts start from: Debian 12, made by mmdebstrap once and then only read."""

import contextlib
import hashlib
import json
import subprocess
import time
from pathlib import Path

from testhosts import cgroups, mounts
from testhosts.errors import HostsError
from testhosts.names import PROGRAM
from testhosts.system import launch, locked, progress, remove_tree

SUITE = "bookworm"
PACKAGES = (
    # an init, and the way in
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "iproute2", "sudo"),
    # what Ansible's modules and the roles run on
    *(
        "python3",
        "python3-apt",
        "python3-cryptography",
        "python3-yaml",
        "ca-certificates",
        "openssl",
        "curl",
    ),
    # what roles and tests look with
    *("iptables", "nftables", "iputils-ping", "procps"),
)
# k3s brings containerd, runc and the network plug-ins itself, and calls these.
KUBERNETES_PACKAGES = ("conntrack", "ethtool", "ipset", "kmod", "mount", "socat")
_OPTIONS = (
    "--variant=minbase",
    '--aptopt=Apt::Install-Recommends "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
# Would hold apt's lock, or do something on a host that nobody asked for.
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "dpkg-db-backup.timer",
)
# Every host makes its own; a copy in the image would make them all alike.
_PER_HOST = (
    "etc/ssh/ssh_host_*",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
)


def packages(kubernetes: bool) -> tuple[str, ...]:
    return PACKAGES + (KUBERNETES_PACKAGES if kubernetes else ())


def key(kubernetes: bool) -> str:
    """Changes whenever what the image is made of does."""
    recipe = [SUITE, sorted(packages(kubernetes)), _OPTIONS, _MASKED, _PER_HOST]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def path(image_dir: Path, kubernetes: bool) -> Path:
    return image_dir / f"{SUITE}-{key(kubernetes)}"


def ensure(image_dir: Path, kubernetes: bool) -> Path:
    """The image's folder; made now when it isn't there yet. Several fleets may share `image_dir`.

    It appears under its name only when complete. A build that was killed is found by its cgroup, stopped,
    removed and started again.
    """
    image = path(image_dir, kubernetes)
    if image.is_dir():
        return image
    image_dir.mkdir(parents=True, exist_ok=True)
    with locked(image_dir / "lock", f"the image in {image_dir}"):
        if image.is_dir():
            return image
        cgroup = f"{PROGRAM}/image-{hashlib.sha256(str(image_dir).encode()).hexdigest()[:8]}"
        building = image_dir / f"{image.name}.building"
        _sweep(image_dir, cgroup)
        try:
            _build(building, packages(kubernetes), image_dir / f"{image.name}.log", cgroup)
        except BaseException:
            _sweep(image_dir, cgroup)
            raise
        cgroups.destroy(cgroup)
        cgroups.remove_parent()
        building.rename(image)
    return image


def _sweep(image_dir: Path, cgroup: str) -> None:
    cgroups.destroy(cgroup)
    for building in image_dir.glob("*.building"):
        progress(f"image: removing an unfinished build, {building.name}")
        mounts.unmount(mounts.below(mounts.current(), building))
        remove_tree(building)


def _build(building: Path, names: tuple[str, ...], log: Path, cgroup: str) -> None:
    progress(
        f"image: building Debian {SUITE} with {len(names)} packages in {building.parent} (about a minute)"
    )
    log.unlink(missing_ok=True)
    command = ["mmdebstrap", *_OPTIONS, f"--include={','.join(names)}", SUITE, str(building)]
    builder = launch(command, cgroups.create(cgroup), log)
    started = time.monotonic()
    while builder.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            builder.wait(timeout=10)
            break
        lines = log.read_text(errors="replace").splitlines() or ["no output yet"]
        progress(f"image: {lines[-1].strip()[:100]}")
    if builder.returncode != 0:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-8:])
        raise HostsError(f"mmdebstrap: exit {builder.returncode}; the whole log is {log}; its end:\n  {tail}")
    for pattern in _PER_HOST:
        for file in building.glob(pattern):
            file.unlink()
    for unit in _MASKED:
        mask = building / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    progress(f"image: built in {time.monotonic() - started:.0f} s")
