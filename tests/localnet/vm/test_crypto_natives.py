"""Natives that verify signatures, against keys made here and one published signature."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from k3s_daas_localnet.vm import CodeStore, Interpreter, ModuleId, MoveAbort, PureHost, Ref, parse_address
from k3s_daas_localnet.vm.keccak import keccak256

_MESSAGE = b"hello"


def _call(store: CodeStore, target: str, *args: Any) -> Any:
    module, function = target.split("::")
    values = [Ref.to(bytearray(item)) if isinstance(item, bytes) else item for item in args]
    return Interpreter(store, PureHost()).call(ModuleId(parse_address("0x2"), module), function, [], values)[
        0
    ]


@pytest.mark.parametrize(
    ("curve", "target"),
    [
        (ec.SECP256K1(), "ecdsa_k1::secp256k1_ecrecover"),
        (ec.SECP256R1(), "ecdsa_r1::secp256r1_ecrecover"),
    ],
    ids=["k1", "r1"],
)
@pytest.mark.parametrize("hash_function", [0, 1])
def test_a_signature_gives_back_its_key(
    store: CodeStore, curve: ec.EllipticCurve, target: str, hash_function: int
) -> None:
    key = ec.generate_private_key(curve)
    digest = keccak256(_MESSAGE) if hash_function == 0 else hashlib.sha256(_MESSAGE).digest()
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    encoded = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    wanted = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    found = [bytes(_call(store, target, encoded + bytes([v]), _MESSAGE, hash_function)) for v in (0, 1)]
    assert wanted in found
    assert found[0] != found[1]
    other = [bytes(_call(store, target, encoded + bytes([v]), b"other", hash_function)) for v in (0, 1)]
    assert wanted not in other


@pytest.mark.parametrize(
    ("signature", "hash_function", "code"),
    [
        (b"\1" * 64, 1, 1),
        (b"\1" * 66, 1, 1),
        (b"\1" * 64 + b"\4", 1, 1),
        (bytes(32) + b"\1" * 32 + b"\0", 1, 1),
        (b"\1" * 32 + bytes(32) + b"\0", 1, 1),
        (b"\xff" * 64 + b"\0", 1, 1),
        (b"\1" * 64 + b"\0", 2, 0),
        (b"\1" * 64 + b"\2", 1, 0),  # r + order is no x of the field
        (b"\0" * 31 + b"\5" + b"\1" * 32 + b"\0", 1, 0),  # 5 is no x of a point of secp256k1
    ],
)
def test_what_recovers_to_nothing(store: CodeStore, signature: bytes, hash_function: int, code: int) -> None:
    with pytest.raises(MoveAbort) as caught:
        _call(store, "ecdsa_k1::secp256k1_ecrecover", signature, _MESSAGE, hash_function)
    assert caught.value.code == code


def test_bls_signatures_in_g2(store: CodeStore) -> None:
    """Round 2373935 of drand's public randomness."""
    key = bytes.fromhex(
        "868f005eb8e6e4ca0a47c8a77ceaa5309a47978a7c71bc5cce96366b5d7a569937c529eeda66c7293784a9402801af31"
    )
    signature = bytes.fromhex(
        "a2cd8577944b84484ef557a7f92f0d5092779497cc470b1b97680b8f7c807d97"
        "250d310b801c7c2185c7c8a21032d45403b97530ca87bd8f05d0cf4ffceb4bcb"
        "9bf7184fb604967db7e9e6ea555bc51b25a9e41fbd51181f712aa73aaec749fe"
    )
    previous = bytes.fromhex(
        "a96aace596906562dc525dba4dff734642d71b334d51324f9c9bcb5a3d6caf14"
        "b05cde91d6507bf4615cb4285e5b4efd1358ebc46b80b51e338f9dc46cca17cf"
        "2e046765ba857c04101a560887fa81aef101a5bb3b2350884558bd3adc72be37"
    )
    message = hashlib.sha256(previous + (2373935).to_bytes(8, "big")).digest()
    verify = "bls12381::bls12381_min_pk_verify"
    assert _call(store, verify, signature, key, message) is True
    assert _call(store, verify, signature, key, b"another") is False
    assert _call(store, verify, b"\x11" + signature[1:], key, message) is False
    assert _call(store, verify, signature[1:], key, message) is False
    assert _call(store, verify, signature, key[1:], message) is False
    assert _call(store, verify, signature, key + key, message) is False
    assert _call(store, verify, b"", b"", b"") is False
