"""kubectl's credential plugin: a token from a file that is its owner's alone; no error shows a part of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from k3s_daas import seal, tokenfile
from k3s_daas.cli import main

OWNER = "0x" + "0a" * 32
DAY_MS = 86_400_000


@pytest.fixture
def token() -> str:
    return seal.make()


@pytest.fixture
def file(tmp_path: Path, token: str) -> Path:
    path = tmp_path / "seal-token"
    path.touch(0o600)
    path.write_text(token + "\n")
    return path


def note(path: Path, token: str, **changes: Any) -> None:
    content = {
        "owner": OWNER,
        "commitment": seal.commitment(token).hex(),
        "generation": 1,
        "expires_at_ms": time.time_ns() // 1_000_000 + DAY_MS,
    }
    tokenfile.note_path(path).write_text(json.dumps({**content, **changes}))


def credential(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["credential", "--token-file", str(path)]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (answer["apiVersion"], answer["kind"]) == (
        "client.authentication.k8s.io/v1",
        "ExecCredential",
    )
    return answer


def refusal(path: Path, capsys: pytest.CaptureFixture[str], token: str) -> str:
    assert main(["credential", "--token-file", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert token[5:] not in shown.err
    return shown.err


def test_it_prints_the_token(file: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert credential(file, capsys)["status"] == {"token": token}


def test_with_a_note_it_says_until_when(file: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(file, token, expires_at_ms=4_102_444_800_000)
    status = credential(file, capsys)["status"]
    assert status == {"token": token, "expirationTimestamp": "2100-01-01T00:00:00Z"}


def test_an_expired_token_is_not_sent(file: Path, token: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(file, token, expires_at_ms=1)
    assert "expired on 1970-01-01T00:00:00Z" in refusal(file, capsys, token)


@pytest.mark.parametrize("spoil", ["another token's", "garbage", "a list", "no number"])
def test_a_note_that_is_not_about_this_token_says_nothing(
    file: Path, token: str, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    if spoil == "another token's":
        note(file, seal.make(), expires_at_ms=1)
    elif spoil == "no number":
        note(file, token, expires_at_ms="soon")
    else:
        tokenfile.note_path(file).write_text("[1]" if spoil == "a list" else "{")
    assert credential(file, capsys)["status"] == {"token": token}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o700, 0o602])
def test_a_file_that_others_may_touch_is_refused(
    file: Path, token: str, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    file.chmod(mode)
    said = refusal(file, capsys, token)
    assert f"mode {mode:04o}, wanted 0600" in said
    assert "Rotate" in said


def test_what_is_no_token_file(
    file: Path, token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No such file" in refusal(tmp_path / "none", capsys, token)
    assert "Make one with playbooks/kubectl.yml" in refusal(tmp_path / "none", capsys, token)
    assert "no regular file" in refusal(tmp_path, capsys, token)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert "wanted" in refusal(link, capsys, token)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "no regular file" in refusal(pipe, capsys, token)
    for content in (
        b"",
        b"seal_short",
        token[:-1].encode() + b"!",
        b"\xff\xfe" * 24,
        b"\0" * 48,
        b"x" * 10_000,
    ):
        file.write_bytes(content)
        assert "can't be used" in refusal(file, capsys, token)


def test_another_users_file_is_refused(
    file: Path, token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert "owned by user" in refusal(file, capsys, token)


def test_another_version_of_the_protocol_is_refused(
    file: Path, token: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for info in ('{"apiVersion": "client.authentication.k8s.io/v1beta1"}', "[]", "{", '"x"'):
        monkeypatch.setenv("KUBERNETES_EXEC_INFO", info)
        assert "wanted client.authentication.k8s.io/v1" in refusal(file, capsys, token)
    monkeypatch.setenv("KUBERNETES_EXEC_INFO", '{"apiVersion": "client.authentication.k8s.io/v1"}')
    assert credential(file, capsys)["status"]["token"] == token


def test_it_loads_nothing_heavy(file: Path) -> None:
    code = (
        "import sys; from k3s_daas.cli import main; main(sys.argv[1:]); "
        "heavy = ('pysui', 'httpx', 'rich', 'pydantic', 'yaml'); "
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "credential", "--token-file", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"
