"""Checks that the right keys signed a transaction.

A serialized signature is flag || signature (64 bytes) || public key; an address is the hash of
flag || public key. ed25519, secp256k1 and secp256r1 are supported, as wallets use them.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from .encoding import blake2b, hex_address
from .errors import Refused

_ED25519, _SECP256K1, _SECP256R1 = 0, 1, 2
_SIGNATURE_BYTES = 64
_CURVES: dict[int, tuple[ec.EllipticCurve, int]] = {
    # curve and order: a signature with s in the upper half is a malleable twin and refused
    _SECP256K1: (ec.SECP256K1(), 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141),
    _SECP256R1: (ec.SECP256R1(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
}
_KEY_BYTES = {_ED25519: 32, _SECP256K1: 33, _SECP256R1: 33}


def signer(signature: bytes, message: bytes) -> bytes:
    """Address of the key that made ``signature`` over ``message`` (a 32-byte signing digest).

    :raises Refused: unknown scheme, wrong length or wrong signature.
    """
    flag = signature[0] if signature else -1
    if flag not in _KEY_BYTES:
        raise Refused(
            f"Invalid user signature: signature scheme {flag} is not supported; "
            "wanted 0 (ed25519), 1 (secp256k1) or 2 (secp256r1)"
        )
    wanted = 1 + _SIGNATURE_BYTES + _KEY_BYTES[flag]
    if len(signature) != wanted:
        raise Refused(f"Invalid user signature: found {len(signature)} bytes, wanted {wanted}")
    raw, key = signature[1 : 1 + _SIGNATURE_BYTES], signature[1 + _SIGNATURE_BYTES :]
    try:
        if flag == _ED25519:
            Ed25519PublicKey.from_public_bytes(key).verify(raw, message)
        else:
            _verify_ecdsa(flag, key, raw, message)
    except (InvalidSignature, ValueError):
        raise Refused(
            "Invalid user signature: Signature is not valid: it does not belong to this transaction and key"
        ) from None
    return blake2b(bytes([flag]) + key)


def _verify_ecdsa(flag: int, key: bytes, raw: bytes, message: bytes) -> None:
    curve, order = _CURVES[flag]
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    if s > order // 2:
        raise InvalidSignature
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, key)
    public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def check(signatures: Sequence[bytes], message: bytes, sender: bytes, gas_owner: bytes) -> None:
    """Refuses unless exactly the sender and, when another pays, the gas owner signed.

    :raises Refused: a signature is wrong, missing or one too many.
    """
    signers = [signer(signature, message) for signature in signatures]
    required = {sender, gas_owner}
    for address in required - set(signers):
        raise Refused(
            f"Required Signature from {hex_address(address)} is absent "
            f"{[hex_address(found) for found in signers]}"
        )
    if len(signers) != len(required):
        raise Refused(f"Expect {len(required)} signer signatures but got {len(signers)}")
