"""What a k3s agent asks its server for when it joins, as a test may ask for it, too."""

from __future__ import annotations

import datetime as dt
import hashlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

KUBELET, SERVING = "client-kubelet", "serving-kubelet"
KUBE_PROXY, CONTROLLER = "client-kube-proxy", "client-k3s-controller"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in one PEM file."""

    file: Path
    certificate: x509.Certificate

    @property
    def name(self) -> str:
        [found] = self.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(found.value)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()


@dataclass(frozen=True)
class Agent:
    """An agent with a bootstrap token (`id.secret`) and a node password, right or wrong."""

    url: str
    server_ca: Path
    folder: Path
    token: str
    node_id: str
    password: str

    def ask(self, what: str, node_id: str | None = None, password: str | None = None) -> httpx.Response:
        """k3s' answer to a request for the certificate `what`, of another name if one is given."""
        return self._post(what, self._key(), node_id, password)

    def fetch(self, what: str) -> Pair:
        """A certificate of this agent's own."""
        key = self._key()
        answer = self._post(what, key)
        assert answer.status_code == 200, f"{what}: {answer.status_code} {answer.text}"
        return keep(answer.content, key, self.folder)

    def fetch_as(self, pair: Pair, what: str) -> httpx.Response:
        """k3s' answer when asked with a certificate instead of the token."""
        return self._post_as(pair, what, self._key())

    def mint_as(self, pair: Pair, what: str) -> Pair:
        """A certificate that k3s signs for whoever shows another."""
        key = self._key()
        answer = self._post_as(pair, what, key)
        assert answer.status_code == 200, f"{what}: {answer.status_code} {answer.text}"
        return keep(answer.content, key, self.folder)

    def _post_as(self, pair: Pair, what: str, key: ec.EllipticCurvePrivateKey) -> httpx.Response:
        with connect(self.url, self.server_ca, pair) as client:
            return client.post(f"/v1-k3s/{what}.crt", content=_csr(key), headers=self._headers())

    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    def _headers(self, node_id: str | None = None, password: str | None = None) -> dict[str, str]:
        return {
            "k3s-Node-Name": node_id or self.node_id,
            "k3s-Node-Password": password or self.password,
            "k3s-Node-IP": "192.0.2.9",
        }

    def _post(
        self,
        what: str,
        key: ec.EllipticCurvePrivateKey,
        node_id: str | None = None,
        password: str | None = None,
    ) -> httpx.Response:
        headers = self._headers(node_id, password) | {"authorization": f"Bearer {self.token}"}
        with connect(self.url, self.server_ca) as client:
            return client.post(f"/v1-k3s/{what}.crt", content=_csr(key), headers=headers)


def connect(url: str, server_ca: Path, pair: Pair | None = None) -> httpx.Client:
    """The server by HTTP, as whoever a certificate names."""
    context = ssl.create_default_context(cafile=str(server_ca))
    if pair is not None:
        context.load_cert_chain(pair.file)
    return httpx.Client(base_url=url, verify=context, trust_env=False, timeout=30)


def forge(ca_cert: Path, ca_key: Path, user: str, folder: Path) -> Pair:
    """A certificate of the group system:nodes that k3s never signed, though its CA did."""
    ca = x509.load_pem_x509_certificates(ca_cert.read_bytes())[0]
    signer = load_pem_private_key(ca_key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    organization = x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:nodes")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([organization, x509.NameAttribute(x509.NameOID.COMMON_NAME, user)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return keep(certificate.public_bytes(Encoding.PEM), key, folder)


def keep(pem: bytes, key: ec.EllipticCurvePrivateKey, folder: Path) -> Pair:
    """Write both into one file of `folder`, 0600."""
    certificate = x509.load_pem_x509_certificates(pem)[0]
    file = folder / f"{certificate.serial_number:x}.pem"
    file.touch(0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem)
    return Pair(file, certificate)


def load(pem: str, file: Path) -> Pair:
    """A certificate and its key, as an agent has them on its disk."""
    file.touch(0o600)
    file.write_text(pem)
    return Pair(file, x509.load_pem_x509_certificates(pem.encode())[0])


class Tunnel:
    """The connection that an agent opens for the API server to reach its kubelet by."""

    def __init__(self, url: str, server_ca: Path, pair: Pair) -> None:
        address = urlsplit(url)
        context = ssl.create_default_context(cafile=str(server_ca))
        context.load_cert_chain(pair.file)
        plain = socket.create_connection((address.hostname, address.port), timeout=20)
        self._socket = context.wrap_socket(plain, server_hostname=address.hostname)
        self._socket.sendall(
            f"GET /v1-k3s/connect HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        answer = self._socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def closed_within(self, seconds: float) -> bool:
        """Whether the other side ends it within that time."""
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(4096):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As k3s' agent makes it: without a name."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


class Watch(threading.Thread):
    """A watch of all pods with a certificate, open until somebody ends it."""

    def __init__(self, url: str, server_ca: Path, pair: Pair) -> None:
        super().__init__(daemon=True)
        self._client = connect(url, server_ca, pair)
        self.opened, self.ended = threading.Event(), threading.Event()

    def run(self) -> None:
        path = "/api/v1/pods?watch=true&timeoutSeconds=3000"
        try:
            with self._client.stream("GET", path, timeout=3000) as answer:
                assert answer.status_code == 200
                self.opened.set()
                for _ in answer.iter_bytes():
                    pass
        except httpx.HTTPError:
            pass
        finally:
            self.ended.set()
            self._client.close()
