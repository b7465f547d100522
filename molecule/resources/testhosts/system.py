"""Running programs, telling progress, waiting, writing files."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testhosts.errors import HostsError

# Debian packages this machine needs, and the program that tells whether each is there.
MACHINE_PACKAGES = {
    "iproute2": "ip",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "openssh-client": "ssh",
    "systemd": "journalctl",
    "systemd-container": "systemd-nspawn",
}
RUN_DIR = Path("/run/testhosts")
_started = time.monotonic()


def progress(text: str) -> None:
    """One line on stderr, with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.1f}s] {text}", file=sys.stderr, flush=True)


def check_root() -> None:
    """Raise HostsError unless we are root; also look where root's programs are, which sudo may leave out."""
    if os.geteuid() != 0:
        raise HostsError(f"found user id {os.geteuid()}, wanted 0: hosts need root; run it with sudo")
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def missing_packages() -> list[str]:
    return [package for package, program in MACHINE_PACKAGES.items() if not shutil.which(program)]


def check_machine() -> None:
    """Raise HostsError unless we are root and every program is there."""
    check_root()
    if missing := missing_packages():
        raise HostsError(
            f"programs of {', '.join(missing)} are not installed; run: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program and collect its output; raises HostsError with its stderr when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise HostsError(
            f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or 'no message'}"
        )
    return done


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Poll; False when `timeout_s` passed without the condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step, so that a killed run leaves the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask says
        file.write(text)
    temporary.replace(path)


def remove_tree(path: Path) -> None:
    """rm -rf that never leaves the file system, should something still be mounted below."""
    run("rm", "-rf", "--one-file-system", "--", str(path))


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that the kernel drops when we die, and that programs we start don't inherit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another run that works on {what}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def launch(
    command: Sequence[str], cgroups: Sequence[Path], log: Path, env: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program that is in `cgroups` before its first instruction, in a session of its own.

    It outlives us. Only /bin/sh's exec keeps that order without running Python between fork and exec, which
    isn't safe beside threads. Should a sweep remove the cgroups meanwhile, the program does not start.
    """
    script = 'set -e; until [ "$1" = -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *map(str, cgroups), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | (env or {}),
        )
