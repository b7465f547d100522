"""What a k3s agent and server agree on when a node joins: CA hash, full token, node password.

Formats follow k3s 1.34: pkg/clientaccess/token.go (CA hash, full token), pkg/kubeadm (bootstrap tokens),
pkg/authenticator/hash/scrypt.go and pkg/nodepassword (node passwords). One place for master, worker and
tests, because two readings of these rules that differ by a newline mean a node that can't join.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import re
import secrets
import ssl
import string
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

TOKEN_PREFIX = "K10"  # noqa: S105 - the format's public prefix
CA_HASH_BYTES = 32
# k3s reads node passwords only from Secrets of this type and name (pkg/nodepassword/nodepassword.go).
NODE_PASSWORD_SECRET_TYPE = "k3s.cattle.io/node-password"  # noqa: S105 - a type, not a password
BOOTSTRAP_TOKEN_SECRET_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105
BOOTSTRAP_GROUP = "system:bootstrappers:k3s:default-node-token"

_BOOTSTRAP_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})", re.ASCII)
_ALPHABET = string.ascii_lowercase + string.digits
# A CA bundle is a few KiB; an endless answer must not fill the memory.
_MAX_CACERTS_BYTES = 1 << 20

_SCRYPT_VERSION = 1
_SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P = 15, 8, 1
_SCRYPT_KEY_BYTES, _SCRYPT_SALT_BYTES = 64, 8
_SCRYPT_MAX_MEMORY = 128 << 20
_HASH = re.compile(r"\$(\d{1,3}):([0-9a-f]{2,64}):(\d{1,2}):(\d{1,3}):(\d{1,3}):([A-Za-z0-9+/]+)", re.ASCII)


class JoinError(Exception):
    """Something about joining a node is wrong; the message says what was found and wanted."""


class InvalidCaBundle(JoinError):
    """The bytes hold no PEM certificate."""


class InvalidJoinToken(JoinError):
    """Not a full token with a bootstrap token in it. Never holds the token."""


class InvalidPasswordHash(JoinError):
    """Not a node password hash as k3s writes it."""


class ServerUnreachable(JoinError):
    """The k3s server didn't give its CA certificates."""


class CaMismatch(JoinError):
    """The server's CA isn't the one that was promised.

    `found` and `wanted` are hex sha256 CA hashes.
    """

    def __init__(self, found: str, wanted: str, server: str) -> None:
        super().__init__(
            f"CA hash of {server} is {found}, wanted {wanted}. Somebody else may be answering there, or the "
            f"cluster's CA was replaced and the new one not announced: announce it, don't skip the check."
        )
        self.found = found
        self.wanted = wanted
        self.server = server


@dataclass(frozen=True)
class FullToken:
    """A parsed `K10<ca hash>::<id>.<secret>`; `ca_hash` is 32 bytes."""

    ca_hash: bytes
    token_id: str
    secret: str = field(repr=False)


def ca_hash(cacerts: bytes) -> bytes:
    """Return the 32-byte hash by which k3s pins a CA bundle, for the bytes exactly as served at /cacerts.

    One certificate: sha256 of the bytes, trailing newline included. More: sha256 of the DER of the root that
    the first certificate leads to, so that intermediates may be renewed; sha256 of the bytes when it leads to
    none. Raises InvalidCaBundle. Source: hashCA in pkg/clientaccess/token.go.
    """
    blocks = cacerts.count(b"-----BEGIN CERTIFICATE-----")
    try:
        # OpenSSL parses these, not cryptography, which objects to the serial number 0 of k3s' own CA.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=cacerts.decode("ascii"))
    except (ValueError, ssl.SSLError):
        blocks = 0
    if blocks == 0:
        raise InvalidCaBundle(
            f"{len(cacerts)} bytes hold no PEM certificate; wanted the server's /cacerts as served."
        )
    if blocks > 1:
        certificates = x509.load_pem_x509_certificates(cacerts)
        root = _root_of(certificates[0], certificates[1:])
        if root is not None:
            return hashlib.sha256(root.public_bytes(Encoding.DER)).digest()
    return hashlib.sha256(cacerts).digest()


def full_token(ca_hash: bytes, token_id: str, secret: str) -> str:
    """Return `K10<hex of ca_hash>::<id>.<secret>`, with which an agent pins the CA before it says the secret.

    Raises InvalidJoinToken when a part hasn't the right shape.
    """
    if len(ca_hash) != CA_HASH_BYTES:
        raise InvalidJoinToken(f"CA hash has {len(ca_hash)} bytes, wanted {CA_HASH_BYTES} (see ca_hash).")
    if not _BOOTSTRAP_TOKEN.fullmatch(f"{token_id}.{secret}"):
        raise InvalidJoinToken(
            f"bootstrap token has parts of {len(token_id)} and {len(secret)} characters; wanted 6 and 16 of "
            f"a-z 0-9 (see bootstrap_token)."
        )
    return f"{TOKEN_PREFIX}{ca_hash.hex()}::{token_id}.{secret}"


def parse_full_token(text: str) -> FullToken:
    """Return the parts of a full token; whitespace around it (a file's last newline) is ignored.

    k3s also takes tokens without a hash and `user:password` credentials; we don't: the first trusts any CA,
    the second is the cluster's own secret. Raises InvalidJoinToken, which never quotes the token.
    """
    token = text.strip()
    wanted = f"wanted {TOKEN_PREFIX}<64 hex digits>::<6 of a-z 0-9>.<16 of a-z 0-9>"
    if not token.startswith(TOKEN_PREFIX):
        raise InvalidJoinToken(f"join token of {len(token)} characters has no {TOKEN_PREFIX}; {wanted}.")
    digest, separator, credentials = token[len(TOKEN_PREFIX) :].partition("::")
    if not separator or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidJoinToken(f"join token has no CA hash of 64 lower-case hex digits; {wanted}.")
    match = _BOOTSTRAP_TOKEN.fullmatch(credentials)
    if match is None:
        raise InvalidJoinToken(
            f"join token's credentials ({len(credentials)} characters) aren't a bootstrap token; {wanted}."
        )
    return FullToken(bytes.fromhex(digest), match[1], match[2])


def bootstrap_token() -> tuple[str, str]:
    """Return a new (id, secret): 6 and 16 characters of a-z 0-9. The id isn't secret (it names a Secret)."""
    return _random(6), _random(16)


def fetch_cacerts(api_server_url: str, expected_hash: bytes, *, timeout_s: float = 10.0) -> bytes:
    """Return the CA bundle that `api_server_url` (https://host:6443) serves, if it has `expected_hash`.

    The first request can't be verified: its bytes are worth nothing until they hash to `expected_hash`. The
    second must verify against them, so that the server there really holds a certificate of that CA. Unlike
    k3s itself the hash is compared even when the operating system trusts the server's certificate.
    Proxies of the environment aren't used. Raises CaMismatch, InvalidCaBundle, ServerUnreachable.
    """
    parts = urlsplit(api_server_url)
    if parts.scheme != "https" or not parts.hostname or parts.path.rstrip("/"):
        raise ServerUnreachable(f"{api_server_url!r} isn't an API server's URL; wanted https://host:port.")
    if len(expected_hash) != CA_HASH_BYTES:
        raise CaMismatch(
            "not asked for", f"{expected_hash.hex()} (not {CA_HASH_BYTES} bytes)", api_server_url
        )
    url = f"https://{parts.netloc}/cacerts"
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    bundle = _get(url, blind, timeout_s)
    found = ca_hash(bundle)
    if not hmac.compare_digest(found, expected_hash):
        raise CaMismatch(found.hex(), expected_hash.hex(), api_server_url)
    if _get(url, ssl.create_default_context(cadata=bundle.decode("ascii")), timeout_s) != bundle:
        raise ServerUnreachable(f"{url} served two different bundles; is the CA being rotated? Try again.")
    return bundle


def node_password() -> str:
    """Return a new node password as k3s agents make them: 32 hex digits of 16 random bytes."""
    return secrets.token_hex(16)


def node_password_secret_name(node_name: str) -> str:
    """Return the name of the Secret in kube-system that holds a node's password hash."""
    return f"{node_name}.node-password.k3s".lower()


def node_password_hash(password: str) -> str:
    """Return the scrypt hash that k3s keeps under `hash` in a node's password Secret.

    Shape: `$1:<hex salt>:15:8:1:<unpadded base64 of 64 bytes>`. Takes 32 MiB and some 50 ms.
    """
    salt = secrets.token_bytes(_SCRYPT_SALT_BYTES)
    key = _scrypt(password, salt, _SCRYPT_LOG_N, _SCRYPT_R, _SCRYPT_P, _SCRYPT_KEY_BYTES)
    encoded = base64.b64encode(key).rstrip(b"=").decode("ascii")
    return f"${_SCRYPT_VERSION}:{salt.hex()}:{_SCRYPT_LOG_N}:{_SCRYPT_R}:{_SCRYPT_P}:{encoded}"


def verify_node_password(password_hash: str, password: str) -> bool:
    """Tell whether `password` is the one in `password_hash`. Raises InvalidPasswordHash."""
    match = _HASH.fullmatch(password_hash.strip())
    if match is None:
        raise InvalidPasswordHash("not a k3s password hash; wanted $1:<salt>:<log2 N>:<r>:<p>:<key>.")
    version, log_n, r, p = (int(match[i]) for i in (1, 3, 4, 5))
    if version != _SCRYPT_VERSION:
        raise InvalidPasswordHash(f"password hash has version {version}, wanted {_SCRYPT_VERSION}.")
    try:
        salt = bytes.fromhex(match[2])
        key = base64.b64decode(match[6] + "=" * (-len(match[6]) % 4), validate=True)
        found = _scrypt(password, salt, log_n, r, p, len(key))
    except (ValueError, binascii.Error):
        raise InvalidPasswordHash(f"password hash has unusable parameters N=2^{log_n} r={r} p={p}.") from None
    return hmac.compare_digest(found, key)


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int, length: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=1 << log_n, r=r, p=p, maxmem=_SCRYPT_MAX_MEMORY, dklen=length
    )


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _get(url: str, context: ssl.SSLContext, timeout_s: float) -> bytes:
    body = b""
    try:
        with (
            httpx.Client(verify=context, timeout=timeout_s, trust_env=False) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ServerUnreachable(f"{url} answered {response.status_code}, wanted 200 and a CA bundle.")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_CACERTS_BYTES:
                    raise ServerUnreachable(f"{url} sent more than {_MAX_CACERTS_BYTES} bytes; no CA bundle.")
    except httpx.HTTPError as error:
        raise ServerUnreachable(f"{url}: {error or type(error).__name__}. Is the k3s server up?") from error
    return body


def _root_of(leaf: x509.Certificate, others: list[x509.Certificate]) -> x509.Certificate | None:
    """Return the self-signed certificate of `others` that `leaf` leads to, as Go's Verify finds it."""
    now = dt.datetime.now(dt.UTC)
    current = leaf
    for _ in range(len(others) + 1):
        if not current.not_valid_before_utc <= now <= current.not_valid_after_utc:
            return None
        issuer = next((other for other in others if _issued(other, current)), None)
        if issuer is None:
            return None
        if _self_signed(issuer):
            return issuer if issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc else None
        current = issuer
    return None


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def _self_signed(certificate: x509.Certificate) -> bool:
    # k3s' own test for a root: no authority key id, or one that is its own subject key id.
    try:
        authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return True
    try:
        subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return False
    return authority.key_identifier is None or authority.key_identifier == subject.key_identifier
