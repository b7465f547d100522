"""The keys of Secrets at rest: made once, rotated in steps, never lost, killed anywhere."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def keys(ansible_module: Callable[[str], ModuleType]) -> ModuleType:
    """module_utils/k3s_daas_encryption.py, as the module uses it."""
    ansible_module("k3s_encryption")
    return sys.modules["ansible.module_utils.k3s_daas_encryption"]


@pytest.fixture
def run(run_module: Run, tmp_path: Path) -> Run:
    def k3s_encryption(state: str = "present", **arguments: Any) -> dict[str, Any]:
        paths = {"path": "etc/encryption.json", "datastore": "db"}
        own = {name: str(tmp_path / path) for name, path in paths.items()}
        return run_module("k3s_encryption", state=state, **(own | arguments))

    return k3s_encryption


@pytest.fixture(autouse=True)
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that says what this file holds, of a unit that never ran unless a test writes it."""
    answer = tmp_path / "bin" / "answer"
    answer.parent.mkdir()
    answer.write_text("\n")
    program = answer.with_name("systemctl")
    program.write_text(f"#!/bin/sh\ncat {answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return answer


def config(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "etc/encryption.json").read_text())


def secrets_of(tmp_path: Path) -> list[str]:
    providers = config(tmp_path)["resources"][0]["providers"]
    return [key["secret"] for one in providers if "aesgcm" in one for key in one["aesgcm"]["keys"]]


def names(result: dict[str, Any]) -> list[str]:
    """As key-1, key-2, without the day they were made."""
    assert not result["failed"], result["msg"]
    return [name.rpartition("-")[0] if name.startswith("key-") else name for name in result["names"]]


def test_a_new_cluster_has_one_key_and_no_plaintext(run: Run, tmp_path: Path) -> None:
    made = run()
    assert made["changed"]
    assert names(made) == ["key-1"]
    path = tmp_path / "etc/encryption.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    found = config(tmp_path)
    assert found["kind"] == "EncryptionConfiguration"
    assert found["apiVersion"] == "apiserver.config.k8s.io/v1"
    (resource,) = found["resources"]
    assert resource["resources"] == ["secrets"]
    ((kind, provider),) = resource["providers"][0].items()
    assert kind == "aesgcm"
    (key,) = provider["keys"]
    assert len(base64.b64decode(key["secret"], validate=True)) == 32
    assert key["secret"] not in json.dumps(made)
    again = run()
    assert (again["changed"], again["names"], config(tmp_path)) == (False, made["names"], found)


def test_a_cluster_that_ran_without_is_taken_over_step_by_step(run: Run, tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    assert names(run()) == ["identity", "key-1"]
    assert [list(one) for one in config(tmp_path)["resources"][0]["providers"]] == [["identity"], ["aesgcm"]]
    assert names(run("reader")) == ["identity", "key-1"]  # no third one
    assert names(run("writer")) == ["key-1", "identity"]
    assert names(run("alone")) == ["key-1"]


def test_a_rotation_goes_on_where_it_was(run: Run, tmp_path: Path) -> None:
    run()
    (old,) = secrets_of(tmp_path)
    for state, there in [
        ("reader", ["key-1", "key-2"]),
        ("reader", ["key-1", "key-2"]),
        ("present", ["key-1", "key-2"]),
        ("writer", ["key-2", "key-1"]),
        ("writer", ["key-2", "key-1"]),
        ("reader", ["key-2", "key-1"]),
        ("alone", ["key-2"]),
    ]:
        assert names(run(state)) == there
    assert not run("alone")["changed"]
    (new,) = secrets_of(tmp_path)
    assert new != old
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["encryption.json"]
    assert stat.S_IMODE((tmp_path / "etc/encryption.json").stat().st_mode) == 0o600


def test_no_result_holds_a_key(run: Run, tmp_path: Path) -> None:
    said, secrets = "", set()
    for state in ("present", "reader", "writer", "alone"):
        said += json.dumps(run(state))
        secrets |= set(secrets_of(tmp_path))
    assert len(secrets) == 2
    assert [secret for secret in secrets if secret in said] == []


def test_check_mode_predicts_and_makes_nothing(run: Run, tmp_path: Path) -> None:
    planned = run(check=True)
    assert planned["changed"]
    assert not (tmp_path / "etc").exists()
    run()
    before = config(tmp_path)
    planned = run("reader", check=True)
    assert planned["changed"]
    assert names(planned) == ["key-1", "key-2"]
    for state in ("present", "writer", "alone"):  # of a rotation that is only planned
        assert not run(state, check=True)["changed"]
    assert config(tmp_path) == before


def test_the_old_key_stays_until_the_new_one_writes(run: Run, tmp_path: Path) -> None:
    run()
    run("reader")
    before = config(tmp_path)
    refused = run("alone")
    assert refused["failed"]
    assert "wanted every Secret rewritten with it before key-1-" in refused["msg"]
    assert config(tmp_path) == before


@pytest.mark.parametrize("state", ["reader", "writer", "alone"])
def test_there_must_be_a_key_to_rotate(run: Run, tmp_path: Path, state: str) -> None:
    refused = run(state)
    assert refused["failed"]
    assert "Run playbooks/master.yml" in refused["msg"]
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "kind: EncryptionConfiguration",
        "[]",
        '{"resources": []}',
        '{"resources": [{"providers": [{"identity": {}}]}]}',
        '{"resources": [{"providers": [{"aesgcm": {"keys": [{"name": "key-1-20260101", "secret": ""}]}}]}]}',
    ],
)
def test_what_others_wrote_is_left_alone(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "etc/encryption.json"
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(0o600)
    for state in ("present", "reader", "writer", "alone"):
        refused = run(state)
        assert refused["failed"]
        assert "that this module didn't write" in refused["msg"]
    assert path.read_text() == content


def test_another_provider_beside_the_key_is_left_alone(run: Run, tmp_path: Path) -> None:
    run()
    changed = config(tmp_path)
    changed["resources"][0]["resources"].append("configmaps")
    path = tmp_path / "etc/encryption.json"
    path.write_text(json.dumps(changed))
    assert "that this module didn't write" in run("reader")["msg"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700])
def test_a_key_that_others_may_have_read_is_not_used(run: Run, tmp_path: Path, mode: int) -> None:
    run()
    path = tmp_path / "etc/encryption.json"
    path.chmod(mode)
    refused = run("reader")
    assert refused["failed"]
    assert f"with mode {mode:04o}" in refused["msg"]
    secret = json.loads(path.read_text())["resources"][0]["providers"][0]["aesgcm"]["keys"][0]["secret"]
    assert secret not in json.dumps(refused)


def test_a_link_in_its_place_is_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/encryption.json").symlink_to(tmp_path / "elsewhere")
    refused = run()
    assert refused["failed"]
    assert "Check folder and disk" in refused["msg"]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("started", "unread"),
    [
        ("", False),
        ("n/a", False),
        ("Thu 2020-01-02 03:04:05.678901 UTC", True),
        ("Don 2020-01-02 03:04:05.678901 UTC", True),
        ("Thu 2099-01-01 00:00:00.000000 UTC", False),
    ],
)
def test_it_tells_whether_the_server_runs_with_it(
    run: Run, systemctl: Path, started: str, unread: bool
) -> None:
    systemctl.write_text(started + "\n")
    assert run()["unread"] is unread


def test_nobody_reads_what_is_only_planned(run: Run, systemctl: Path) -> None:
    systemctl.write_text("Thu 2020-01-02 03:04:05.678901 UTC\n")
    assert run(check=True)["unread"] is False


def test_a_systemctl_that_fails_is_said(run: Run, systemctl: Path) -> None:
    systemctl.with_name("systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    assert "no bus" in run()["msg"]


STEPS = ["reader", "restart", "writer", "restart", "rewrite", "alone", "restart"]


@settings(max_examples=300, deadline=None)
@given(
    # Several masters without a kill, which show the order; or one, killed any number of times.
    masters_and_kills=st.one_of(
        st.tuples(st.integers(2, 3), st.just([])),
        # How many moves each run gets to make before it is killed.
        st.tuples(st.just(1), st.lists(st.integers(0, 7), max_size=6)),
    ),
    encrypted=st.booleans(),
    # After which move somebody writes a Secret, and through which master.
    writes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), max_size=10),
)
def test_every_server_can_read_every_secret_at_all_times(
    keys: ModuleType,
    masters_and_kills: tuple[int, list[int]],
    encrypted: bool,
    writes: list[tuple[int, int]],
) -> None:
    """The steps of the role, each on all masters before the next, and of a killed run again."""
    masters, kills = masters_and_kills
    first = keys.advance([], "present", has_data=not encrypted)
    files = [first] * masters  # the same key on all, however it came there
    loaded = [first] * masters
    second = None
    stored = dict.fromkeys("abc", first[0][0])
    moves = 0

    def one_move() -> None:
        nonlocal moves
        for when, server in writes:
            if when == moves:
                stored[f"written {when}"] = loaded[server % masters][0][0]
        moves += 1
        for server in loaded:
            assert set(stored.values()) <= {name for name, _ in server}

    def play(budget: int) -> None:
        nonlocal second
        for step in STEPS:
            for place in range(masters) if step != "rewrite" else [0]:
                if budget == 0:
                    return
                budget -= 1
                if step == "restart":
                    loaded[place] = files[place]
                elif step == "rewrite":
                    stored.update(dict.fromkeys(stored, loaded[place][0][0]))
                else:
                    before = files[place]
                    files[place] = keys.advance(before, step, has_data=True)
                    if step == "reader" and files[place] != before:
                        second = second or files[place][1]
                        files[place] = [before[0], second]
                one_move()

    for budget in kills:
        play(budget)
        if len(files[0]) == 1 and files[0] != first:
            break  # done but for a restart; the next run would begin another rotation
    else:
        play(1000)
    assert [len(file) for file in files] == [1] * masters
    assert set(stored.values()) == {files[0][0][0]} != {first[0][0]}


def test_only_the_standard_library(repository: Path) -> None:
    """What runs on the host is found there: it is imported by the host's own Python, isolated from ours."""
    code = (
        "import sys, types, importlib.util\n"
        "basic = types.ModuleType('ansible.module_utils.basic'); basic.AnsibleModule = object\n"
        "sys.modules.update({'ansible': types.ModuleType('ansible'), "
        "'ansible.module_utils': types.ModuleType('ansible.module_utils'), basic.__name__: basic})\n"
        "for name, path in (arg.split('=') for arg in sys.argv[1:]):\n"
        "    spec = importlib.util.spec_from_file_location(name, path)\n"
        "    sys.modules[name] = module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
    )
    parts = {
        "ansible.module_utils.k3s_daas_seal": "module_utils/k3s_daas_seal.py",
        "ansible.module_utils.k3s_daas_encryption": "module_utils/k3s_daas_encryption.py",
        "k3s_encryption": "library/k3s_encryption.py",
        "k3s_secrets": "library/k3s_secrets.py",
        "k3s_server_token": "library/k3s_server_token.py",
    }
    given = [f"{name}={repository / path}" for name, path in parts.items()]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
