"""What the benchmarks of the services share: processes of their own, ports, memory, a certificate."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped at the end with its children; what it says goes to `log`.

    `environment` is added to ours.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when it ended by itself: its children may live on, and what is measured next would suffer.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


class Others:
    """What the machine does beside us while a block runs: processor time neither ours nor our children's.

    `percent` is of one core, known after the block.
    """

    percent = 0.0

    def __enter__(self) -> Others:
        self._began, self._beside = time.monotonic(), self._seconds()
        return self

    def __exit__(self, *_: object) -> None:
        took = time.monotonic() - self._began
        self.percent = max(0.0, 100 * (self._seconds() - self._beside) / took)

    @staticmethod
    def _seconds() -> float:
        machine = psutil.cpu_times()
        # Guests' time is in user's already.
        busy = machine.user + machine.nice + machine.system + machine.irq + machine.softirq + machine.steal
        us = psutil.Process()
        ours = 0.0
        for process in [us, *us.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                ours += times.user + times.system + times.children_user + times.children_system
        return float(busy - ours)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def peak_rss_mb(pid: int) -> int:
    """The most memory that a process ever had resident, in MB (2^20 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024)
    raise RuntimeError(f"process {pid} shows no VmHWM")


def forget_peak(pid: int) -> None:
    """From now on `peak_rss_mb` tells the most since now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1, for servers that nobody needs to trust."""
    certificate, key = folder / "server.crt", folder / "server.key"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=benchmark"
    command = ["openssl", *made.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key
