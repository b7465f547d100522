"""What is in a backup, while k3s and the service go on writing."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import stat

import pytest

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.make import make, version_of_k3s
from k3s_daas_master.backups.places import BackupError


def test_it_has_what_makes_the_same_cluster_and_the_same_master(host) -> None:
    backup = host.back_up()
    assert backup == host.places.backups / "20261121T160502Z"
    found = manifests.load(backup)
    assert [entry.path for entry in found.files] == [
        "datastore/state.db",
        "etc/agent-token",
        "etc/encryption.json",
        "k3s/cred/passwd",
        "k3s/tls/client-ca.crt",
        "k3s/tls/client-ca.key",
        "k3s/tls/server-ca.crt",
        "k3s/tls/server-ca.key",
        "k3s/token",
        "master/evidence/aa.bcs",
        "master/master.db",
        "master/node-password.key",
        "master/sui.key",
    ]
    assert (found.registry_id, found.chain_id, found.k3s_version) == (
        "0x" + "bb" * 32,
        "4c78adac",
        "v1.34.2+k3s1",
    )
    # printf 'K10aa::server:secret' | sha256sum
    assert found.token_id == "77d6b2de4a8e"  # noqa: S105  the id of a test's token
    manifests.verify(backup, found)


def test_nobody_else_can_read_it(host) -> None:
    backup = host.back_up()
    for path in [host.places.backups, backup, *backup.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_in_the_journal_only_is_in_it_and_what_is_not_committed_is_not(host) -> None:
    host.datastore.execute("INSERT INTO kine VALUES (9, '/registry/configmaps/default/one')")
    host.datastore.execute("BEGIN IMMEDIATE")
    host.datastore.execute("INSERT INTO kine VALUES (10, '/registry/configmaps/default/two')")
    backup = host.back_up()
    host.datastore.execute("ROLLBACK")
    with sqlite3.connect(backup / "datastore/state.db") as copy:
        rows = copy.execute("SELECT id, name FROM kine ORDER BY id").fetchall()
        (following,) = copy.execute("SELECT seq FROM sqlite_sequence WHERE name = 'kine'").fetchone()
    # Revisions are kine's row ids: they must not start over.
    assert rows == [(7, "/registry/minions/worker-1"), (9, "/registry/configmaps/default/one")]
    assert following == 9


def test_the_newest_stay_and_drafts_of_killed_runs_go(host) -> None:
    (host.places.backups / ".draft-20200101T000000Z").mkdir(parents=True)
    (host.places.backups / "notes").mkdir()
    made = [host.back_up(keep=2).name for _ in range(4)]
    assert sorted(path.name for path in host.places.backups.iterdir()) == [*made[2:], "notes"]


def test_two_in_one_second_are_two(host) -> None:
    first = host.back_up()
    host.clock -= dt.timedelta(seconds=1)
    assert host.back_up().name == f"{first.name}-1"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda places: places.datastore.unlink(), "wanted k3s' SQLite datastore"),
        (
            lambda places: (places.datastore.unlink(), (places.server / "db/etcd").mkdir()),
            "Found embedded etcd",
        ),
        (lambda places: (places.server / "token").unlink(), "Found no k3s/token here"),
        (lambda places: (places.master / "sui.key").unlink(), "Found no master/sui.key"),
        (lambda places: (places.master / "master.db").unlink(), "master.db can't be copied"),
        (
            lambda places: places.datastore.with_name("state.db-wal").write_bytes(b""),
            "state.db can't be copied",
        ),
        (lambda places: (places.server / "tls/server-ca.crt").write_text("none"), "server-ca.crt"),
    ],
)
def test_what_can_not_be_restored_is_no_backup(host, break_it, words: str) -> None:
    break_it(host.places)
    with pytest.raises(BackupError, match=words):
        host.back_up()
    assert [path for path in host.places.backups.glob("*") if not path.name.startswith(".")] == []


def test_at_least_one_is_kept(host) -> None:
    with pytest.raises(BackupError, match="Found 0 backups to keep"):
        make(host.places, 0)


@pytest.mark.parametrize(
    ("script", "version"),
    [
        (
            '[ "$1" = kubectl ] && echo \'{"gitVersion": "v1.33.1+k3s1"}\' || echo no',
            "v1.33.1+k3s1",
        ),
        ('[ "$1" = kubectl ] && exit 1; echo k3s version v1.34.2+k3s1 "(abc)"', "v1.34.2+k3s1"),
    ],
)
def test_the_version_is_that_of_who_wrote_the_datastore(host, script: str, version: str) -> None:
    host.places.k3s.write_text(f"#!/bin/sh\n{script}\n")
    host.places.k3s.chmod(0o755)
    assert version_of_k3s(host.places) == version


def test_without_a_k3s_it_says_so(host) -> None:
    with pytest.raises(BackupError, match="doesn't tell a version"):
        version_of_k3s(host.places)


def test_no_secret_is_in_the_manifest(host) -> None:
    text = (host.back_up() / "manifest.json").read_text()
    json.loads(text)
    for secret in ("secret", "the wallet", "key of"):
        assert secret not in text


def test_sqlite_itself_finds_the_copy_sound(host) -> None:
    backup = host.back_up()
    for name in ("datastore/state.db", "master/master.db"):
        with sqlite3.connect(backup / name) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
