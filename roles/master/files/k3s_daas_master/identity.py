"""The master's own identity in Kubernetes: user `k3s-daas:master`, in a kubeconfig with a client certificate.

k3s' admin kubeconfig opens everything; the service gets this one instead, and the role k3s_server's
rbac.yaml says what its user may do. Runs as root, as k3s' client CA is root's alone. A certificate can't be
taken back,
so it lives for days and is renewed every day.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from k3s_daas_master.certificate import (
    CertificateError,
    Issued,
    load_ca,
    own,
    public_bytes,
    sign,
    write_file,
)

USER = "k3s-daas:master"
LIFETIME = dt.timedelta(days=7)
RENEW_AFTER = dt.timedelta(days=1)


def issue_kubeconfig(
    ca_cert: Path,
    ca_key: Path,
    server_ca: Path,
    server: str,
    out: Path,
    *,
    owner: str | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Issued:
    """Have a kubeconfig for USER in `out` (0600, `owner`'s) whose certificate was made within the last day.

    `ca_cert` and `ca_key` are k3s' client CA, `server_ca` what the API server at `server` is verified by.
    Raises CertificateError.
    """
    chain, signer = load_ca(ca_cert, ca_key)
    try:
        trusted = server_ca.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{error.filename}: {error.strerror}. Wanted k3s' server-ca.crt: start k3s server once."
        ) from None
    reason, ends = _why_renew(out, chain[0], server, trusted, now())
    try:
        if ends is not None and not reason:
            own(out, owner)
            return Issued(False, "still good", out, out, ends)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = sign(key, chain[0], signer, USER, now(), lifetime=LIFETIME)
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, *chain) if c.issuer != c.subject)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        out.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        content = json.dumps(_kubeconfig(server, trusted, pem, secret), indent=2)
        write_file(out, content.encode(), 0o600, owner)
    except OSError as error:
        raise CertificateError(
            f"{error.filename or out}: {error.strerror or error}. Wanted a directory that this user may "
            "write; the unit runs this as root."
        ) from None
    return Issued(True, reason, out, out, certificate.not_valid_after_utc)


def _kubeconfig(server: str, trusted: bytes, certificate: bytes, key: bytes) -> dict[str, Any]:
    """JSON is YAML too, and nothing has to be installed to write it."""
    user = {"client-certificate-data": _b64(certificate), "client-key-data": _b64(key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "k3s", "cluster": {"server": server, "certificate-authority-data": _b64(trusted)}}
        ],
        "users": [{"name": USER, "user": user}],
        "contexts": [{"name": "k3s", "context": {"cluster": "k3s", "user": USER}}],
        "current-context": "k3s",
    }


def _why_renew(
    path: Path, ca: x509.Certificate, server: str, trusted: bytes, now: dt.datetime
) -> tuple[str, dt.datetime | None]:
    """Why the present kubeconfig won't do ("" when it will), and when its certificate ends."""
    try:
        found = json.loads(path.read_bytes())
        cluster = found["clusters"][0]["cluster"]
        user = found["users"][0]["user"]
        pem = base64.b64decode(user["client-certificate-data"], validate=True)
        present = x509.load_pem_x509_certificates(pem)[0]
        key = load_pem_private_key(base64.b64decode(user["client-key-data"], validate=True), None)
    except FileNotFoundError:
        return "there is none", None
    except (OSError, ValueError, KeyError, IndexError, TypeError, UnsupportedAlgorithm):
        return "it can't be read", None
    ends = present.not_valid_after_utc
    if public_bytes(key.public_key()) != public_bytes(present.public_key()):
        return "certificate and key don't match", ends
    try:
        present.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return "another CA signed it", ends
    if cluster != {"server": server, "certificate-authority-data": _b64(trusted)}:
        return "it is for another server or CA", ends
    # A CA that itself ends soon can't give more; then the certificate is as good as it gets.
    if ends < min(now + LIFETIME - RENEW_AFTER, ca.not_valid_after_utc):
        return "it is more than a day old", ends
    return "", ends


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
