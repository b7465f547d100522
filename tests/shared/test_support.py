"""The file for those who help: all of it there, whatever fails, and nothing secret in it."""

from __future__ import annotations

import argparse
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import support
from k3s_daas.support import Look

SECRET = "Zx9_secret-of-this-host"  # noqa: S105 - a canary
KEY = "c2VjcmV0LWtleS1oZXJl"


def bundle(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        files = [(entry.name.partition("/")[2], tar.extractfile(entry)) for entry in tar.getmembers()]
        return {name: file.read() for name, file in files if file is not None}


def shell(name: str, script: str, where: str = "/") -> Look:
    return Look(name, ("sh", "-c", script), where)


def test_every_look_is_in_it_with_how_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "LIMIT_S", 0.2)
    looks = [
        shell("good.txt", "echo said; echo complained >&2"),
        shell("bad.txt", "echo so far; exit 3"),
        shell("stuck.txt", "echo begun; exec tail -f /dev/null"),
        Look("missing.txt", (str(tmp_path / "no-such-program"),)),
        shell("elsewhere.txt", "echo never", where=str(tmp_path / "nothing")),
    ]
    support.write(tmp_path / "out.tar.gz", looks, frozenset())
    files = bundle(tmp_path / "out.tar.gz")
    index = {one["name"]: one for one in json.loads(files.pop("index.json"))}
    assert files == {
        "good.txt": b"said\ncomplained\n",
        "bad.txt": b"so far\n",
        "stuck.txt": b"begun\n",
        "missing.txt": b"",
    }
    assert {name: one["exit_code"] for name, one in index.items()} == {
        "good.txt": 0,
        "bad.txt": 3,
        "stuck.txt": None,
        "missing.txt": None,
    }
    assert index["stuck.txt"]["trouble"] == "ended after 0.2 s"
    assert "no-such-program" in index["missing.txt"]["trouble"]
    assert (tmp_path / "out.tar.gz").stat().st_mode & 0o777 == 0o600


def test_of_too_much_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "LIMIT_BYTES", 10)
    seen, kept = support.see(shell("long.txt", "echo 0123456789; echo the end"), frozenset())
    assert (kept, seen.cut, seen.bytes) == (b"9\nthe end\n", True, 10)


def test_what_this_host_keeps_secret_is_taken_out(tmp_path: Path) -> None:
    token, keys = tmp_path / "token", tmp_path / "encryption.json"
    token.write_text(f"K10{'ab' * 32}::server:{SECRET}\n")
    keys.write_text(json.dumps({"kind": "EncryptionConfiguration", "keys": [{"secret": KEY}]}))
    secrets = support.known_secrets([str(token), str(keys), str(tmp_path / "none")])
    said = f"EncryptionConfiguration {'ab' * 32} {SECRET} {KEY}"
    _, kept = support.see(shell("a", f"echo {said}"), secrets)
    assert kept.decode() == f"EncryptionConfiguration {'ab' * 32} [redacted] [redacted]\n"


@given(st.binary(max_size=60), st.binary(max_size=60), st.booleans())
def test_no_known_secret_and_no_token_gets_through(before: bytes, after: bytes, part: bool) -> None:
    longer = SECRET.encode() + b"-longer"
    secrets = frozenset({SECRET.encode(), longer})
    text = before + (SECRET.encode() if part else longer) + after + b"seal_" + b"Ab3-_xYz9" * 4
    shown = support.scrub(text, secrets)
    assert SECRET.encode() not in shown
    assert b"-longer" not in shown or b"-longer" in before + after
    assert b"Ab3-_xYz9Ab3" not in shown


def test_a_file_that_is_there_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    assert support.run(argparse.Namespace(out=tmp_path / "mine"), []) == 1
    assert "wanted a new file" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"
