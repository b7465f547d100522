"""The root file system: Debian's packages, then everything of ours put over them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k3s_daas.image import apt, entries
from k3s_daas.image.entries import Entry, Tree
from k3s_daas.image.errors import ImageError
from k3s_daas.image.lock import Lock

#: Where environments of the daemons are in the tree, and the link to the one in use.
RUNTIME = "opt/k3s-daas"
_EMULATOR = "k3s_daas_localnet"
_OPTIONS = (
    "--variant=essential",
    "--format=tar",
    '--aptopt=Apt::Install-Recommends "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/bash-completion/*",
    "--dpkgopt=path-exclude=/usr/share/zoneinfo/*",
)
# Of the machine that builds, of the moment, or made anew at each start: folders are emptied, files left out.
_VOLATILE_FOLDERS = (
    "dev", "etc/apt", "proc", "run", "sys", "tmp", "var/cache", "var/lib/apt", "var/log", "var/tmp"
)  # fmt: skip
_VOLATILE_FILES = re.compile(
    r"etc/(hostname|resolv\.conf|machine-id|\.pwd\.lock|(passwd|group|shadow|gshadow|subuid|subgid)-)"
    r"|var/lib/dbus/machine-id|var/lib/systemd/(random-seed|credential\.secret)"
)


@dataclass(frozen=True)
class User:
    """A system user with a group of its name and number."""

    name: str
    number: int
    home: str


def base_key(lock: Lock, users: Sequence[User]) -> str:
    """Changes whenever what `base` makes does."""
    recipe = [lock.text(), _OPTIONS, [[user.name, user.number, user.home] for user in users]]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def base(lock: Lock, files: Sequence[Path], users: Sequence[User], cache: Path) -> Path:
    """Debian's tree of the lock's packages as a tar in `cache`; found there when it was made before.

    Needs root and mmdebstrap. A run that was killed leaves nothing mounted. Raises ImageError.
    """
    tar = cache / f"base-{base_key(lock, users)}.tar"
    if tar.exists():
        return tar
    work = cache / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    line = apt.repository(lock, files, work / "packages")
    known = "".join(f"u {user.name} {user.number} - {user.home}\n" for user in users)
    (work / "users").write_text(known)
    command = [
        *("unshare", "--mount", "--propagation", "private", "--"),
        "mmdebstrap",
        *_OPTIONS,
        f"--architectures={lock.architecture}",
        f"--include={','.join(lock.wanted)}",
        f'--customize-hook=chroot "$1" systemd-sysusers - < {work / "users"}',
        lock.suite,
        str(work / "base.tar"),
        line,
    ]
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": str(lock.source_date_epoch),
        "TMPDIR": str(work / "tmp"),
        "LC_ALL": "C.UTF-8",
    }
    # Who builds makes no difference.
    for name in [name for name in environment if name.startswith(("SUDO_", "XDG_", "PIP_", "ANSIBLE_"))]:
        del environment[name]
    try:
        done = subprocess.run(
            command, env=environment, umask=0o022, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise ImageError(
            f"Found no program {error.filename}; wanted mmdebstrap and util-linux. Run: apt-get install "
            "mmdebstrap"
        ) from None
    if done.returncode:
        raise ImageError(f"mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-3000:]}")
    (work / "base.tar").replace(tar)
    shutil.rmtree(work)
    return tar


def tree(tar: Path, wheelhouse: Path, name: str, python: str) -> Tree:
    """Debian's tree without what is volatile, with the daemons' environment of that name in it.

    `python`: major and minor version of the tree's own. Raises ImageError.
    """
    found = {path: entry for path, entry in entries.from_tar(tar).items() if not _is_volatile(path)}
    if f"usr/bin/python{python}" not in found:
        raise ImageError(
            f"Found no usr/bin/python{python} among the packages; wanted it: the daemons' environment is "
            "made for it. Correct enclave_image_python, or the list of packages and its lock."
        )
    environment = f"{RUNTIME}/{name}/env"
    entries.put(
        found,
        entries.text("etc/machine-id", ""),  # empty: made at each start, and no first boot
        entries.link(f"{RUNTIME}/venv", f"{name}/env"),
        entries.text(
            f"{environment}/pyvenv.cfg",
            f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n",
        ),
        entries.link(f"{environment}/bin/python3", f"/usr/bin/python{python}"),
        entries.link(f"{environment}/bin/python", "python3"),
        *_environment(wheelhouse, environment),
    )
    return found


def _environment(wheelhouse: Path, folder: str) -> list[Entry]:
    found = []
    for path, content, mode in entries.environment(wheelhouse):
        if _EMULATOR in path.split("/"):
            raise ImageError(
                f"Found {path} in the wheelhouse; wanted no {_EMULATOR} in an image: it emulates what an "
                "enclave proves itself with. Build the wheelhouse from the project's own requirements."
            )
        if path.startswith("bin/"):
            # Its programs' first line names the Python of the machine that built it.
            content = f"#!/{folder}/bin/python\n".encode() + content.partition(b"\n")[2]
        found.append(entries.text(f"{folder}/{path}", content, mode & 0o755))
    return found


def _is_volatile(path: str) -> bool:
    below = any(path.startswith(f"{folder}/") for folder in _VOLATILE_FOLDERS)
    return below or _VOLATILE_FILES.fullmatch(path) is not None


def boot(init: str, module: Path | None) -> list[Entry]:
    """The first ramdisk: the program that the kernel starts, and the security module's driver."""
    found = [
        entries.folder("dev"),
        entries.character_device("dev/console", 0o600, (5, 1)),
        entries.character_device("dev/null", 0o666, (1, 3)),
        entries.text("init", init, 0o755),
    ]
    return [*found, entries.copy("nsm.ko", module)] if module else found


def numbers(tree: Mapping[str, Entry]) -> dict[str, tuple[int, int]]:
    """User and group numbers by user name, of a tree's own passwd."""
    lines = tree["etc/passwd"].content().read().decode().splitlines()
    fields = (line.split(":") for line in lines)
    return {name: (int(uid), int(gid)) for name, _, uid, gid, *_ in fields}
