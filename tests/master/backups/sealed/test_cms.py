"""Envelopes as KMS writes them, made by OpenSSL: BER, indefinite lengths, content in parts."""

from __future__ import annotations

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from kms_double import envelope

from k3s_daas_master.sealed.cms import CmsError, open_envelope

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL makes the envelopes")
CONTENT = bytes(range(32))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def sealed(key: rsa.RSAPrivateKey) -> bytes:
    return envelope(key.public_key(), CONTENT)


def test_what_openssl_seals_is_opened(key: rsa.RSAPrivateKey, sealed: bytes) -> None:
    assert sealed[1] == 0x80  # of indefinite length
    assert open_envelope(sealed, key) == CONTENT


def test_also_of_definite_length(key: rsa.RSAPrivateKey) -> None:
    whole = envelope(key.public_key(), CONTENT, streamed=False)
    assert whole[1] != 0x80
    assert open_envelope(whole, key) == CONTENT


@pytest.mark.parametrize("content", [b"", b"x", bytes(15), bytes(16), bytes(5000)])
def test_content_of_any_length(key: rsa.RSAPrivateKey, content: bytes) -> None:
    assert open_envelope(envelope(key.public_key(), content), key) == content


def test_another_key_opens_nothing(sealed: bytes) -> None:
    with pytest.raises(CmsError, match="our key doesn't open"):
        open_envelope(sealed, rsa.generate_private_key(public_exponent=65537, key_size=2048))


@pytest.mark.parametrize(
    "options",
    [
        ["-aes128"],
        ["-aes-256-gcm"],
        ["-aes256", "-keyopt", "rsa_padding_mode:pkcs1"],
        ["-aes256", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha1"],
    ],
)
def test_weaker_or_other_ones_are_refused(key: rsa.RSAPrivateKey, options: list[str]) -> None:
    with pytest.raises(CmsError):
        open_envelope(envelope(key.public_key(), CONTENT, options=options), key)


def test_by_issuer_and_number_is_refused(key: rsa.RSAPrivateKey) -> None:
    with pytest.raises(CmsError, match="version 2"):
        open_envelope(envelope(key.public_key(), CONTENT, by_key_id=False), key)


def test_cut_anywhere_it_is_none(key: rsa.RSAPrivateKey, sealed: bytes) -> None:
    for length in range(len(sealed)):
        with pytest.raises(CmsError):
            open_envelope(sealed[:length], key)
    with pytest.raises(CmsError, match="1 bytes after"):
        open_envelope(sealed + b"\0", key)


@settings(max_examples=200, deadline=None)
@given(
    raw=st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda raw: b"\x30\x80" * 40 + raw))
)
def test_any_bytes_are_refused_and_nothing_else_happens(key: rsa.RSAPrivateKey, raw: bytes) -> None:
    with pytest.raises(CmsError):
        open_envelope(raw, key)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_ones_are_refused_or_give_other_content(
    key: rsa.RSAPrivateKey, sealed: bytes, data: st.DataObject
) -> None:
    """CBC has no tag: that the data key is the right one is what the snapshot's own tag says."""
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        open_envelope(bytes(changed), key)
    except CmsError:
        return


def test_a_flood_is_refused(key: rsa.RSAPrivateKey, sealed: bytes) -> None:
    with pytest.raises(CmsError, match="at most"):
        open_envelope(sealed + bytes(16 * 1024), key)
