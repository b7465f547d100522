from __future__ import annotations

import base64
import hashlib
import os
import pickle
import stat
from pathlib import Path

import pysui_fastcrypto
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.chain import InvalidKey, Key, keys

SEED = bytes(range(32))
# From `sui keytool import` of that seed: computed by pysui's native code as an independent implementation.
BECH32 = pysui_fastcrypto.encode_bech32(b"\0" + SEED, "suiprivkey")


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [BECH32.encode(), BECH32.encode() + b"\n", base64.b64encode(b"\0" + SEED)]
)
def test_loads_both_forms(tmp_path: Path, content: bytes) -> None:
    assert Key.load(write(tmp_path / "key", content)).address == Key(SEED).address


@given(st.binary(min_size=32, max_size=32))
def test_bech32_agrees_with_suis_own_code(seed: bytes) -> None:
    assert keys._bech32(b"\0" + seed) == pysui_fastcrypto.encode_bech32(b"\0" + seed, "suiprivkey")
    assert keys._unbech32(keys._bech32(b"\0" + seed)) == b"\0" + seed


@given(st.integers(len("suiprivkey1"), len(BECH32) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_one_wrong_character_is_noticed(position: int, character: str) -> None:
    text = BECH32[:position] + character + BECH32[position + 1 :]
    if text != BECH32:
        with pytest.raises(ValueError, match="bad checksum"):
            keys._unbech32(text)


def test_address_and_signature_are_those_of_sui() -> None:
    key = Key(SEED)
    signature = key.sign_transaction(b"transaction")
    flag, signed, public = signature[0], signature[1:65], signature[65:]
    assert flag == 0
    assert key.address == "0x" + hashlib.blake2b(b"\0" + public, digest_size=32).hexdigest()
    message = hashlib.blake2b(b"\0\0\0transaction", digest_size=32).digest()
    Ed25519PublicKey.from_public_bytes(public).verify(signed, message)


def test_a_personal_message_is_signed_as_sui_does_and_is_no_transaction() -> None:
    key = Key(SEED)
    signature = key.sign_message(b"message")
    # Scope 3, and the BCS of a vector: its length, then its bytes.
    digest = hashlib.blake2b(b"\x03\0\0\x07message", digest_size=32).digest()
    Ed25519PublicKey.from_public_bytes(signature[65:]).verify(signature[1:65], digest)
    assert keys.signer_of(b"message", signature) == key.address
    assert keys.signer_of(b"message", key.sign_transaction(b"\x07message")) is None


@given(st.binary(max_size=300), st.integers(0, 96), st.integers(1, 255))
def test_no_other_bytes_pass_for_a_signature(message: bytes, position: int, flip: int) -> None:
    key = Key(SEED)
    good = key.sign_message(message)
    bad = bytearray(good)
    bad[position] ^= flip
    assert keys.signer_of(message, bytes(bad)) != key.address
    for other in (b"", good[:-1], good + b"x"):
        assert keys.signer_of(message, other) is None
    assert keys.signer_of(message + b"x", good) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_refuses_a_key_others_can_reach(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidKey, match=f"mode {mode:04o}, wanted 0600"):
        Key.load(write(tmp_path / "key", BECH32.encode(), mode))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"suiprivkey1qqqq",
        BECH32[:-1].encode(),
        base64.b64encode(SEED),
        base64.b64encode(b"\1" + SEED),
        b"canary-0123456789abcdef",
    ],
)
def test_refuses_what_is_no_key_without_showing_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidKey, match="no Ed25519 key") as caught:
        Key.load(write(tmp_path / "key", content))
    assert content == b"" or content.decode("latin1") not in str(caught.value)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidKey, match="can't be read"):
        Key.load(tmp_path / "absent")
    with pytest.raises(InvalidKey):
        Key.load(tmp_path)


def test_creates_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        made = Key.create(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key.load(path).address == made.address
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        Key.create(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_never_shows_itself() -> None:
    key = Key(SEED)
    for shown in (repr(key), str(key), f"{key}"):
        assert shown == f"Key(address={key.address})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
