"""What KMS answers an attested enclave with: the data key in a CMS EnvelopedData for the enclave's RSA key.

KMS writes BER, with indefinite lengths and the content in parts, which `cryptography` doesn't read (it wants
DER, and RSA PKCS #1 v1.5). The form is one and fixed: EnvelopedData version 2, one recipient named by its
key's identifier, RSAES-OAEP with SHA-256, AES-256-CBC. Anything else is refused.

Source: RFC 5652, section 6; aws-nitro-enclaves-sdk-c, source/cms.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MAX_BYTES = 16 * 1024
_MAX_DEPTH = 16
# Tags as they stand: class, constructed, number.
_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_CONTEXT_0, _CONSTRUCTED_0 = 0x80, 0xA0
_CONSTRUCTED = 0x20
_INDEFINITE = 0x80
_ENVELOPED_DATA = bytes.fromhex("2a864886f70d010703")
_DATA = bytes.fromhex("2a864886f70d010701")
_RSAES_OAEP = bytes.fromhex("2a864886f70d010107")
_AES_256_CBC = bytes.fromhex("60864801650304012a")
_KEY_BYTES, _BLOCK_BYTES = 32, 16


class CmsError(Exception):
    """No envelope for us. Says what was found and what was wanted; never anything of its content."""


@dataclass(frozen=True)
class _Element:
    tag: int
    value: bytes = b""
    parts: list[_Element] = field(default_factory=list)


def open_envelope(raw: bytes, key: RSAPrivateKey) -> bytes:
    """The content of an EnvelopedData for this key. Raises CmsError."""
    if len(raw) > MAX_BYTES:
        raise CmsError(f"found an envelope of {len(raw)} bytes, wanted at most {MAX_BYTES}")
    whole, end = _element(raw, 0, 0)
    if end != len(raw):
        raise CmsError(f"found {len(raw) - end} bytes after the envelope, wanted none")
    kind, wrapped = _parts(whole, _SEQUENCE, 2)
    _want(kind, _OID, _ENVELOPED_DATA, "the type EnvelopedData")
    (enveloped,) = _parts(wrapped, _CONSTRUCTED_0, 1)
    version, recipients, content = _parts(enveloped, _SEQUENCE, 3)
    _want(version, _INTEGER, b"\2", "version 2")
    (recipient,) = _parts(recipients, _SET, 1)
    version, _, algorithm, sealed_key = _parts(recipient, _SEQUENCE, 4)
    _want(version, _INTEGER, b"\2", "a recipient of version 2")
    _want(_parts(algorithm, _SEQUENCE, 2)[0], _OID, _RSAES_OAEP, "RSAES-OAEP")
    kind, cipher, sealed = _parts(content, _SEQUENCE, 3)
    _want(kind, _OID, _DATA, "content of the type data")
    name, iv = _parts(cipher, _SEQUENCE, 2)
    _want(name, _OID, _AES_256_CBC, "AES-256-CBC")
    if sealed_key.tag != _OCTETS or iv.tag != _OCTETS or len(iv.value) != _BLOCK_BYTES:
        raise CmsError("found another key or initialisation vector, wanted octet strings")
    return _decrypt(key, sealed_key.value, iv.value, _octets(sealed))


def _decrypt(key: RSAPrivateKey, sealed_key: bytes, iv: bytes, sealed: bytes) -> bytes:
    try:
        oaep = OAEP(mgf=MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
        content_key = key.decrypt(sealed_key, oaep)
        if len(content_key) != _KEY_BYTES:
            raise ValueError
        decryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
        unpadder = padding.PKCS7(8 * _BLOCK_BYTES).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        # One word for all of it: what failed where is nobody's to know.
        raise CmsError("found an envelope that our key doesn't open, wanted one for it") from None


def _octets(content: _Element) -> bytes:
    """[0] IMPLICIT OCTET STRING, whole or in parts."""
    if content.tag == _CONTEXT_0:
        return content.value
    if content.tag == _CONSTRUCTED_0 and all(part.tag == _OCTETS for part in content.parts):
        return b"".join(part.value for part in content.parts)
    raise CmsError(f"found content with tag {content.tag:#x}, wanted octets")


def _parts(element: _Element, tag: int, count: int) -> list[_Element]:
    if element.tag != tag or len(element.parts) != count:
        raise CmsError(
            f"found an element with tag {element.tag:#x} and {len(element.parts)} parts, wanted {tag:#x} "
            f"and {count}"
        )
    return element.parts


def _want(element: _Element, tag: int, value: bytes, what: str) -> None:
    if element.tag != tag or element.value != value:
        raise CmsError(f"found {element.tag:#x} {element.value[:16].hex()}, wanted {what}")


def _element(raw: bytes, at: int, depth: int) -> tuple[_Element, int]:
    """(the BER element at `at`, where the next one begins)."""
    if depth > _MAX_DEPTH:
        raise CmsError(f"found more than {_MAX_DEPTH} elements in one another, wanted an envelope")
    if at + 2 > len(raw):
        raise CmsError("found the end in the middle of an element, wanted an envelope, whole")
    tag, length, at = raw[at], raw[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise CmsError("found a tag of more than one byte, wanted an envelope's")
    if length == _INDEFINITE:
        if not tag & _CONSTRUCTED:
            raise CmsError("found a value without a length, wanted an envelope")
        return _until_end(raw, tag, at, depth)
    if length > _INDEFINITE:
        count = length & 0x7F
        length, at = int.from_bytes(raw[at : at + count], "big"), at + count
    end = at + length
    if end > len(raw):
        raise CmsError("found the end in the middle of an element, wanted an envelope, whole")
    if not tag & _CONSTRUCTED:
        return _Element(tag, raw[at:end]), end
    parts = []
    while at < end:
        part, at = _element(raw, at, depth + 1)
        parts.append(part)
    if at != end:
        raise CmsError("found an element that is longer than what it is in, wanted an envelope")
    return _Element(tag, b"", parts), end


def _until_end(raw: bytes, tag: int, at: int, depth: int) -> tuple[_Element, int]:
    parts = []
    while raw[at : at + 2] != b"\0\0":
        part, at = _element(raw, at, depth + 1)
        parts.append(part)
    return _Element(tag, b"", parts), at + 2
