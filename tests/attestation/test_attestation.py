"""Attestation documents: the emulator's hold under its own root, every changed one is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s_daas.attestation import (
    AWS_ROOT,
    MAX_DOCUMENT_BYTES,
    AttestationError,
    Root,
    parse,
    simulation_root,
    verify,
)
from k3s_daas_localnet import nsm
from k3s_daas_localnet.nsm import NsmEmulator

NOW = 1_760_000_000_000
HOUR = 60 * 60 * 1000
IMAGE = {0: b"\x11" * 48, 1: b"\x22" * 48, 2: b"\x33" * 48, 16: b"\x44" * 48}


@pytest.fixture(scope="session")
def emulator() -> NsmEmulator:
    return NsmEmulator(NOW)


@pytest.fixture(scope="session")
def root(emulator: NsmEmulator) -> Root:
    return simulation_root(emulator.root_pem, "localnet")


@pytest.fixture(scope="session")
def raw(emulator: NsmEmulator) -> bytes:
    return emulator.document(NOW, pcrs=IMAGE, public_key=b"k" * 32, user_data=b"u", nonce=b"n")


def test_a_document_and_what_it_says(raw: bytes, root: Root) -> None:
    document = verify(raw, now_ms=NOW + 1000, root=root)
    assert document.pcr(0) == IMAGE[0]
    assert document.pcr(16) == IMAGE[16]
    assert document.pcr(8) == bytes(48)
    assert (document.public_key, document.user_data, document.nonce) == (b"k" * 32, b"u", b"n")
    assert (document.timestamp_ms, document.digest) == (NOW, "SHA384")
    assert document.simulated
    assert "SIMULATION" in document.module_id
    assert not document.debug
    with pytest.raises(AttestationError, match="no PCR 17"):
        document.pcr(17)


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("indefinite", [False, True])
def test_forms_of_the_same_document(
    emulator: NsmEmulator, root: Root, tagged: bool, indefinite: bool
) -> None:
    raw = emulator.document(NOW, pcrs=IMAGE, tagged=tagged, indefinite=indefinite)
    document = verify(raw, now_ms=NOW, root=root)
    assert document.pcr(0) == IMAGE[0]
    assert document.public_key is document.user_data is document.nonce is None


def test_every_flipped_bit_is_noticed(raw: bytes, root: Root) -> None:
    """A bit of each byte. (Signatures are over all but the envelope, which has one valid form.)"""
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        with pytest.raises(AttestationError):
            verify(bytes(changed), now_ms=NOW, root=root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_accepted_or_crashes(raw: bytes, root: Root, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(raw) - 1))
    length = data.draw(st.integers(0, 64))
    damaged = raw[:at] + data.draw(st.binary(max_size=64)) + raw[at + length :]
    if damaged != raw:
        with pytest.raises(AttestationError):
            verify(damaged, now_ms=NOW, root=root)


_cbor = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(_cbor, max_size=5), raw=st.binary(max_size=200))
def test_arbitrary_bytes_and_cbor_are_refused(parts: list[Any], raw: bytes) -> None:
    for found in (raw, b"\xd2" + raw, cbor2.dumps(parts)):
        for lenient in (False, True):
            with pytest.raises(AttestationError):
                parse(found, lenient=lenient)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"]), value=_cbor
)
def test_fields_of_other_types_are_refused(emulator: NsmEmulator, root: Root, key: str, value: Any) -> None:
    """Well signed, so that only the reading can refuse it."""
    fields = _fields(emulator)
    fields[key] = value
    raw = NsmEmulator.sign(cbor2.dumps(fields), _KEY)
    with pytest.raises(AttestationError):
        verify(raw, now_ms=NOW, root=root)


_KEY = ec.generate_private_key(ec.SECP384R1())


def _fields(emulator: NsmEmulator, path_length: int | None = None, length_ms: int = HOUR) -> dict[str, Any]:
    """A payload that _KEY may sign."""
    leaf = nsm._certificate(
        nsm._name("SIMULATION leaf"),
        _KEY,
        emulator._issuer.subject,
        emulator._issuer_key,
        NOW,
        length_ms,
        path_length,
    )
    return {
        "module_id": "SIMULATION",
        "digest": "SHA384",
        "timestamp": NOW,
        "pcrs": dict(IMAGE),
        "certificate": leaf.public_bytes(Encoding.DER),
        "cabundle": [c.public_bytes(Encoding.DER) for c in (emulator._root, emulator._issuer)],
        "public_key": None,
        "user_data": None,
        "nonce": None,
    }


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields.pop(key)


def _with(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_without("module_id"), "module_id"),
        (_with("module_id", ""), "module_id"),
        (_with("module_id", "i-0123456789abcdef0-enc0"), "wanted SIMULATION"),
        (_with("digest", "SHA256"), "SHA256"),
        (_with("timestamp", -1), "timestamp"),
        (_with("timestamp", 1 << 64), "no plain CBOR|timestamp"),
        (_with("timestamp", True), "timestamp"),
        (_with("pcrs", {}), "pcrs"),
        (_with("pcrs", {i: bytes(48) for i in range(33)}), "pcrs|index"),
        (_with("pcrs", {32: bytes(48)}), "index"),
        (_with("pcrs", {False: bytes(48)}), "index"),
        (_with("pcrs", {0: bytes(32)}), "PCR 0"),
        (_with("cabundle", []), "cabundle"),
        (_with("cabundle", [b"x"] * 11), "cabundle"),
        (_with("cabundle", [b"x"]), "certificate"),
        (_with("certificate", bytes(1025)), "certificate"),
        (_with("public_key", bytes(1025)), "public_key of 1025"),
        (_with("user_data", bytes(513)), "user_data of 513"),
        (_with("nonce", bytes(513)), "nonce of 513"),
        (_with("nonce", "text"), "nonce 'text'"),
        (lambda f: f["cabundle"].pop(), "was not issued by"),
        (lambda f: f["cabundle"].reverse(), "allowed|was not issued by"),
        (lambda f: f["cabundle"].insert(1, f["cabundle"][0]), "was not issued|stands"),
    ],
)
def test_wrong_fields(
    emulator: NsmEmulator, root: Root, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    fields = _fields(emulator)
    verify(NsmEmulator.sign(cbor2.dumps(fields), _KEY), now_ms=NOW, root=root)
    change(fields)
    with pytest.raises(AttestationError, match=found):
        verify(NsmEmulator.sign(cbor2.dumps(fields), _KEY), now_ms=NOW, root=root)


def test_envelopes_of_other_forms(emulator: NsmEmulator, raw: bytes, root: Root) -> None:
    protected, _, payload, signature = cbor2.loads(raw)
    fields = cbor2.dumps(_fields(emulator))
    forms = [
        (raw + b"\0", "1 bytes after"),
        (raw[:-1], "no plain CBOR"),
        (cbor2.dumps([protected, {1: 2}, payload, signature]), "unprotected"),
        (cbor2.dumps([protected, {}, payload, signature[:-1]]), "95 bytes"),
        (cbor2.dumps([protected, {}, payload, signature, 0]), "array of 4"),
        (cbor2.dumps([protected, {}, payload.hex(), signature]), "byte strings"),
        (b"\xd1" + raw, "no plain CBOR"),
        (b"\xd2\xd2" + raw, "no plain CBOR"),
        (NsmEmulator.sign(fields, _KEY, protected=cbor2.dumps({1: -7})), "ES384"),
        (NsmEmulator.sign(fields, _KEY, protected=cbor2.dumps({1: -35, 4: b""})), "ES384"),
        (NsmEmulator.sign(fields, _KEY, protected=cbor2.dumps({1: -35.0})), "ES384"),
        (NsmEmulator.sign(fields, _KEY, protected=b""), "no plain CBOR"),
        (NsmEmulator.sign(fields + b"\0", _KEY), "after the payload"),
        (NsmEmulator.sign(b"\xa2\x61a\x01\x61a\x02", _KEY), "no plain CBOR"),
        (NsmEmulator.sign(cbor2.dumps([]), _KEY), "map with text keys"),
        (b"\x5a\xff\xff\xff\xff", "no plain CBOR"),
        (b"\x9f" * 2000, "no plain CBOR"),
        (bytes(MAX_DOCUMENT_BYTES + 1), "at most"),
        (NsmEmulator.sign(bytes(MAX_DOCUMENT_BYTES - 200), _KEY), "after the payload|map with text keys"),
    ]
    for form, found in forms:
        with pytest.raises(AttestationError, match=found):
            verify(form, now_ms=NOW, root=root)


def test_time(emulator: NsmEmulator, raw: bytes, root: Root) -> None:
    for late in (0, 5 * 60_000, -60_000):
        if late >= 0:
            verify(raw, now_ms=NOW + late, root=root)
    with pytest.raises(AttestationError, match="360000 ms old"):
        verify(raw, now_ms=NOW + 6 * 60_000, root=root)
    verify(raw, now_ms=NOW + 2 * HOUR, root=root, max_age_ms=None)
    for now in (NOW - HOUR, NOW + 4 * HOUR, NOW + 10**12):
        with pytest.raises(AttestationError, match="is valid from"):
            verify(raw, now_ms=now, root=root, max_age_ms=None)
    ahead = _fields(emulator) | {"timestamp": NOW + 61_000}
    with pytest.raises(AttestationError, match="-61000 ms old"):
        verify(NsmEmulator.sign(cbor2.dumps(ahead), _KEY), now_ms=NOW, root=root)


def test_debug_mode_is_refused_unless_asked_for(emulator: NsmEmulator, root: Root) -> None:
    for pcrs in ({}, {3: b"\1" * 48}, {0: b"\1" * 48}, {0: b"\1" * 48, 2: b"\1" * 48}):
        raw = emulator.document(NOW, pcrs=pcrs)
        with pytest.raises(AttestationError, match="debug mode"):
            verify(raw, now_ms=NOW, root=root)
        assert verify(raw, now_ms=NOW, root=root, accept_debug=True).debug


def test_only_what_issues_may_issue(emulator: NsmEmulator, root: Root) -> None:
    """An authority can't sign documents, a leaf can't issue, and nobody signs with another key."""
    raw = NsmEmulator.sign(cbor2.dumps(_fields(emulator, path_length=0)), _KEY)
    with pytest.raises(AttestationError, match="may not sign documents"):
        verify(raw, now_ms=NOW, root=root)
    other = ec.generate_private_key(ec.SECP384R1())
    fields = _fields(emulator)
    with pytest.raises(AttestationError, match="signature does not fit"):
        verify(NsmEmulator.sign(cbor2.dumps(fields), other), now_ms=NOW, root=root)
    leaf = x509.load_der_x509_certificate(fields["certificate"])
    below = nsm._certificate(nsm._name("SIMULATION below"), other, leaf.subject, _KEY, NOW, HOUR, None)
    fields["cabundle"].append(fields["certificate"])
    fields["certificate"] = below.public_bytes(Encoding.DER)
    with pytest.raises(AttestationError, match="may not issue"):
        verify(NsmEmulator.sign(cbor2.dumps(fields), other), now_ms=NOW, root=root)
    deep = _fields(emulator)
    middle_key = ec.generate_private_key(ec.SECP384R1())
    middle = nsm._certificate(
        nsm._name("SIMULATION middle"),
        middle_key,
        emulator._issuer.subject,
        emulator._issuer_key,
        NOW,
        HOUR,
        0,
    )
    lowest = nsm._certificate(nsm._name("SIMULATION x"), _KEY, middle.subject, middle_key, NOW, HOUR, None)
    deep["cabundle"].append(middle.public_bytes(Encoding.DER))
    deep["certificate"] = lowest.public_bytes(Encoding.DER)
    with pytest.raises(AttestationError, match="allowed 1"):
        verify(NsmEmulator.sign(cbor2.dumps(deep), _KEY), now_ms=NOW, root=root)


def test_no_simulation_passes_for_production(emulator: NsmEmulator, raw: bytes) -> None:
    assert AWS_ROOT.fingerprint == "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    assert not AWS_ROOT.simulated
    with pytest.raises(AttestationError, match=r"was not issued by|wanted a chain"):
        verify(raw, now_ms=NOW)
    # Nor with the real root's name: the signature is another's.
    imposter = NsmEmulator(NOW)
    imposter._root = nsm._certificate(
        AWS_ROOT.certificate.subject,
        imposter._root_key,
        AWS_ROOT.certificate.subject,
        imposter._root_key,
        NOW,
        HOUR,
        1,
    )
    imposter._issuer = nsm._certificate(
        nsm._name("x"), imposter._issuer_key, AWS_ROOT.certificate.subject, imposter._root_key, NOW, HOUR, 0
    )
    with pytest.raises(AttestationError, match="wanted a chain to the root with fingerprint 641a0321"):
        verify(imposter.document(NOW, pcrs=IMAGE), now_ms=NOW)
    for network in ("mainnet", "testnet", "devnet"):
        with pytest.raises(ValueError, match="trusts the AWS root only"):
            simulation_root(emulator.root_pem, network)
    with pytest.raises(ValueError, match="not the root of an emulator"):
        simulation_root(AWS_ROOT.certificate.public_bytes(Encoding.PEM), "localnet")
    # Another run's root is another root.
    with pytest.raises(AttestationError, match="wanted a chain"):
        verify(raw, now_ms=NOW, root=simulation_root(NsmEmulator(NOW).root_pem, "localnet"))


def test_the_emulators_root_can_be_kept(tmp_path: Path) -> None:
    first = NsmEmulator.load_or_create(tmp_path / "nsm", NOW)
    again = NsmEmulator.load_or_create(tmp_path / "nsm", NOW)
    assert first.root_pem == again.root_pem
    assert (tmp_path / "nsm" / "simulated-nitro-root.key").stat().st_mode & 0o077 == 0
    root = simulation_root(first.root_pem, "localnet")
    assert verify(again.document(NOW, pcrs=IMAGE), now_ms=NOW, root=root).simulated


# --- genuine documents, where they are at hand: NITRO_DOCUMENTS is a folder with them as hex

_FOLDER = os.environ.get("NITRO_DOCUMENTS")


@pytest.mark.skipif(not _FOLDER, reason="NITRO_DOCUMENTS names no folder with genuine AWS documents")
def test_genuine_documents() -> None:
    folder = Path(_FOLDER or "")
    debug = bytes.fromhex((folder / "FIXED_VALID_ATTESTATION.hex").read_text())
    at = 1731627987382
    with pytest.raises(AttestationError, match="debug mode"):
        verify(debug, now_ms=at)
    document = verify(debug, now_ms=at, accept_debug=True)
    assert document.debug
    assert document.pcr(3)[:3].hex() == "639a8b"
    assert not document.simulated
    with pytest.raises(AttestationError, match="is valid from"):
        verify(debug, now_ms=1731630269000 + 1000, accept_debug=True, max_age_ms=None)
    verify(debug, now_ms=1731630269000, accept_debug=True, max_age_ms=None)
    verify(debug, now_ms=1731619466000, accept_debug=True, max_age_ms=None)
    with pytest.raises(AttestationError, match="is valid from"):
        verify(debug, now_ms=1731619466000 - 1, accept_debug=True, max_age_ms=None)
    document = verify(
        bytes.fromhex((folder / "VALID_PCR16_ATTESTATION.hex").read_text()), now_ms=1762795380000
    )
    assert not document.debug
    assert document.public_key is not None
    assert len(document.public_key) == 32
    assert document.user_data == b""
    assert any(document.pcr(16))
    for position in range(0, len(debug), 7):
        changed = bytearray(debug)
        changed[position] ^= 0x20
        with pytest.raises(AttestationError):
            verify(bytes(changed), now_ms=at, accept_debug=True)
