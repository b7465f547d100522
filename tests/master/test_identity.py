"""The master's own kubeconfig: a client certificate of k3s' client CA, short-lived, without a group."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lightkube.config.kubeconfig import KubeConfig

from k3s_daas_master.__main__ import main
from k3s_daas_master.certificate import CertificateError
from k3s_daas_master.cluster import Cluster, ClusterError
from k3s_daas_master.identity import USER, issue_kubeconfig

SERVER = "https://127.0.0.1:6443"


def issued(ca_files: tuple[Path, Path], out: Path, **how: Any) -> Any:
    server = how.pop("server", SERVER)
    return issue_kubeconfig(*ca_files, how.pop("server_ca", ca_files[0]), server, out, **how)


def certificate(path: Path) -> x509.Certificate:
    user = json.loads(path.read_text())["users"][0]["user"]
    return x509.load_pem_x509_certificates(base64.b64decode(user["client-certificate-data"]))[0]


def test_it_names_the_user_and_no_group_and_lives_for_days(
    ca_files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "kubernetes" / "kubeconfig"
    old = os.umask(0)
    try:
        done = issued(ca_files, out)
    finally:
        os.umask(old)
    assert done.changed
    assert out.stat().st_mode & 0o777 == 0o600
    found = certificate(out)
    assert found.subject.rfc4514_string() == f"CN={USER}"
    assert found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) == []
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert dt.timedelta(days=6) < done.not_after - dt.datetime.now(dt.UTC) <= dt.timedelta(days=7)
    assert KubeConfig.from_file(out).get().cluster.server == SERVER  # type: ignore[union-attr]


def test_it_is_kept_for_a_day_and_then_renewed(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "kubeconfig"
    issued(ca_files, out)
    before = out.read_bytes()
    now = dt.datetime.now(dt.UTC)
    assert not issued(ca_files, out, now=lambda: now + dt.timedelta(hours=23)).changed
    assert out.read_bytes() == before
    done = issued(ca_files, out, now=lambda: now + dt.timedelta(hours=25))
    assert (done.changed, done.reason) == (True, "it is more than a day old")


@pytest.mark.parametrize("spoil", ["ca", "server", "server ca", "garbage", "no user", "mismatch"])
def test_what_else_renews(ca_files: tuple[Path, Path], tmp_path: Path, make_ca: Any, spoil: str) -> None:
    out, how, files = tmp_path / "kubeconfig", {}, ca_files
    issued(ca_files, out)
    content = json.loads(out.read_text())
    if spoil == "ca":
        files = make_ca(tmp_path)
        how = {"server_ca": ca_files[0]}
    elif spoil == "server":
        how = {"server": "https://10.0.0.1:6443"}
    elif spoil == "server ca":
        how = {"server_ca": make_ca(tmp_path)[0]}
    elif spoil == "garbage":
        out.write_text("x: [")
    elif spoil == "no user":
        out.write_text(json.dumps({**content, "users": []}))
    else:
        other = tmp_path / "other"
        issued(ca_files, other)
        theirs = json.loads(other.read_text())["users"][0]["user"]["client-key-data"]
        content["users"][0]["user"]["client-key-data"] = theirs
        out.write_text(json.dumps(content))
    assert issued(files, out, **dict(how)).changed
    assert not issued(files, out, **dict(how)).changed
    certificate(out).verify_directly_issued_by(x509.load_pem_x509_certificate(files[0].read_bytes()))


def test_refusals(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="start k3s server once"):
        issued(ca_files, tmp_path / "kubeconfig", server_ca=tmp_path / "none")
    with pytest.raises(CertificateError, match="no such user"):
        issued(ca_files, tmp_path / "kubeconfig", owner="no-such-user-here")
    assert not (tmp_path / "kubeconfig").exists()


def test_the_command(ca_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = str(ca_files[0])
    arguments = ["issue-kubeconfig", "--ca-cert", ca, "--ca-key", str(ca_files[1]), "--server-ca", ca]
    arguments += ["--server", SERVER, "--out", str(tmp_path / "kubeconfig")]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["changed"] is False
    assert "PRIVATE" not in shown


async def test_a_renewed_file_is_used_without_a_restart(ca_files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "kubeconfig"
    issued(ca_files, out)
    cluster = Cluster.from_file(out)
    try:
        before = cluster.client
        assert not await cluster.reload()
        later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
        assert issued(ca_files, out, now=lambda: later).changed
        assert await cluster.reload()
        assert cluster.client is not before
        assert not await cluster.reload()
        out.write_text("users: [{name: x, user: {token: hunter2}}]")
        with pytest.raises(ClusterError) as refused:
            await cluster.reload()
        assert "hunter2" not in str(refused.value)
        now = cluster.client
        out.unlink()
        with pytest.raises(ClusterError):
            await cluster.reload()
        assert cluster.client is now, "the old one serves as long as it may"
    finally:
        await cluster.aclose()
