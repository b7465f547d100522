"""Cutting what a removed node has open: watches, exec sessions, k3s' tunnel.

The API server asks about each new request, and never again about one that is under way. So when a node is
taken out, every connection to the API server is closed, everybody's: nothing on a connection says whose it is
but what its holder says. Agents and kubectl connect again by themselves, and a watch goes on where it was.

The service can't do that itself. It leaves a file, whose path unit starts the root oneshot that does
(`k3s-daas-master cut-connections`); nothing that the file says reaches that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from k3s_daas.logs import get_logger

REQUEST_NAME = "cut-connections"
_TIMEOUT_S = 30.0
_log = get_logger("k3s_daas_master.cut")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class CutRequest:
    """Asks root to cut every connection."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / REQUEST_NAME

    def ask(self, node_ids: Collection[str], now_ms: int) -> None:
        """Because these were removed. Raises OSError."""
        draft = self._path.with_name(f".{self._path.name}")
        draft.write_text(json.dumps({"because_removed": sorted(node_ids), "at_ms": now_ms}) + "\n")
        draft.replace(self._path)
        _log.info("connections are cut", because_removed=sorted(node_ids))


def cut(port: int, unit: str, run: Run = subprocess.run) -> str:
    """Close every established connection to `port` (TCP), and say how.

    By the kernel (CONFIG_INET_DIAG_DESTROY); where it can't, by restarting `unit`. Raises
    subprocess.SubprocessError and OSError when the restart fails.
    """
    try:
        before = _established(port, run)
        _ss(run, "--kill", port=port)
        left = before & _established(port, run)
        if not left:
            return f"{len(before)} connections closed"
        why = f"{len(left)} of {len(before)} connections outlived ss --kill"
    except (OSError, subprocess.SubprocessError) as error:
        why = f"ss: {error}"
    run(["systemctl", "restart", unit], check=True, timeout=_TIMEOUT_S * 6)
    return f"{unit} restarted ({why})"


def main(port: int, unit: str) -> int:
    try:
        print(cut(port, unit))
    except (OSError, subprocess.SubprocessError) as error:
        print(
            f"Connections to port {port} may still be open: {error}. Restart {unit} by hand.", file=sys.stderr
        )
        return 1
    return 0


def _established(port: int, run: Run) -> set[str]:
    """Local and remote address of each, as ss prints them."""
    lines = _ss(run, port=port).splitlines()
    return {" ".join(line.split()[-2:]) for line in lines if line.strip()}


def _ss(run: Run, *options: str, port: int) -> str:
    chosen = ["state", "established", "sport", "=", f":{port}"]
    command = ["ss", "--no-header", "--tcp", "--numeric", *options, *chosen]
    done = run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    return str(done.stdout)
