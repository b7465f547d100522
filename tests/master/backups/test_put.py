"""What a restore refuses, what it puts where, and what it doesn't go on with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.places import BackupError, Places
from k3s_daas_master.backups.put import check, finish, put
from k3s_daas_master.request_rows import RequestState, Scheduled
from k3s_daas_master.store import Store

NAME = "20261121T170000Z"


def wanted(backup: Path, **other: str) -> dict[str, str]:
    found = manifests.load(backup)
    given = {"registry_id": found.registry_id, "chain_id": "4c78adac", "ca_hash": found.ca_hash}
    return given | {"k3s_version": found.k3s_version} | other


def change(backup: Path, **values: object) -> None:
    path = backup / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"registry_id": "0x" + "dd" * 32}, f"is of registry {'0x' + 'bb' * 32}; wanted {'0x' + 'dd' * 32}"),
        ({"chain_id": "35834a8a"}, "is of chain 4c78adac; wanted 35834a8a"),
        ({"ca_hash": "ee" * 32}, f"wanted {'ee' * 32}, as on-chain"),
        ({"k3s_version": "v1.34.1+k3s9"}, "Found k3s v1.34.1.k3s9 installed"),
        ({"k3s_version": "v1.33.9+k3s1"}, "wanted that release or a newer one"),
        ({"k3s_version": "latest"}, "Found k3s version 'latest'"),
    ],
)
def test_another_cluster_or_an_older_k3s_is_refused(host, other: dict[str, str], words: str) -> None:
    backup = host.back_up()
    with pytest.raises(BackupError, match=words):
        check(backup, **wanted(backup, **other))


@pytest.mark.parametrize("version", ["v1.34.2+k3s1", "v1.34.2+k3s2", "v1.34.10+k3s1", "v1.35.0+k3s1"])
def test_the_same_or_a_newer_k3s_will_do(host, version: str) -> None:
    backup = host.back_up()
    assert check(backup, **wanted(backup, k3s_version=version)).name == backup.name


def test_before_a_master_announced_itself_there_is_no_ca_to_hold_it_against(host) -> None:
    backup = host.back_up()
    check(backup, **wanted(backup, ca_hash=""))


@pytest.mark.parametrize("name", ["datastore/state.db", "k3s/token", "master/sui.key", "etc/encryption.json"])
@pytest.mark.parametrize("how", ["changed", "missing", "a link"])
def test_a_damaged_backup_is_refused_and_nothing_touched(host, name: str, how: str) -> None:
    backup = host.back_up()
    path = backup / name
    content = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif how == "a link":
        copy = backup.parent / "copy"
        copy.write_bytes(content)
        path.symlink_to(copy)
    with pytest.raises(BackupError, match=f"{name} (is missing|has another SHA-256)"):
        check(backup, **wanted(backup))
    with pytest.raises(BackupError, match="damaged"):
        put(backup, host.places, owner=None)
    assert host.keys() == ["/registry/minions/worker-1"]
    assert not host.places.drop_in.exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 2}, "has format 2, wanted 1"),
        ({"files": []}, "k3s/token isn't listed"),
        ({"ca_hash": "none"}, "no manifest: ca_hash"),
        ({"extra": 1}, "no manifest: extra"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(host, values: dict[str, object], words: str) -> None:
    backup = host.back_up()
    change(backup, **values)
    with pytest.raises(BackupError, match=words):
        check(backup, **wanted(backup, k3s_version="v1.34.2+k3s1") if "ca_hash" not in values else {
            "registry_id": "", "chain_id": "", "ca_hash": "", "k3s_version": "v1.34.2+k3s1"
        })  # fmt: skip


def test_a_store_of_another_release_is_refused_before_anything_is_stopped(host) -> None:
    host.store.db.execute("PRAGMA user_version=7")
    backup = host.back_up()
    with pytest.raises(BackupError, match="has another schema than this release's"):
        check(backup, **wanted(backup))


def test_a_directory_without_manifest_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="Wanted a backup's directory"):
        manifests.load(tmp_path)


@given(
    st.text(max_size=30)
    | st.lists(st.sampled_from(["k3s", "etc", "..", ".", "", "a\0"]), max_size=5).map("/".join)
)
def test_a_path_of_a_manifest_never_leads_out_of_the_backup(path: str) -> None:
    if manifests.is_path(path):
        inside = (Path("/backup") / path).resolve()
        assert inside.is_relative_to("/backup")
        assert inside.relative_to("/backup").parts[0] in manifests.FOLDERS


def change_everything(host) -> None:
    host.datastore.execute("DELETE FROM kine")
    host.datastore.execute("INSERT INTO kine VALUES (12, '/registry/configmaps/default/later')")
    (host.places.server / "token").write_text("K10aa::server:another\n")
    (host.places.etc / "encryption.json").write_text("newer")
    (host.places.master / "sui.key").write_text("another wallet")


def test_on_the_same_host_everything_is_as_it_was_and_what_was_there_is_kept(host) -> None:
    places: Places = host.places
    backup = host.back_up()
    change_everything(host)
    put(backup, places, owner=None, now=lambda: host.clock)
    assert host.keys() == ["/registry/minions/worker-1"]
    assert (places.server / "token").read_text() == "K10aa::server:secret\n"
    assert (places.etc / "encryption.json").read_text() == "{}"
    assert (places.master / "sui.key").read_text() == "the wallet"
    kept = places.server.with_name(f"server.replaced-{backup.name}")
    assert (kept / "token").read_text() == "K10aa::server:another\n"
    assert (places.replaced / backup.name / "sui.key").read_text() == "another wallet"


def test_on_a_fresh_host_it_is_the_same(host, tmp_path: Path) -> None:
    backup = host.back_up()
    fresh = replace(
        host.places,
        server=tmp_path / "f/server",
        etc=tmp_path / "f/etc",
        master=tmp_path / "f/m",
        home=tmp_path / "f/h",
    )
    put(backup, fresh, owner=None)
    for part in host.places.parts:
        other = next(one for one in fresh.parts if one.name == part.name)
        for entry in manifests.load(backup).files:
            if entry.path.startswith(f"{part.name}/") and not entry.path.endswith(".db"):
                path = other.source / entry.path.partition("/")[2]
                assert manifests.sha256(path) == entry.sha256
                assert path.stat().st_mtime_ns == entry.modified_ns
    assert manifests.sha256(fresh.datastore) == manifests.sha256(backup / "datastore/state.db")
    assert not fresh.replaced.exists()


def test_killed_anywhere_a_rerun_finishes_and_keeps_what_was_there_first(
    host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first, the second, … rename, then run again: always the same end."""
    places: Places = host.places
    backup = host.back_up()
    change_everything(host)
    before = places.home.parent / "before"
    folders = (places.server, places.etc, places.master)
    for folder in folders:
        shutil.copytree(folder, before / folder.name, symlinks=True)
    real, killed, reached_end = Path.rename, 0, False
    while not reached_end:
        for folder in folders:
            shutil.rmtree(folder)
            shutil.copytree(before / folder.name, folder, symlinks=True)
        for left in [
            *places.server.parent.glob("server.*"),
            *places.master.parent.glob("master.*"),
            places.replaced,
        ]:
            shutil.rmtree(left, ignore_errors=True)
        calls = 0

        def dying(self: Path, target: Path, killed: int = killed) -> Path:
            nonlocal calls
            calls += 1
            if calls > killed:
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, "rename", dying)
        try:
            put(backup, places, owner=None, now=lambda: host.clock)
            reached_end = True
        except KeyboardInterrupt:
            monkeypatch.setattr(Path, "rename", real)
            put(backup, places, owner=None, now=lambda: host.clock)
        monkeypatch.setattr(Path, "rename", real)
        assert host.keys() == ["/registry/minions/worker-1"]
        assert (places.etc / "encryption.json").read_text() == "{}"
        kept = places.server.with_name(f"server.replaced-{backup.name}")
        assert (kept / "token").read_text() == "K10aa::server:another\n"
        assert (places.replaced / backup.name / "sui.key").read_text() == "another wallet"
        assert places.drop_in.exists()
        killed += 1
    assert killed > 5


def test_until_it_is_finished_k3s_listens_on_loopback_only(host) -> None:
    places: Places = host.places
    put(host.back_up(), places, owner=None)
    assert "bind-address: 127.0.0.1" in places.drop_in.read_text()
    assert finish(places)
    assert not places.drop_in.parent.exists()
    assert not finish(places)


def test_a_user_that_is_not_there_is_named(host) -> None:
    with pytest.raises(BackupError, match="Found no user nobody-of-that-name"):
        put(host.back_up(), host.places, owner="nobody-of-that-name")


def scheduled(number: int) -> Scheduled:
    return Scheduled(number, "0x" + "cc" * 32, "worker-1", b"h" * 32, 5, 10**6, 2**50)


def test_requests_that_were_begun_are_never_executed_again(host) -> None:
    """Each state that a request can be in when the backup is made."""
    rows = host.store.requests
    steps = [
        lambda n: rows.body(n, b"{}", ("get", "pods", "a"), 1),
        lambda n: rows.claiming(n, 1),
        lambda n: rows.claimed(n),
        lambda n: rows.executing(n, {}),
        lambda n: rows.executed(n, b'{"outcome":"succeeded"}', b"r" * 32, None, 2),
    ]
    for number in range(len(steps) + 1):
        rows.note(scheduled(number), 1)
        for step in steps[:number]:
            step(number)
    given_up = put(host.back_up(), host.places, owner=None)
    assert given_up == {"requests": 3, "ready_time": 0, "findings": 0}
    store = Store(host.places.master)
    states = [store.requests.get(number).state for number in range(len(steps) + 1)]
    store.close()
    assert states == [
        RequestState.SCHEDULED,
        RequestState.BODY_RECEIVED,  # not claimed on-chain, or the chain says so
        RequestState.ABANDONED,
        RequestState.ABANDONED,
        RequestState.ABANDONED,
        RequestState.EXECUTED,  # with its result, which goes on-chain once
    ]


def test_what_else_may_have_happened_since_is_not_repeated(host) -> None:
    store = host.store
    store.ready_time.add({"worker-1": 5, "worker-2": 6}, 1000)
    for number, state in enumerate(("observed", "waiting", "sent", "proposed")):
        row = (f"{number}", "worker-1", 5, 1, "because", 1, state, 0, "", "")
        store.db.execute("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    store.set_cursor(77, "digest")
    store.count_handled(3, 9)
    given_up = put(host.back_up(), host.places, owner=None)
    assert given_up == {"requests": 0, "ready_time": 2, "findings": 1}
    restored = Store(host.places.master)
    found = restored.db.execute("SELECT state FROM findings ORDER BY sha256").fetchall()
    assert [state for (state,) in found] == ["observed", "dropped", "sent", "proposed"]
    assert restored.ready_time.all() == {}
    # From here the follower reads every event once, as after a crash.
    assert (restored.cursor(), restored.cursor_digest(), restored.handled()) == (77, "digest", (3, 9))
    restored.close()
