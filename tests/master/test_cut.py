"""Cutting connections: by the kernel, and by a restart where the kernel can't."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from k3s_daas_master import cut
from k3s_daas_master.__main__ import main

ROW = "0      0      192.0.2.1:6443   192.0.2.2:40000\n"


class Commands:
    """ss and systemctl as a test says: `lists` are what ss shows, one after the other."""

    def __init__(self, *lists: str, fails: str = "") -> None:
        self._lists = list(lists)
        self._fails = fails
        self.ran: list[str] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(command))
        if self._fails and self._fails in self.ran[-1]:
            raise subprocess.CalledProcessError(1, command)
        if command[0] == "ss" and "--kill" not in command:
            return subprocess.CompletedProcess(command, 0, self._lists.pop(0))
        return subprocess.CompletedProcess(command, 0, "")


def test_the_kernel_closes_them() -> None:
    # One that comes in between is of somebody who was asked who it is.
    run = Commands(ROW, ROW.replace("40000", "50000"))
    assert cut.cut(6443, "k3s.service", run) == "1 connections closed"
    assert [line.split()[0] for line in run.ran] == ["ss"] * 3
    assert "--kill state established sport = :6443" in run.ran[1]


def test_where_it_cant_the_unit_is_restarted() -> None:
    run = Commands(ROW, ROW)
    assert "restarted (1 of 1 connections outlived" in cut.cut(6443, "k3s.service", run)
    assert run.ran[-1] == "systemctl restart k3s.service"


@pytest.mark.parametrize("error", ["ss", "--kill"])
def test_without_ss_too(error: str) -> None:
    run = Commands(ROW, fails=error)
    assert "k3s.service restarted (ss: " in cut.cut(6443, "k3s.service", run)


def test_when_nothing_works_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cut, "cut", lambda *_: (_ for _ in ()).throw(OSError("no systemctl")))
    assert main(["cut-connections", "--port", "6443", "--unit", "k3s.service"]) == 1
    assert "Restart k3s.service by hand" in capsys.readouterr().err


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0]:
            yield client, port


@pytest.mark.skipif(os.geteuid() != 0, reason="only root closes other processes' connections")
def test_a_connection_is_closed_indeed(connected: tuple[socket.socket, int]) -> None:
    client, port = connected
    said = cut.cut(port, "no-such-unit.service")
    assert said == "1 connections closed"
    client.settimeout(5)
    with pytest.raises(ConnectionError):
        client.recv(1)
