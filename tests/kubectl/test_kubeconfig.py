"""A kubeconfig without a secret, that never replaces somebody's file unasked."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import cli, kubeconfig, kubeconfig_command, seal, tokenfile
from k3s_daas.kubeconfig_command import Refused, check_token, trusted_server
from k3s_daas.registry import SealTokenRecord

OWNER = "0x" + "0a" * 32
SERVER = "https://10.0.0.1:6443"
OURS = kubeconfig.build(SERVER, b"pem", OWNER, command="/opt/k3s-daas", token_file=Path("/home/a/seal-token"))
THEIRS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://work:6443"}}],
    "users": [{"name": "me", "user": {"token": "theirs"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
    "preferences": {"colors": True},
}


def test_what_is_in_it() -> None:
    assert OURS["clusters"][0]["cluster"] == {
        "server": SERVER,
        "certificate-authority-data": base64.b64encode(b"pem").decode(),
    }
    assert OURS["contexts"][0]["context"]["namespace"] == "owner-" + "0a" * 20
    plugin = OURS["users"][0]["user"]["exec"]
    assert plugin["apiVersion"] == "client.authentication.k8s.io/v1"
    assert plugin["interactiveMode"] == "Never"
    assert [plugin["command"], *plugin["args"]] == [
        "/opt/k3s-daas",
        "credential",
        "--token-file",
        "/home/a/seal-token",
    ]


def test_a_new_file_is_its_owners_alone_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kubeconfig"
    assert kubeconfig.put(path, OURS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(path.read_text()) == OURS
    assert not kubeconfig.put(path, OURS)
    path.chmod(0o644)
    assert kubeconfig.put(path, OURS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["kubeconfig"]


def test_somebodys_file_is_never_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(THEIRS))
    with pytest.raises(kubeconfig.CantWrite, match=r"Use --merge to add to it, --force"):
        kubeconfig.put(path, OURS)
    assert yaml.safe_load(path.read_text()) == THEIRS
    assert kubeconfig.put(path, OURS, force=True)
    assert yaml.safe_load(path.read_text()) == OURS


def test_merged_everything_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(THEIRS))
    assert kubeconfig.put(path, OURS, merge=True)
    found = yaml.safe_load(path.read_text())
    assert found["current-context"] == "work"
    assert found["preferences"] == {"colors": True}
    for kind in ("clusters", "users", "contexts"):
        assert found[kind] == [*THEIRS[kind], *OURS[kind]]
    assert not kubeconfig.put(path, OURS, merge=True)
    newer = kubeconfig.build(SERVER, b"other pem", OWNER)
    assert kubeconfig.put(path, newer, merge=True)
    assert yaml.safe_load(path.read_text())["clusters"] == [*THEIRS["clusters"], *newer["clusters"]]


def test_merging_into_an_empty_or_missing_file_makes_it_current(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.touch()
    assert kubeconfig.put(path, OURS, merge=True)
    assert yaml.safe_load(path.read_text()) == OURS


def test_a_name_that_another_cluster_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig.build("https://10.0.0.9:6443", b"pem", OWNER)))
    before = path.read_text()
    with pytest.raises(kubeconfig.CantWrite, match="Choose another --name"):
        kubeconfig.put(path, OURS, merge=True)
    assert path.read_text() == before


@pytest.mark.parametrize("content", ["just text", "[1, 2]", "{", "clusters: 7", "users: [x]", "\x00"])
def test_what_is_no_kubeconfig_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(kubeconfig.CantWrite):
        kubeconfig.put(path, OURS, merge=True)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(kubeconfig.CantWrite, match=r"may write|no file"):
        kubeconfig.put(tmp_path / "file" / "kubeconfig", OURS)


names = st.text(alphabet="abc-", min_size=1, max_size=4)
entries = st.lists(st.fixed_dictionaries({"name": names}), max_size=4, unique_by=lambda e: e["name"])


@given(st.fixed_dictionaries({}, optional={"clusters": entries, "users": entries, "contexts": entries}))
def test_merging_loses_nothing(present: dict[str, Any]) -> None:
    before = copy.deepcopy(present)
    result = kubeconfig.merged(present, OURS, Path("x"))
    assert present == before
    for kind in ("clusters", "users", "contexts"):
        assert [entry for entry in result[kind] if entry != OURS[kind][0]] == before.get(kind, [])
        assert OURS[kind][0] in result[kind]
    assert kubeconfig.merged(result, OURS, Path("x")) == result


# -- what the chain says -------------------------------------------------------------------------------------


def record(token: str, **changes: Any) -> SealTokenRecord:
    content = {"scope": "owner", "node_id": "", "owner": OWNER, "commitment": seal.commitment(token)}
    content |= {"generation": 3, "issued_at_ms": 0, "expires_at_ms": 2_000, "revoked": False}
    return SealTokenRecord(**content | changes)  # type: ignore[arg-type]


def test_a_live_token_gives_a_note() -> None:
    token = seal.make()
    note = check_token(record(token), OWNER, token, 1_999)
    assert note == tokenfile.Note(OWNER, seal.commitment(token).hex(), 3, 2_000)


@pytest.mark.parametrize(
    ("changes", "now_ms", "said"),
    [
        ({"revoked": True}, 0, "is revoked, wanted a live one"),
        ({}, 2_000, "is expired, wanted a live one"),
        ({"commitment": bytes(32)}, 0, "another seal token than the chain knows"),
    ],
)
def test_other_tokens_do_not(changes: dict[str, Any], now_ms: int, said: str) -> None:
    token = seal.make()
    with pytest.raises(Refused, match=said) as refused:
        check_token(record(token, **changes), OWNER, token, now_ms)
    assert token[5:] not in str(refused.value)
    with pytest.raises(Refused, match=r"Run playbooks/kubectl\.yml"):
        check_token(None, OWNER, token, 0)


def test_without_an_announced_master_there_is_nothing_to_trust() -> None:
    class Nothing:
        master = None

    with pytest.raises(Refused, match="announced itself"):
        trusted_server(Nothing())  # type: ignore[arg-type]


@pytest.mark.parametrize("attested", [True, False])
def test_a_registry_that_takes_an_unproven_master_is_named_simulated(
    attested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = seal.make()
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "token").chmod(0o600)

    async def ask(*_: Any) -> tuple[SealTokenRecord, Any]:
        return record(token, expires_at_ms=2**62), SimpleNamespace(require_attestation=attested)

    monkeypatch.setattr(kubeconfig_command, "_ask", ask)
    monkeypatch.setattr(kubeconfig_command, "trusted_server", lambda *_: (SERVER, b"pem"))
    given = ["--network=localnet", "--endpoint=http://127.0.0.1:1", "--package-id=0x" + "1" * 64]
    given += ["--registry-id=0x" + "2" * 64, f"--owner={OWNER}", f"--token-file={tmp_path / 'token'}"]
    assert cli.main(["kubeconfig", *given, f"--out={tmp_path / 'kubeconfig'}"]) == 0
    assert ("SIMULATED" in capsys.readouterr().err) is not attested
