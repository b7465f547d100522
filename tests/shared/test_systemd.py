"""sd_notify against a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from k3s_daas import systemd


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    # Not tmp_path: a unix socket's path may be 107 bytes long at most.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = Path(folder) / "notify"
        sock.bind(str(path))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield sock


def test_ready_and_status(channel: socket.socket) -> None:
    assert systemd.ready("serving\n2 workers")
    assert channel.recv(4096) == b"READY=1\nSTATUS=serving 2 workers"


def test_stopping(channel: socket.socket) -> None:
    assert systemd.stopping()
    assert channel.recv(4096) == b"STOPPING=1"


def test_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"k3s-daas-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert systemd.status("x")
        assert sock.recv(4096) == b"STATUS=x"


@pytest.mark.parametrize("address", ["", "relative", "/nonexistent/notify"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"),
    [
        ("30000000", None, 15.0),
        ("30000000", "self", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, wanted: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert systemd.watchdog_interval() == wanted


async def test_watchdog_is_silent_when_not_alive(
    channel: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    answers = iter([True, False, False, True])
    done = asyncio.Event()

    def alive() -> bool:
        answer = next(answers, None)
        if answer is None:
            done.set()
        return bool(answer)

    task = asyncio.create_task(systemd.watchdog(alive))
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    channel.setblocking(False)
    received = 0
    while True:
        try:
            assert channel.recv(4096) == b"WATCHDOG=1"
        except BlockingIOError:
            break
        received += 1
    assert received == 2
