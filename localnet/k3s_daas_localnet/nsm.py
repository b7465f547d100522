"""An emulator of the Nitro Security Module: documents that look like AWS's, under a root made at run time.

They can't pass for production: no verifier has this root built in, its name and every module id say
SIMULATION, and `k3s_daas.attestation.simulation_root` admits it on no public network. Not in any image.
"""

from __future__ import annotations

import datetime
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from k3s_daas.attestation import SIMULATION

_PCR_BYTES = 48
_PCRS = 16
_ROOT_DAYS = 3650
_LEAF_EARLY_MS = 3000
_LEAF_MS = 3 * 60 * 60 * 1000 + _LEAF_EARLY_MS
_PROTECTED = cbor2.dumps({1: -35})
_KEY_FILE = "simulated-nitro-root.key"


class NsmEmulator:
    """One machine's security module.

    :param now_ms: when its certificates start, in ms since the Unix epoch.
    """

    #: The root's certificate in the folder of `load_or_create`.
    ROOT_FILE = "simulated-nitro-root.pem"

    def __init__(self, now_ms: int, *, keys: tuple[ec.EllipticCurvePrivateKey, bytes] | None = None) -> None:
        self._root_key = keys[0] if keys else _new_key()
        if keys:
            self._root = x509.load_pem_x509_certificate(keys[1])
        else:
            name = f"{SIMULATION} nitro-enclaves {secrets.token_hex(4)}"
            self._root = _certificate(
                _name(name), self._root_key, _name(name), self._root_key, now_ms, _ROOT_DAYS * 86_400_000, 1
            )
        self._issuer_key = _new_key()
        self._issuer = _certificate(
            _name(f"{SIMULATION} i-{secrets.token_hex(8)}"),
            self._issuer_key,
            self._root.subject,
            self._root_key,
            now_ms,
            86_400_000,
            0,
        )

    @staticmethod
    def load_or_create(folder: Path, now_ms: int) -> NsmEmulator:
        """The emulator whose root is kept in `folder` (key 0600), so that processes can share it."""
        folder.mkdir(parents=True, exist_ok=True)
        key_file, root_file = folder / _KEY_FILE, folder / NsmEmulator.ROOT_FILE
        if not key_file.exists():
            made = NsmEmulator(now_ms)
            key = made._root_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            root_file.write_bytes(made.root_pem)
            handle = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(key)
            return made
        key_ = load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key_, ec.EllipticCurvePrivateKey):
            raise ValueError(
                f"{key_file} holds another kind of key, wanted the P-384 key made by this emulator"
            )
        return NsmEmulator(now_ms, keys=(key_, root_file.read_bytes()))

    def restarted(self, now_ms: int) -> NsmEmulator:
        """Another machine under the same root, started now: a machine's own certificate lives for a day."""
        return NsmEmulator(now_ms, keys=(self._root_key, self.root_pem))

    @property
    def root_pem(self) -> bytes:
        """What a localnet and its clients are told to trust."""
        return self._root.public_bytes(Encoding.PEM)

    def document(
        self,
        now_ms: int,
        *,
        pcrs: Mapping[int, bytes] | None = None,
        public_key: bytes | None = None,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        tagged: bool = False,
        indefinite: bool = False,
        certified_ms: int | None = None,
    ) -> bytes:
        """A signed document, whose leaf certificate is valid for 3 hours.

        :param certified_ms: when that certificate was made (as AWS's, it begins 3 s before); default now.
        :param pcrs: registers that are not zero. Without 0 to 2 the document says debug mode.
        :param tagged: with the COSE_Sign1 tag. :param indefinite: the payload as AWS writes it since 2025.
        """
        registers = {index: bytes(_PCR_BYTES) for index in range(_PCRS)} | dict(pcrs or {})
        module_id = f"i-{SIMULATION}-enc{secrets.token_hex(8)}"
        key = _new_key()
        start_ms = (now_ms if certified_ms is None else certified_ms) - _LEAF_EARLY_MS
        leaf = _certificate(
            _name(module_id), key, self._issuer.subject, self._issuer_key, start_ms, _LEAF_MS, None
        )
        payload = self.encode(
            {
                "module_id": module_id,
                "digest": "SHA384",
                "timestamp": now_ms,
                "pcrs": registers,
                "certificate": leaf.public_bytes(Encoding.DER),
                "cabundle": [item.public_bytes(Encoding.DER) for item in (self._root, self._issuer)],
                "public_key": public_key,
                "user_data": user_data,
                "nonce": nonce,
            },
            indefinite=indefinite,
        )
        return self.sign(payload, key, tagged=tagged)

    @staticmethod
    def encode(fields: Mapping[str, object], *, indefinite: bool = False) -> bytes:
        """A payload's CBOR."""
        if not indefinite:
            return cbor2.dumps(dict(fields))
        return b"\xbf" + b"".join(cbor2.dumps(k) + cbor2.dumps(v) for k, v in fields.items()) + b"\xff"

    @staticmethod
    def sign(
        payload: bytes,
        key: ec.EllipticCurvePrivateKey,
        *,
        tagged: bool = False,
        protected: bytes = _PROTECTED,
    ) -> bytes:
        """COSE_Sign1 over a payload."""
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return (b"\xd2" if tagged else b"") + cbor2.dumps([protected, {}, payload, signature])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    start_ms: int,
    length_ms: int,
    path_length: int | None,
) -> x509.Certificate:
    """`path_length` None makes a leaf."""
    start = datetime.datetime.fromtimestamp(start_ms // 1000, tz=datetime.UTC)
    is_ca = path_length is not None
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=not is_ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(milliseconds=length_ms))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(usage, critical=is_ca)
        .sign(issuer_key, SHA384())
    )
