"""The API's TLS certificate, signed by k3s' own server CA, so that workers need to know one CA only.

Runs as root before the service: the CA's key is root's, and the service never sees it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pwd
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=365)
RENEW_BEFORE = dt.timedelta(days=30)
CERT_NAME = "server.crt"
KEY_NAME = "server.key"

CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class CertificateError(Exception):
    """The certificate can't be issued; the message says what to do."""


@dataclass(frozen=True)
class Issued:
    """What was done. `changed` is False when the present certificate is still good."""

    changed: bool
    reason: str
    cert: Path
    key: Path
    not_after: dt.datetime


def issue(
    ca_cert: Path,
    ca_key: Path,
    out: Path,
    names: Sequence[str],
    *,
    owner: str | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Issued:
    """Have a certificate for `names` (IP addresses and DNS names) in `out`, good for 30 more days.

    `owner` is the user who may read the key (0600); the certificate is 0644. Raises CertificateError.
    """
    sans = [_san(name) for name in names]
    if not sans:
        raise CertificateError(
            "No --san was given. Wanted: the address or name that workers use, at least once."
        )
    ca_chain, signer = load_ca(ca_cert, ca_key)
    ca = ca_chain[0]
    cert_path, key_path = out / CERT_NAME, out / KEY_NAME
    reason, present = _why_renew(cert_path, key_path, ca, sans, now())
    try:
        if not reason and present is not None:
            own(key_path, owner)
            return Issued(False, "still good", cert_path, key_path, present.not_valid_after_utc)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = sign(key, ca, signer, names[0], now(), sans=sans)
        # Intermediates go with it; the root is what clients hold already.
        chain = [certificate, *(c for c in ca_chain if c.issuer != c.subject)]
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        out.mkdir(mode=0o755, parents=True, exist_ok=True)
        # The key first: a crash in between leaves a pair that doesn't match, which the next run renews.
        write_file(key_path, secret, 0o600, owner)
        write_file(cert_path, pem, 0o644, None)
    except OSError as error:
        raise CertificateError(
            f"{error.filename or out}: {error.strerror or error}. Wanted a directory that this "
            "user may write; the unit runs this as root."
        ) from None
    return Issued(True, reason, cert_path, key_path, certificate.not_valid_after_utc)


def sign(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    signer: CaKey,
    common_name: str,
    now: dt.datetime,
    *,
    sans: Sequence[x509.GeneralName] = (),
    lifetime: dt.timedelta = LIFETIME,
) -> x509.Certificate:
    """A server's certificate for `sans`; without them a client's, whose user is `common_name`.

    To Kubernetes the organizations of a client's certificate are its groups: it gets none.
    """
    public = key.public_key()
    try:
        ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    except x509.ExtensionNotFound:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    organization = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "k3s-daas")] if sans else []
    common = x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if sans else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*organization, common]))
        .issuer_name(ca.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Some minutes back: the worker's clock may lag a little behind ours.
        .not_valid_before(max(now - dt.timedelta(minutes=5), ca.not_valid_before_utc))
        .not_valid_after(min(now + lifetime, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(authority, critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm)


def load_ca(ca_cert: Path, ca_key: Path) -> tuple[list[x509.Certificate], CaKey]:
    """k3s' CA: its chain, the signing certificate first, and that one's key. Raises CertificateError."""
    try:
        chain = x509.load_pem_x509_certificates(ca_cert.read_bytes())
        key = load_pem_private_key(ca_key.read_bytes(), None)
    except OSError as error:
        raise CertificateError(
            f"{error.filename}: {error.strerror}. Wanted k3s' CA: start k3s server "
            "once, and run this as root."
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError(
            f"{ca_cert} or {ca_key} isn't PEM. Wanted one of k3s' CAs and its key, as in server/tls."
        ) from None
    if not isinstance(key, CaKey):
        raise CertificateError(f"{ca_key} is a {type(key).__name__}. Wanted an EC, RSA or Ed25519 key.")
    if public_bytes(key.public_key()) != public_bytes(chain[0].public_key()):
        raise CertificateError(
            f"{ca_key} isn't the key of the first certificate in {ca_cert}. Wanted a pair."
        )
    return chain, key


def _why_renew(
    cert_path: Path, key_path: Path, ca: x509.Certificate, sans: Sequence[x509.GeneralName], now: dt.datetime
) -> tuple[str, x509.Certificate | None]:
    """Why the present certificate won't do ("" when it will), and that certificate."""
    try:
        present = x509.load_pem_x509_certificates(cert_path.read_bytes())[0]
        key = load_pem_private_key(key_path.read_bytes(), None)
    except FileNotFoundError:
        return "there is none", None
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError):
        return "it can't be read", None
    if public_bytes(key.public_key()) != public_bytes(present.public_key()):
        return "certificate and key don't match", present
    try:
        present.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return "another CA signed it", present
    try:
        have = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it has no names", present
    if set(have) != set(sans):
        return "its names differ", present
    # A CA that itself ends soon can't give more; then the certificate is as good as it gets.
    if present.not_valid_after_utc < min(now + RENEW_BEFORE, ca.not_valid_after_utc):
        return "it ends in less than 30 days", present
    return "", present


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    labels = name.removesuffix(".").split(".")
    valid = all(label and len(label) <= 63 and label.replace("-", "").isalnum() for label in labels)
    if not name.isascii() or len(name) > 253 or not valid:
        raise CertificateError(f"--san {name!r:.80} is neither an IP address nor a DNS name.")
    return x509.DNSName(name)


def public_bytes(key: object) -> bytes:
    """A public key, to compare with another."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def write_file(path: Path, content: bytes, mode: int, owner: str | None) -> None:
    """Put `content` in place whole, never readable by more than `mode` says."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        own(draft, owner)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def own(path: Path, owner: str | None) -> None:
    """Give the file to this user, if one is named. Raises CertificateError."""
    if owner is None:
        return
    try:
        entry = pwd.getpwnam(owner)
    except KeyError:
        raise CertificateError(
            f"--owner {owner!r}: no such user. Wanted the service's system user."
        ) from None
    found = path.lstat()
    if (found.st_uid, found.st_gid) != (entry.pw_uid, entry.pw_gid):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
