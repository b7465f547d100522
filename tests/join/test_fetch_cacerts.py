"""fetch_cacerts trusts nothing but the promised hash."""

import datetime as dt
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k3s_daas import join

Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
Serve = Callable[[Pair, list[bytes]], AbstractContextManager[str]]


def issue(common_name: str, issuer: Pair | None = None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    signer = issuer[0] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[1].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=issuer is None,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    return key, builder.sign(signer, hashes.SHA256())


def pem(pair: Pair) -> bytes:
    return pair[1].public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @contextmanager
    def run(server: Pair, bodies: list[bytes]) -> Iterator[str]:
        answers = iter(bodies)
        last = bodies[-1]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = next(answers, last)
                self.send_response(200 if self.path == "/cacerts" and body else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        file = tmp_path / "server.pem"
        key = server[0].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(key + pem(server))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            httpd.server_close()
            thread.join()

    return run


def test_the_promised_bundle_is_returned_byte_for_byte(serve: Serve) -> None:
    ca = issue("k3s-server-ca")
    with serve(issue("k3s", ca), [pem(ca)]) as url:
        assert join.fetch_cacerts(url, join.ca_hash(pem(ca))) == pem(ca)


def test_another_ca_is_a_mismatch_that_names_both_hashes(serve: Serve) -> None:
    ca, promised = issue("k3s-server-ca"), issue("k3s-server-ca")
    with serve(issue("k3s", ca), [pem(ca)]) as url, pytest.raises(join.CaMismatch) as caught:
        join.fetch_cacerts(url, join.ca_hash(pem(promised)))
    assert caught.value.found == join.ca_hash(pem(ca)).hex()
    assert caught.value.wanted == join.ca_hash(pem(promised)).hex()


def test_the_right_bundle_in_the_wrong_hands_is_refused(serve: Serve) -> None:
    ca, attacker = issue("k3s-server-ca"), issue("k3s-server-ca")
    with (
        serve(issue("k3s", attacker), [pem(ca)]) as url,
        pytest.raises(join.ServerUnreachable, match="certificate verify failed"),
    ):
        join.fetch_cacerts(url, join.ca_hash(pem(ca)))


def test_a_bundle_that_changes_between_the_requests_is_refused(serve: Serve) -> None:
    ca, other = issue("k3s-server-ca"), issue("other")
    server = issue("k3s", ca)
    with (
        serve(server, [pem(ca), pem(other)]) as url,
        pytest.raises(join.ServerUnreachable, match="two different"),
    ):
        join.fetch_cacerts(url, join.ca_hash(pem(ca)))


@pytest.mark.parametrize(("body", "error"), [(b"", "503"), (b"A" * (2 << 20), "more than")])
def test_an_answer_that_is_no_bundle(serve: Serve, body: bytes, error: str) -> None:
    with serve(issue("k3s"), [body]) as url, pytest.raises(join.ServerUnreachable, match=error):
        join.fetch_cacerts(url, b"\0" * 32)


def test_nothing_listening_there(unused_port: int) -> None:
    with pytest.raises(join.ServerUnreachable, match="Is the k3s server up"):
        join.fetch_cacerts(f"https://127.0.0.1:{unused_port}", b"\0" * 32, timeout_s=2)


@pytest.fixture
def unused_port() -> int:
    httpd = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    httpd.server_close()
    return int(httpd.server_port)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:6443", "127.0.0.1:6443", "https://h:6443/cacerts", "https://"]
)
def test_only_plain_https_urls(url: str) -> None:
    with pytest.raises(join.ServerUnreachable, match="wanted https"):
        join.fetch_cacerts(url, b"\0" * 32)


def test_a_hash_of_the_wrong_length_never_matches() -> None:
    with pytest.raises(join.CaMismatch, match="not 32 bytes"):
        join.fetch_cacerts("https://127.0.0.1:1", b"")
