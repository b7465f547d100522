"""The node's shared certificates: read as the agent writes them, and told to the master at once."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from k3s_daas_watcher import service
from k3s_daas_watcher.certificates import SHARED, NodeCertificates, ends


def sha256(pem: bytes) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()


@pytest.fixture
def pems(make_ca, tmp_path: Path) -> list[bytes]:
    """Two certificates."""
    return [make_ca(tmp_path, name).cert_file.read_bytes() for name in ("one", "other")]


def replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.rename(path)


def test_the_first_certificate_of_each_file_counts(tmp_path: Path, pems: list[bytes]) -> None:
    certificates = NodeCertificates(tmp_path)
    assert certificates.fingerprints() == []
    # k3s writes the CA behind it.
    replace(tmp_path / SHARED[0], pems[0] + pems[1])
    assert certificates.fingerprints() == [sha256(pems[0])]
    replace(tmp_path / SHARED[1], pems[1])
    assert certificates.fingerprints() == [sha256(pems[0]), sha256(pems[1])]
    replace(tmp_path / SHARED[0], pems[1])
    assert certificates.fingerprints() == [sha256(pems[1])] * 2


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n", b"x-----END CERTIFICATE-----"]
)
def test_what_is_none_is_left_out(tmp_path: Path, pems: list[bytes], content: bytes) -> None:
    replace(tmp_path / SHARED[0], content)
    replace(tmp_path / SHARED[1], pems[0])
    assert NodeCertificates(tmp_path).fingerprints() == [sha256(pems[0])]


async def test_a_heartbeat_tells_which_they_are(make_watcher, master, certificates) -> None:
    watcher = make_watcher()
    await watcher.check_chain()
    assert await watcher.beat()
    assert "certificates" not in master.heartbeats[0]
    certificates[:] = ["1" * 64, "2" * 64]
    assert watcher.untold()
    assert await watcher.beat()
    assert master.heartbeats[1]["certificates"] == certificates
    assert not watcher.untold()


async def test_new_ones_dont_wait_for_the_next_heartbeat(make_watcher, clock, certificates) -> None:
    watcher = make_watcher()
    await service._unless_untold(watcher, clock, 30.0)
    assert sum(clock.slept) == 30.0
    clock.slept.clear()
    certificates[:] = ["1" * 64]
    await service._unless_untold(watcher, clock, 30.0)
    assert clock.slept == []


async def test_what_cant_be_told_waits_like_all_else(make_watcher, clock, certificates) -> None:
    watcher = make_watcher()
    certificates[:] = ["1" * 64]
    # No master is known yet.
    assert not await watcher.beat()
    await service._unless_untold(watcher, clock, 30.0)
    assert sum(clock.slept) == 30.0


def test_the_end_of_each_that_can_be_read(tmp_path: Path, pems: list[bytes]) -> None:
    assert list(ends(tmp_path)) == []
    (tmp_path / "client-kubelet.crt").write_bytes(pems[0])
    (tmp_path / SHARED[0]).write_bytes(b"text")
    (tmp_path / SHARED[1]).mkdir()
    (found,) = ends(tmp_path)
    want = x509.load_pem_x509_certificate(pems[0]).not_valid_after_utc
    assert found == ("client-kubelet", want.timestamp())
