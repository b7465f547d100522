"""Encrypting a backup for its way to another place."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pyrage
import pytest

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.places import BackupError
from k3s_daas_master.backups.seal import make_key, recipient, seal, unseal


def test_there_and_back(host, tmp_path: Path) -> None:
    key = tmp_path / "backup.key"
    public = make_key(key)
    backup = host.back_up()
    sealed = seal(backup, public)
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    content = sealed.read_bytes()
    for secret in (b"the wallet", b"K10aa", b"worker-1"):
        assert secret not in content
    came = unseal(sealed, key.read_text(), tmp_path / "elsewhere")
    assert came.name == backup.name
    manifests.verify(came, manifests.load(came))
    assert [path.name for path in came.parent.iterdir()] == [backup.name]
    for path in came.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_backup_of_that_name_is_replaced(host, tmp_path: Path) -> None:
    key = tmp_path / "backup.key"
    backup = host.back_up()
    sealed = seal(backup, make_key(key))
    (backup / "k3s/token").write_text("damaged")
    assert unseal(sealed, key.read_text(), host.places.backups) == backup
    manifests.verify(backup, manifests.load(backup))


def test_a_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = tmp_path / "backup.key"
    public = make_key(key)
    assert make_key(key) == public == recipient(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o640)
    with pytest.raises(BackupError, match="wanted mode 0600"):
        recipient(key)


@pytest.mark.skipif(shutil.which("age") is None, reason="age isn't installed")
def test_age_itself_opens_it(host, tmp_path: Path) -> None:
    key = tmp_path / "backup.key"
    sealed = seal(host.back_up(), make_key(key))
    plain = subprocess.run(
        ["age", "--decrypt", "--identity", key, sealed], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert "manifest.json" in tar.getnames()


def test_another_key_does_not_open_it(host, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key")
    sealed = seal(host.back_up(), make_key(tmp_path / "backup.key"))
    with pytest.raises(BackupError, match="can't be decrypted: No matching keys"):
        unseal(sealed, (tmp_path / "other.key").read_text(), tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="Found no AGE-SECRET-KEY-1"):
        unseal(sealed, "nothing", tmp_path / "elsewhere")


@pytest.mark.parametrize("place", [10, 200, -1, -20_000])
def test_one_changed_byte_is_found(host, tmp_path: Path, place: int) -> None:
    key = tmp_path / "backup.key"
    sealed = seal(host.back_up(), make_key(key))
    content = bytearray(sealed.read_bytes())
    content[place] ^= 1
    sealed.write_bytes(content)
    with pytest.raises(BackupError):
        unseal(sealed, key.read_text(), tmp_path / "elsewhere")
    assert [path for path in (tmp_path / "elsewhere").iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "k3s/../../out", "other/file", "k3s"])
def test_a_file_with_a_name_of_no_backup_is_refused(tmp_path: Path, name: str) -> None:
    key = tmp_path / "backup.key"
    public = make_key(key)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    sealed = tmp_path / "x.age"
    sealed.write_bytes(pyrage.encrypt(plain.getvalue(), [pyrage.x25519.Recipient.from_str(public)]))
    with pytest.raises(BackupError, match="wanted files of a backup"):
        unseal(sealed, key.read_text(), tmp_path / "elsewhere")
    assert not (tmp_path / "out").exists()


def test_a_public_key_that_is_none(host) -> None:
    with pytest.raises(BackupError, match="wanted a public key age1"):
        seal(host.back_up(), "ssh-ed25519 AAAA")


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="backup keygen"):
        recipient(tmp_path / "none")
