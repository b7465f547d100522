"""Reads attestation documents: COSE_Sign1 over a CBOR map. Nothing here is checked against a key yet."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import cbor2

MAX_DOCUMENT_BYTES = 16 * 1024
MAX_CHAIN = 10
# AWS's own bounds, in bytes.
_MAX_CERTIFICATE = 1024
_MAX_PUBLIC_KEY = 1024
_MAX_USER_DATA = 512
_MAX_PCRS = 32
_PCR_BYTES = 48  # SHA-384
_COSE_SIGN1_TAG = 0xD2
_ES384 = {1: -35}
_SIGNATURE_BYTES = 96
# Tags that cbor2 would turn into objects. Nothing in a document is tagged, so none of that code may run.
_KNOWN_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 43000, 100, 256, 258, 260, 261, 1004, 55799)
_DEBUG_PCRS = (0, 1, 2)


class AttestationError(Exception):
    """The document proves nothing. The message says what was found and what was wanted.

    :ivar malformed: it could not even be read, as against: it doesn't hold.
    :ivar code: what kind of lie it is, one word for programs.
    """

    def __init__(self, message: str, *, malformed: bool = False, code: str = "document_untrusted") -> None:
        super().__init__(message)
        self.malformed = malformed
        self.code = "document_malformed" if malformed else code


@dataclass(frozen=True)
class AttestationDocument:
    """What a document says. Times are ms since the Unix epoch; certificates are DER.

    :ivar pcrs: platform configuration registers by index, those that are zero included.
    :ivar certificate: the key that signed; its issuers, the root first, are in `cabundle`.
    :ivar signed: the bytes the signature is over.
    :ivar simulated: made by an emulator (set by `verify`).
    """

    module_id: str
    timestamp_ms: int
    digest: str
    pcrs: dict[int, bytes]
    certificate: bytes = field(repr=False)
    cabundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    simulated: bool = False

    def pcr(self, index: int) -> bytes:
        """A register's value. Raises AttestationError when the document has none at this index."""
        if index not in self.pcrs:
            raise AttestationError(f"no PCR {index} in the document: it has {sorted(self.pcrs)}")
        return self.pcrs[index]

    @property
    def debug(self) -> bool:
        """Whether the enclave may be looked into: debug mode zeroes the registers that name the image."""
        return any(not any(self.pcrs.get(index, b"")) for index in _DEBUG_PCRS)


def parse(raw: bytes, *, lenient: bool = False) -> AttestationDocument:
    """Read a document. Raises AttestationError, never anything else.

    :param lenient: read it as Sui does: what follows the document is ignored, and so are the unprotected
        header, registers above 31 and optional fields of other types; registers may have 32 or 64 bytes.
    """
    if not lenient and len(raw) > MAX_DOCUMENT_BYTES:
        raise _malformed(f"{len(raw)} bytes", f"at most {MAX_DOCUMENT_BYTES}")
    # A leading tag says that what follows is COSE_Sign1; AWS leaves it out.
    envelope = _decode(raw[1:] if raw[:1] == bytes([_COSE_SIGN1_TAG]) else raw, "document", lenient)
    if type(envelope) is not list or len(envelope) != 4:
        raise _malformed("another value", "an array of 4, COSE_Sign1")
    protected, unprotected, payload, signature = envelope
    if any(type(part) is not bytes for part in (protected, payload, signature)):
        raise _malformed("another value", "byte strings for header, payload and signature")
    if type(unprotected) is not dict or (unprotected and not lenient):
        raise _malformed(f"an unprotected header {unprotected!r:.60}", "an empty map")
    header = _decode(protected, "protected header", lenient)
    if type(header) is not dict or header != _ES384 or any(type(key) is not int for key in header):
        raise _malformed(f"protected header {header!r:.60}", "{1: -35}, that is ES384")
    if type(header[1]) is not int:
        raise _malformed(f"algorithm {header[1]!r:.60}", "-35, that is ES384")
    if not 1 <= len(payload) < MAX_DOCUMENT_BYTES or len(signature) != _SIGNATURE_BYTES:
        raise _malformed(
            f"a payload of {len(payload)} and a signature of {len(signature)} bytes",
            f"1 to {MAX_DOCUMENT_BYTES - 1} and {_SIGNATURE_BYTES}",
        )
    # The payload as it came: encoding it again could change it (AWS uses maps of indefinite length).
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    return _read(_decode(payload, "payload", lenient), signed, signature, lenient)


def _malformed(found: str, wanted: str) -> AttestationError:
    return AttestationError(f"no attestation document: found {found}, wanted {wanted}", malformed=True)


def _no_tag(*_: object) -> Any:
    raise ValueError("a tagged value")


def _decode(raw: bytes, what: str, lenient: bool) -> Any:
    stream = io.BytesIO(raw)
    try:
        value = cbor2.CBORDecoder(
            stream,
            tag_hook=_no_tag,
            semantic_decoders=dict.fromkeys(_KNOWN_TAGS, _no_tag),
            max_depth=8,
            allow_duplicate_keys=False,
        ).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise _malformed(f"{what} that is no plain CBOR ({error})", "CBOR") from error
    if stream.tell() != len(raw) and not lenient:
        raise _malformed(f"{len(raw) - stream.tell()} bytes after the {what}", "nothing")
    return value


def _read(payload: Any, signed: bytes, signature: bytes, lenient: bool) -> AttestationDocument:
    if type(payload) is not dict or any(type(key) is not str for key in payload):
        raise _malformed("another payload", "a map with text keys")

    def optional(key: str, maximum: int) -> bytes | None:
        value = payload.get(key)
        if type(value) is not bytes:
            if value is None or lenient:
                return None
            raise _malformed(f"{key} {value!r:.60}", "bytes or null")
        if len(value) > maximum:
            raise _malformed(f"{key} of {len(value)} bytes", f"at most {maximum}")
        return value

    module_id, digest, timestamp = (payload.get(key) for key in ("module_id", "digest", "timestamp"))
    if type(module_id) is not str or not module_id:
        raise _malformed(f"module_id {module_id!r:.60}", "text")
    if type(digest) is not str or digest != "SHA384":
        raise _malformed(f"digest {digest!r:.60}", "SHA384")
    if type(timestamp) is not int or not 0 <= timestamp < 1 << 64:
        raise _malformed(f"timestamp {timestamp!r:.60}", "ms since the Unix epoch")
    bundle = payload.get("cabundle")
    if type(bundle) is not list or not 1 <= len(bundle) <= MAX_CHAIN:
        raise _malformed("another cabundle", f"1 to {MAX_CHAIN} certificates")
    certificate: Any = payload.get("certificate")
    for item in (certificate, *bundle):
        if type(item) is not bytes or not 1 <= len(item) <= _MAX_CERTIFICATE:
            raise _malformed("another certificate", f"1 to {_MAX_CERTIFICATE} bytes of DER")
    return AttestationDocument(
        module_id=module_id,
        timestamp_ms=timestamp,
        digest=digest,
        pcrs=_read_pcrs(payload.get("pcrs"), lenient),
        certificate=certificate,
        cabundle=tuple(bundle),
        public_key=optional("public_key", _MAX_PUBLIC_KEY),
        user_data=optional("user_data", _MAX_USER_DATA),
        nonce=optional("nonce", _MAX_USER_DATA),
        signed=signed,
        signature=signature,
    )


def _read_pcrs(found: Any, lenient: bool) -> dict[int, bytes]:
    if type(found) is not dict or len(found) > _MAX_PCRS or not (found or lenient):
        raise _malformed("other pcrs", f"a map of 1 to {_MAX_PCRS} registers")
    pcrs: dict[int, bytes] = {}
    lengths = (32, _PCR_BYTES, 64) if lenient else (_PCR_BYTES,)
    for index, value in found.items():
        if type(index) is not int or not 0 <= index <= (255 if lenient else _MAX_PCRS - 1):
            raise _malformed(f"PCR index {index!r:.60}", f"0 to {_MAX_PCRS - 1}")
        if type(value) is not bytes or len(value) not in lengths:
            raise _malformed(f"PCR {index} of another form", f"{_PCR_BYTES} bytes")
        if index < _MAX_PCRS:
            pcrs[index] = value
    return dict(sorted(pcrs.items()))
