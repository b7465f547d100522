from __future__ import annotations

import ast
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s_daas import seal

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(run_module: Run, tmp_path: Path) -> Run:
    def seal_commitment(**arguments: Any) -> dict[str, Any]:
        return run_module(
            "seal_commitment", **{"node_id": "worker-1", "path": str(tmp_path / "seal")} | arguments
        )

    return seal_commitment


def test_makes_the_secret_once_and_returns_only_its_commitment(run: Run, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        result = run()
    finally:
        os.umask(old)
    path = tmp_path / "seal"
    token = seal.parse(path.read_text())  # the format everybody else reads
    assert result["changed"]
    assert result["commitment"] == seal.commitment(token).hex() == hashlib.sha256(token.encode()).hexdigest()
    assert (result["node_id"], result["path"]) == ("worker-1", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in json.dumps(result)
    assert token.removeprefix("seal_") not in json.dumps(result)
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal"]
    again = run()
    assert not again["changed"]
    assert again["commitment"] == result["commitment"]
    assert path.read_text() == token + "\n"


def test_each_secret_is_another(run: Run, tmp_path: Path) -> None:
    assert run()["commitment"] != run(path=str(tmp_path / "other"))["commitment"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_makes_the_folder_for_others_to_look_into(run: Run, tmp_path: Path, umask: int) -> None:
    path = tmp_path / "etc" / "k3s-daas" / "seal-token"
    old = os.umask(umask)
    try:
        assert run(path=str(path))["changed"]
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_leaves_a_folder_that_is_there_as_it_is(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    run()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_check_mode_predicts_and_makes_nothing(run: Run, tmp_path: Path) -> None:
    result = run(check=True)
    assert (result["changed"], result["commitment"]) == (True, "")
    assert result["diff"]["before"] == {"live": "absent", "next": "absent"}
    assert result["diff"]["after"] == {"live": "present, 0600", "next": "absent"}
    assert list(tmp_path.iterdir()) == []
    made = run()
    predicted = run(check=True)
    assert (predicted["changed"], predicted["commitment"]) == (False, made["commitment"])


def test_absent_removes_it_for_good(run: Run, tmp_path: Path) -> None:
    assert not run(state="absent")["changed"]
    run()
    assert run(state="absent", check=True)["changed"]
    assert (tmp_path / "seal").exists()
    removed = run(state="absent")
    assert (removed["changed"], removed["commitment"]) == (True, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o700])
def test_refuses_a_secret_others_may_have_read(run: Run, tmp_path: Path, mode: int) -> None:
    run()
    path = tmp_path / "seal"
    path.chmod(mode)
    before = path.read_bytes()
    result = run()
    assert result["failed"]
    assert f"has mode {mode:04o}, wanted 0600" in result["msg"]
    assert path.read_bytes() == before
    assert before.decode().strip() not in json.dumps(result)


GOOD = "seal_" + "A" * 43


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        GOOD[:-1].encode(),
        GOOD.encode() + b"A",
        GOOD.encode() + b"\n\n",
        b" " + GOOD.encode(),
        b"\xff" * 48,
        b"seal-" + b"A" * 43,
        b"seal_" + b"A" * 42 + b"B",  # spells the same 32 bytes as 43 A
        b"seal_" + b"A" * 42 + b"+",
        b"canary-0123456789",
    ],
)
def test_refuses_what_is_no_secret_and_does_not_show_it(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "seal"
    path.write_bytes(content)
    path.chmod(0o600)
    for check in (False, True):
        result = run(check=check)
        assert result["failed"]
        assert f"holds {len(content)} bytes that are no seal token" in result["msg"]
        assert len(content) < 3 or content.decode("latin1").strip() not in result["msg"]
    assert path.read_bytes() == content


def test_reads_a_secret_without_the_last_newline(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "seal"
    path.write_text(GOOD)
    path.chmod(0o600)
    assert run()["commitment"] == hashlib.sha256(GOOD.encode()).hexdigest()


def test_refuses_what_is_no_regular_file(run: Run, tmp_path: Path) -> None:
    path, real = tmp_path / "seal", tmp_path / "real"
    run(path=str(real))
    path.symlink_to(real)
    assert "can't be opened" in run()["msg"]
    path.unlink()
    path.mkdir()
    assert "no regular file" in run()["msg"]
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert "no regular file" in run()["msg"]  # and didn't wait for a writer


def test_refuses_a_secret_of_another_user(
    run: Run, tmp_path: Path, seal_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    owner = os.geteuid()
    monkeypatch.setattr(seal_files.os, "geteuid", lambda: owner + 1)
    assert f"belongs to user {owner}, wanted {owner + 1}" in run()["msg"]


def test_a_run_killed_while_writing_leaves_nothing_that_matters(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".seal.new").write_text("half")
    result = run()
    assert result["changed"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal"]


def test_never_replaces_a_secret_that_appeared_meanwhile(
    run: Run, tmp_path: Path, seal_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = seal_files.write_token

    def somebody_is_faster(path: Path, token: str) -> None:
        path.write_text(GOOD + "\n")
        path.chmod(0o600)
        write(path, token)

    monkeypatch.setattr(seal_files, "write_token", somebody_is_faster)
    assert run()["commitment"] == hashlib.sha256(GOOD.encode()).hexdigest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal"]


@pytest.mark.parametrize(
    "node_id", ["", "Worker", "a_b", "ansible_host", "-a", "a-", "a" * 64, "a" * 253, "nødé", "a.b", "a\n"]
)
def test_refuses_bad_node_ids_before_anything_is_made(run: Run, tmp_path: Path, node_id: str) -> None:
    result = run(node_id=node_id)
    assert result["failed"]
    assert "RFC 1123" in result["msg"]
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_relative_path_and_a_folder_that_is_a_file(run: Run, tmp_path: Path) -> None:
    assert "wanted an absolute path" in run(path="seal")["msg"]
    (tmp_path / "file").touch()
    assert "Not a directory" in run(path=str(tmp_path / "file" / "seal"))["msg"]


def test_next_waits_beside_the_live_one_until_it_is_promoted(run: Run, tmp_path: Path) -> None:
    live = run()
    assert live["next_commitment"] == ""
    planned = run(state="next", check=True)
    assert (planned["changed"], planned["commitment"], planned["next_commitment"]) == (True, "", "")
    assert not (tmp_path / "seal.next").exists()
    made = run(state="next")
    assert made["changed"]
    assert made["commitment"] == made["next_commitment"] != live["commitment"]
    assert made["diff"] == planned["diff"]
    assert stat.S_IMODE((tmp_path / "seal.next").stat().st_mode) == 0o600
    secret = (tmp_path / "seal.next").read_text()
    again = run(state="next")  # of a run that was killed: the same secret, not another
    assert (again["changed"], again["commitment"]) == (False, made["commitment"])
    kept = run()
    assert (kept["changed"], kept["commitment"]) == (False, live["commitment"])
    assert kept["next_commitment"] == made["commitment"]
    assert run(state="promoted", commitment=made["commitment"], check=True)["changed"]
    assert (tmp_path / "seal.next").exists()
    done = run(state="promoted", commitment=made["commitment"])
    assert (done["changed"], done["commitment"], done["next_commitment"]) == (True, made["commitment"], "")
    assert done["diff"]["after"] == {"live": "present, 0600", "next": "absent"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal"]
    assert (tmp_path / "seal").read_text() == secret
    twice = run(state="promoted", commitment=made["commitment"])
    assert (twice["changed"], twice["commitment"]) == (False, made["commitment"])


def test_promotes_only_what_the_chain_knows(run: Run, tmp_path: Path) -> None:
    live, waiting = run(), run(state="next")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(state="promoted", commitment="ab" * 32)
    assert result["failed"]
    assert f"seal.next has {waiting['commitment']}" in result["msg"]
    assert "Nothing was renamed" in result["msg"]
    # The chain still knows the live one: the waiting one has to stay for the rotation to be finished.
    assert not run(state="promoted", commitment=live["commitment"])["changed"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for wrong in (GOOD, "AB" * 32, ""):
        result = run(state="promoted", commitment=wrong)
        assert "wanted the 64 hex digits" in result["msg"]
        assert GOOD not in json.dumps(result)
    (tmp_path / "seal.next").unlink()
    assert "seal.next has none" in run(state="promoted", commitment=waiting["commitment"])["msg"]
    assert "commitment" in run(state="promoted", commitment=None)["msg"]
    planned = run(state="promoted", commitment="", check=True)  # of a secret that isn't made yet
    assert (planned["changed"], planned["commitment"]) == (True, "")


def test_next_serves_a_host_that_lost_its_secret(run: Run, tmp_path: Path) -> None:
    made = run(state="next")
    run(state="promoted", commitment=made["commitment"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["seal"]


def test_refuses_a_next_secret_others_may_have_read(run: Run, tmp_path: Path) -> None:
    made = run(state="next")
    (tmp_path / "seal.next").chmod(0o644)
    for state in ("next", "present", "promoted"):
        assert "seal.next has mode 0644" in run(state=state, commitment=made["commitment"])["msg"]


def test_absent_removes_what_a_rotation_left_too(run: Run, tmp_path: Path) -> None:
    run()
    run(state="next")
    (tmp_path / ".seal.next.new").write_text("half")
    assert run(state="absent")["changed"]
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text(max_size=60) | st.from_regex(r"seal_[A-Za-z0-9_-]{43}", fullmatch=True))
def test_reads_exactly_what_everybody_else_reads(seal_files: Any, text: str) -> None:
    """The module has no access to k3s_daas.seal on a worker; the two must not drift apart."""
    found = seal_files.parse_token(text.encode())
    try:
        wanted = seal.parse(text) if text == text.strip() else None
    except seal.InvalidSealToken:
        wanted = None
    assert found == wanted or (wanted is None and text.endswith("\n") and found == text[:-1])


@pytest.mark.parametrize("name", ["library/seal_commitment.py", "module_utils/k3s_daas_seal.py"])
def test_needs_only_the_standard_library_of_python_3_9(repository: Path, name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((repository / name).read_text(), feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"ansible"}


def test_runs_under_ansible_itself(tmp_path: Path, repository: Path) -> None:
    """With the real machinery round it, `-vvv` and no_log checks included: the secret is in no output."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "ansible"), "localhost", "-vvv", "-m", "seal_commitment"),
            *("-a", f"node_id=worker-1 path={tmp_path}/seal"),
        ],
        cwd=repository,
        env=os.environ | {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_NOCOLOR": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    token = (tmp_path / "seal").read_text().strip()
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashlib.sha256(token.encode()).hexdigest() in done.stdout
    assert token.removeprefix("seal_") not in done.stdout + done.stderr
    assert "no_log" not in done.stderr
