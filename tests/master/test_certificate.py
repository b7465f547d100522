"""The API's certificate: signed by k3s' CA, strict enough for any client, renewed when it must be."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from k3s_daas_master.__main__ import main
from k3s_daas_master.certificate import CertificateError, issue

NAMES = ["10.123.1.11", "127.0.0.1", "master.internal"]


def issued(ca_files: tuple[Path, Path], out: Path, names: list[str] | None = None, **how: Any) -> Any:
    return issue(*ca_files, out, names or NAMES, **how)


def test_a_new_one_verifies_strictly(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    done = issued(ca_files, tmp_path / "tls")
    assert done.changed
    assert done.key.stat().st_mode & 0o777 == 0o600
    assert done.cert.stat().st_mode & 0o777 == 0o644
    days = (done.not_after - dt.datetime.now(dt.UTC)).days
    assert 363 <= days <= 365
    verified = subprocess.run(
        [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-CAfile",
            str(ca_files[0]),
            str(done.cert),
        ],
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stderr
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(done.cert, done.key)
    client = ssl.create_default_context(cafile=str(ca_files[0]))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in NAMES:
        _handshake(client, server, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(client, server, "10.123.1.12")


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not ends:
            return
    raise AssertionError("handshake didn't end")


def test_a_good_one_is_kept(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    first = issued(ca_files, tmp_path)
    before = first.cert.read_bytes(), first.key.read_bytes()
    again = issued(ca_files, tmp_path, list(reversed(NAMES)))
    assert not again.changed
    assert (again.cert.read_bytes(), again.key.read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_less_than_30_days_renew(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    issued(ca_files, tmp_path)
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=334)
    assert not issued(ca_files, tmp_path, now=lambda: later).changed
    later += dt.timedelta(days=2)
    renewed = issued(ca_files, tmp_path, now=lambda: later)
    assert renewed.changed
    assert "30 days" in renewed.reason


@pytest.mark.parametrize("spoil", ["names", "ca", "mismatch", "garbage", "no key"])
def test_what_else_renews(ca_files: tuple[Path, Path], tmp_path: Path, make_ca: Any, spoil: str) -> None:
    out = tmp_path / "tls"
    first = issued(ca_files, out)
    names, files = NAMES, ca_files
    if spoil == "names":
        names = [*NAMES, "10.0.0.9"]
    elif spoil == "ca":
        files = make_ca(tmp_path)
    elif spoil == "mismatch":
        other = issued(ca_files, tmp_path / "other")
        first.key.write_bytes(other.key.read_bytes())
    elif spoil == "garbage":
        first.cert.write_bytes(b"garbage")
    else:
        first.key.unlink()
    renewed = issued(files, out, names)
    assert renewed.changed
    certificate = x509.load_pem_x509_certificate(renewed.cert.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files[0].read_bytes()))
    assert not issued(files, out, names).changed


def test_the_key_file_never_was_open(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        assert issued(ca_files, tmp_path).key.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"names": ["bad name"]}, "neither an IP address nor a DNS name"),
        ({"names": ["-" * 300]}, "neither an IP address nor a DNS name"),
        ({"owner": "no-such-user-here"}, "no such user"),
        ({"ca": "missing"}, "start k3s server"),
        ({"ca": "garbage"}, "isn't PEM"),
        ({"ca": "not a pair"}, "Wanted a pair"),
    ],
)
def test_refusals(
    ca_files: tuple[Path, Path], tmp_path: Path, make_ca: Any, how: dict[str, Any], wanted: str
) -> None:
    cert, key = ca_files
    case = how.pop("ca", "")
    if case == "missing":
        cert = tmp_path / "none.crt"
    elif case == "garbage":
        cert = tmp_path / "garbage.crt"
        cert.write_text("x")
    elif case == "not a pair":
        key = make_ca(tmp_path)[1]
    with pytest.raises(CertificateError, match=wanted):
        issue(cert, key, tmp_path / "tls", how.pop("names", NAMES), **how)
    assert not (tmp_path / "tls" / "server.crt").exists()


def test_the_command(ca_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["issue-certificate", "--ca-cert", str(ca_files[0]), "--ca-key", str(ca_files[1])]
    arguments += ["--out", str(tmp_path), "--san", "10.0.0.1", "--san", "localhost"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False
