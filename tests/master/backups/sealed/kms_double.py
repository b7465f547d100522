"""A test double of AWS KMS: one key, whose policy wants one image's attestation.

It verifies attestation documents with our own library under an emulator's root, and has OpenSSL make its
CiphertextForRecipient, in the form that KMS has: another implementation than the one that is tested.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from k3s_daas.attestation import AttestationError, Root, verify

OAEP = ("-aes256", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")


def envelope(
    key: rsa.RSAPublicKey,
    content: bytes,
    *,
    streamed: bool = True,
    by_key_id: bool = True,
    options: Sequence[str] = OAEP,
) -> bytes:
    """A CMS EnvelopedData of `content` for `key`."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "recipient.pem"
        certificate.write_bytes(_certificate(key))
        how = [*(["-stream"] if streamed else []), *(["-keyid"] if by_key_id else [])]
        command = ["openssl", "cms", "-encrypt", "-binary", "-outform", "DER", *how]
        recipient = ["-recip", str(certificate), *(one for one in options if one.startswith("-aes"))]
        rest = [one for one in options if not one.startswith("-aes")]
        done = subprocess.run(
            [*command, *recipient[2:], *recipient[:2], *rest], input=content, capture_output=True, check=True
        )
    return done.stdout


def _certificate(key: rsa.RSAPublicKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "enclave")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key).serial_number(7)
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


@dataclass
class KmsDouble:
    """`pcr0` is what the key's policy allows; `root` what documents must chain to.

    `change` may alter an answer on its way: the parent in the middle of a broken TLS.
    """

    arn: str
    pcr0: bytes
    root: Root
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    requests: list[tuple[httpx.Request, dict[str, Any]]] = field(default_factory=list)
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "169.254.169.254":
            return self._metadata(request)
        body = json.loads(request.content)
        self.requests.append((request, body))
        said = base64.b64decode(body["Recipient"]["AttestationDocument"])
        try:
            now_ms = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
            document = verify(said, now_ms=now_ms, root=self.root)
        except AttestationError as error:
            return self._refusal("ValidationException", str(error))
        if document.pcr(0) != self.pcr0:
            return self._refusal("AccessDeniedException", "no key policy allows this image")
        assert document.public_key is not None
        public = load_der_public_key(document.public_key)
        assert isinstance(public, rsa.RSAPublicKey)
        context = json.dumps(body["EncryptionContext"], sort_keys=True).encode()
        action = request.headers["x-amz-target"]
        answer = {"KeyId": self.arn}
        if action == "TrentService.GenerateDataKey":
            plain, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
            wrapped = nonce + AESGCM(self.key).encrypt(nonce, plain, context)
            answer["CiphertextBlob"] = base64.b64encode(wrapped).decode()
        else:
            assert action == "TrentService.Decrypt"
            wrapped = base64.b64decode(body["CiphertextBlob"])
            try:
                plain = AESGCM(self.key).decrypt(wrapped[:12], wrapped[12:], context)
            except InvalidTag:
                return self._refusal("InvalidCiphertextException", "")
        answer["CiphertextForRecipient"] = base64.b64encode(envelope(public, plain)).decode()
        return httpx.Response(200, json=self.change(answer))

    @staticmethod
    def _refusal(kind: str, message: str) -> httpx.Response:
        return httpx.Response(400, json={"__type": f"com.amazonaws.kms#{kind}", "message": message})

    @staticmethod
    def _metadata(request: httpx.Request) -> httpx.Response:
        """The instance's, version 2: nothing without a token."""
        if request.method == "PUT":
            assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            return httpx.Response(200, text="a-token")
        if request.headers.get("X-aws-ec2-metadata-token") != "a-token":
            return httpx.Response(401)
        if request.url.path.endswith("/security-credentials/"):
            return httpx.Response(200, text="parent-role")
        assert request.url.path.endswith("/security-credentials/parent-role")
        found = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret-of-role", "Token": "session"}
        return httpx.Response(200, json=found)
