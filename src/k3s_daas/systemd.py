"""The two sentences a service says to systemd: "I am ready" and "I am alive".

The protocol is sd_notify(3): datagrams of `KEY=VALUE` lines to the unix socket named in NOTIFY_SOCKET.
Everything here does nothing when the process was not started by systemd.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable


def notify(*assignments: str) -> bool:
    """Send `KEY=VALUE` assignments to systemd; True when they were handed over.

    Never raises: a service that can't reach its manager still has to do its work.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            # A full receive queue must not stop the service's event loop.
            channel.setblocking(False)
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


def ready(status: str = "") -> bool:
    """Say that start-up is complete (`Type=notify` units wait for this)."""
    return notify("READY=1", *([f"STATUS={_one_line(status)}"] if status else []))


def status(text: str) -> bool:
    """Set the line that `systemctl status` shows."""
    return notify(f"STATUS={_one_line(text)}")


def stopping(text: str = "") -> bool:
    """Say that the service is shutting down on purpose."""
    return notify("STOPPING=1", *([f"STATUS={_one_line(text)}"] if text else []))


def watchdog_interval() -> float | None:
    """Seconds between two signs of life (half of WatchdogSec), or None when no watchdog watches us."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    pid = os.environ.get("WATCHDOG_PID", "")
    if usec <= 0 or (pid and pid != str(os.getpid())):
        return None
    return usec / 2_000_000


async def watchdog(alive: Callable[[], bool]) -> None:
    """Send WATCHDOG=1 for as long as `alive()` is true; returns at once when no watchdog watches us.

    When `alive()` turns false nothing is sent, and systemd restarts the service.
    """
    interval = watchdog_interval()
    if interval is None:
        return
    while True:
        if alive():
            notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _one_line(text: str) -> str:
    return " ".join(text.split())
