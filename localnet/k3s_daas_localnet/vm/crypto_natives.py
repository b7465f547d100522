"""The cryptographic natives of 0x1 and 0x2, attestation among them.

Not here, so failing by name: groups and pairings (`group_ops`), BLS with signatures in G1, VRF, Groth16,
Poseidon, VDF and zkLogin, for which no library is at hand.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

import pysui_fastcrypto
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from k3s_daas import attestation

from .errors import NativeAbort
from .keccak import keccak256
from .native_table import HASH_BLOCK, Native, blake2b256, bytes_of, native
from .recover import SECP256K1, SECP256R1, Curve
from .types import Type
from .values import U8Value, Value

if TYPE_CHECKING:
    from .interpreter import Interpreter

# Abort codes of the framework's own natives.
_K1_INVALID_PUBLIC_KEY = 2
_ECDSA_NO_KEY = 0
_ECDSA_INVALID_SIGNATURE = 1
_NITRO_PARSE = 1
_NITRO_VERIFY = 2

# The others are listed only when they are not zero.
_NITRO_REQUIRED_PCRS = frozenset((0, 1, 2, 3, 4, 8))

_BLS_COMPRESSED_G1 = 48
_SIGNATURE_STEPS = 2000
# Measured; keccak and key recovery are plain Python.
_KECCAK_BLOCK_US = 400
_SIGNATURE_US = 300
_RECOVERY_US = 5_000
_PAIRING_US = 1_200
_CERTIFICATE_US = 800


def _hash(
    address: str,
    module: str,
    name: str,
    digest: Callable[[bytes], bytes],
    by_reference: bool,
    block_us: int = 0,
) -> None:
    def run(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
        data = bytes_of(args[0]) if by_reference else bytes(args[0])
        vm.charge(1 + len(data) // HASH_BLOCK, block_us * (1 + len(data) // HASH_BLOCK))
        return [bytearray(digest(data))]

    native(address, module, name)(run)


_hash("0x1", "hash", "sha2_256", lambda data: hashlib.sha256(data).digest(), by_reference=False)
_hash("0x1", "hash", "sha3_256", lambda data: hashlib.sha3_256(data).digest(), by_reference=False)
_hash("0x2", "hash", "blake2b256", blake2b256, by_reference=True)
_hash("0x2", "hash", "keccak256", keccak256, by_reference=True, block_us=_KECCAK_BLOCK_US)


@native("0x2", "hmac", "hmac_sha3_256")
def _hmac(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    key, message = bytes_of(args[0]), bytes_of(args[1])
    vm.charge(4 + (len(key) + len(message)) // HASH_BLOCK)
    return [bytearray(hmac.new(key, message, hashlib.sha3_256).digest())]


@native("0x2", "ed25519", "ed25519_verify")
def _ed25519_verify(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    signature, key, message = (bytes_of(argument) for argument in args)
    vm.charge(_SIGNATURE_STEPS + len(message) // HASH_BLOCK, _SIGNATURE_US)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return [False]
    return [True]


def _ecdsa_digest(vm: Interpreter, message: bytes, hash_function: int) -> bytes | None:
    """0 is keccak256, 1 is sha256; anything else is no hash function."""
    if hash_function == 0:
        vm.charge(0, _KECCAK_BLOCK_US * (1 + len(message) // HASH_BLOCK))
        return keccak256(message)
    return hashlib.sha256(message).digest() if hash_function == 1 else None


def _ecdsa_verify(curve: ec.EllipticCurve, order: int) -> Native:
    def run(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
        signature, key, message = (bytes_of(argument) for argument in args[:3])
        vm.charge(_SIGNATURE_STEPS + len(message) // HASH_BLOCK, _SIGNATURE_US)
        digest = _ecdsa_digest(vm, message, args[3])
        if digest is None or len(signature) != 64 or len(key) != 33:
            return [False]
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if s > order // 2:  # only the lower of the two valid signatures counts
            return [False]
        try:
            public = ec.EllipticCurvePublicKey.from_encoded_point(curve, key)
            public.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        except (InvalidSignature, ValueError):
            return [False]
        return [True]

    return run


def _ecdsa_recover(curve: Curve) -> Native:
    def run(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
        signature, message = bytes_of(args[0]), bytes_of(args[1])
        vm.charge(_SIGNATURE_STEPS + len(message) // HASH_BLOCK, _RECOVERY_US)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        if len(signature) != 65 or signature[64] > 3 or not (0 < r < curve.order and 0 < s < curve.order):
            raise NativeAbort(_ECDSA_INVALID_SIGNATURE)
        digest = _ecdsa_digest(vm, message, args[2])
        if digest is None:
            raise NativeAbort(_ECDSA_NO_KEY)
        try:
            return [bytearray(curve.recover(digest, r, s, signature[64]))]
        except ValueError:
            raise NativeAbort(_ECDSA_NO_KEY) from None

    return run


native("0x2", "ecdsa_k1", "secp256k1_verify")(_ecdsa_verify(ec.SECP256K1(), SECP256K1.order))
native("0x2", "ecdsa_r1", "secp256r1_verify")(_ecdsa_verify(ec.SECP256R1(), SECP256R1.order))
native("0x2", "ecdsa_k1", "secp256k1_ecrecover")(_ecdsa_recover(SECP256K1))
native("0x2", "ecdsa_r1", "secp256r1_ecrecover")(_ecdsa_recover(SECP256R1))


@native("0x2", "bls12381", "bls12381_min_pk_verify")
def _bls_min_pk_verify(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    signature, key, message = (bytes_of(argument) for argument in args)
    vm.charge(2 * _SIGNATURE_STEPS + len(message) // HASH_BLOCK)
    if len(key) != _BLS_COMPRESSED_G1:  # the library takes the long form too, Sui doesn't
        return [False]
    try:
        return [bool(pysui_fastcrypto.bls_verify(key, signature, message))]
    except ValueError:
        return [False]


@native("0x2", "ecdsa_k1", "decompress_pubkey")
def _decompress(vm: Interpreter, types: tuple[Type, ...], args: list[Value]) -> list[Value]:
    key = bytes_of(args[0])
    vm.charge(_SIGNATURE_STEPS, _SIGNATURE_US)
    if len(key) != 33:
        raise NativeAbort(_K1_INVALID_PUBLIC_KEY)
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
    except ValueError:
        raise NativeAbort(_K1_INVALID_PUBLIC_KEY) from None
    return [bytearray(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))]


@native("0x2", "nitro_attestation", "load_nitro_attestation_internal")
def _load_nitro_attestation(vm: Interpreter, _: tuple[Type, ...], args: list[Value]) -> list[Value]:
    """As the newest protocol versions do it. Debug documents and old ones are for the contract to refuse."""
    raw, now_ms = bytes_of(args[0]), int(args[1])
    vm.charge(_SIGNATURE_STEPS + len(raw) // HASH_BLOCK, _SIGNATURE_US)
    try:
        document = attestation.parse(raw, lenient=True)
    except attestation.AttestationError:
        raise NativeAbort(_NITRO_PARSE) from None
    vm.charge(_SIGNATURE_STEPS * len(document.cabundle), _CERTIFICATE_US * (1 + len(document.cabundle)))
    root = attestation.AWS_ROOT
    if vm.host.simulated_nitro_root is not None and attestation.SIMULATION in document.module_id:
        root = vm.host.simulated_nitro_root
    try:
        attestation.check_signature(document, now_ms=now_ms, root=root)
    except attestation.AttestationError:
        raise NativeAbort(_NITRO_VERIFY) from None
    pcrs = [
        [U8Value(index), bytearray(value)]
        for index, value in document.pcrs.items()
        if any(value) or index in _NITRO_REQUIRED_PCRS
    ]
    optional = (document.public_key, document.user_data, document.nonce)
    found: list[Value] = [
        bytearray(document.module_id.encode()),
        document.timestamp_ms,
        bytearray(document.digest.encode()),
        pcrs,
        *([[] if item is None else [bytearray(item)]] for item in optional),
    ]
    return [found]
