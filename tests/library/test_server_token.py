"""The copies of the server token, and what k3s' answers say of it. molecule/rotate asks a real k3s."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]
PASSWORD = "0123456789abcdef0123456789abcdef"  # noqa: S105 - what must not come back
TOKEN = f"K10{'a' * 64}::server:{PASSWORD}"


class K3s:
    """Stands in for http.client.HTTPSConnection; answers 405 to the password it knows, as k3s does."""

    def __init__(self) -> None:
        self.password, self.other, self.asked = PASSWORD, 0, []

    def __call__(self, host: str, port: int, **_: Any) -> K3s:
        assert (host, port) == ("127.0.0.1", 6443)
        return self

    def request(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.asked.append((method, path))
        given = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        self.status = self.other or (405 if given == f"server:{self.password}" else 401)

    def getresponse(self) -> K3s:
        return self


@pytest.fixture
def k3s(monkeypatch: pytest.MonkeyPatch) -> K3s:
    server = K3s()
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: None)
    monkeypatch.setattr(http.client, "HTTPSConnection", server)
    return server


@pytest.fixture
def run(run_module: Run, tmp_path: Path) -> Run:
    (tmp_path / "token").write_text(TOKEN + "\n")
    paths = {"path": str(tmp_path / "token"), "kept": str(tmp_path / "var" / "kept")}
    return lambda **given: run_module("k3s_server_token", **(paths | given))


def test_it_keeps_the_token_once_under_its_hash(run: Run, k3s: K3s, tmp_path: Path) -> None:
    first, again = run(), run()
    name = hashlib.sha256(TOKEN.encode()).hexdigest()[:12]
    assert [(one["changed"], one["id"], one["accepted"]) for one in (first, again)] == [
        (True, name, True),
        (False, name, True),
    ]
    (copy,) = (tmp_path / "var/kept").iterdir()
    assert (copy.name, copy.read_text()) == (name, TOKEN + "\n")
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert k3s.asked == [("GET", "/v1-k3s/token")] * 2, "a GET: nothing is changed by asking"
    assert PASSWORD not in json.dumps([first, again])


def test_the_next_token_is_kept_beside_it(run: Run, k3s: K3s, tmp_path: Path) -> None:
    old = run()["id"]
    (tmp_path / "token").write_text(TOKEN.replace(PASSWORD, "f" * 32) + "\n")
    after = run()
    assert {path.name for path in (tmp_path / "var/kept").iterdir()} == {old, after["id"]}
    assert after["accepted"] is False, "the server that runs knows the old one only"


def test_half_a_copy_of_a_killed_run_is_made_anew(run: Run, k3s: K3s, tmp_path: Path) -> None:
    name = run(check=True)["id"]
    folder = tmp_path / "var/kept"
    folder.mkdir(parents=True)
    (folder / f".{name}.new").write_text("K10")
    assert run()["changed"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: TOKEN + "\n"}


def test_check_mode_keeps_nothing(run: Run, k3s: K3s, tmp_path: Path) -> None:
    assert run(check=True)["changed"]
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("status", [200, 403, 404, 503])
def test_another_answer_is_no_answer(run: Run, k3s: K3s, tmp_path: Path, status: int) -> None:
    k3s.other = status
    refused = run()
    assert refused["failed"]
    assert f"status {status}" in refused["msg"]
    assert "Check that k3s listens there" in refused["msg"]
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("content", ["", "K10", PASSWORD, TOKEN.replace("K10", "K11"), TOKEN + " x", "\xff"])
def test_what_is_no_token_is_not_kept(run: Run, k3s: K3s, tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_bytes(content.encode("latin-1"))
    refused = run()
    assert refused["failed"]
    assert "wanted a token in the format K10HASH::USER:PASSWORD" in refused["msg"]
    assert PASSWORD not in refused["msg"]
    assert not (tmp_path / "var").exists()


def test_a_server_that_is_not_there_is_said(run: Run, tmp_path: Path) -> None:
    refused = run(ca=str(tmp_path / "none.crt"))
    assert refused["failed"]
    assert "Can't keep the server token" in refused["msg"]
    assert "journalctl -u k3s" in refused["msg"]
