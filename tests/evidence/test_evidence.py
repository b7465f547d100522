"""Evidence: the bytes that the contract's documentation defines, and what they prove by themselves."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import cli, evidence
from k3s_daas.evidence import (
    ConflictingHeartbeats,
    InvalidEvidence,
    Observation,
    RefusedDrain,
    Signed,
    WrongResult,
    decode,
    encode,
    judge,
)

REGISTRY = "0x" + "bb" * 32
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MINUTE = 60_000


def signed(key: Ed25519PrivateKey = KEY, **body: Any) -> Signed:
    raw = json.dumps({"node_id": "worker-1", "timestamp_ms": 1_790_000_000_000, **body}).encode()
    return Signed(raw, key.sign(raw))


def conflict(first: Signed, second: Signed) -> ConflictingHeartbeats:
    return ConflictingHeartbeats(REGISTRY, "worker-1", 3, KEY.public_key().public_bytes_raw(), first, second)


CONFLICT = conflict(signed(running_pods=1), signed(running_pods=2))
DRAIN = RefusedDrain(
    REGISTRY,
    "worker-1",
    1_000_000,
    1_030_000,
    tuple(Observation(1_030_001 + n * MINUTE, "3f-uid", True) for n in range(3)),
)
RESULT = WrongResult(REGISTRY, "worker-1", 7, b"payload", b"result", b"expected")


def test_the_bytes_are_those_of_the_structs() -> None:
    """Written out by hand, field by field, as BCS lays them out."""

    def vec(raw: bytes) -> bytes:
        assert len(raw) < 128
        return bytes([len(raw)]) + raw

    head = bytes.fromhex("bb" * 32) + vec(b"worker-1")
    by_hand = head + struct.pack("<Q", 3) + vec(CONFLICT.public_key)
    for one in (CONFLICT.first, CONFLICT.second):
        by_hand += vec(one.body) + vec(one.signature)
    assert encode(CONFLICT) == by_hand
    seen = b"".join(struct.pack("<Q", o.at_ms) + vec(b"3f-uid") + b"\x01" for o in DRAIN.observations)
    assert encode(DRAIN) == head + struct.pack("<QQ", 1_000_000, 1_030_000) + b"\x03" + seen
    tail = vec(b"payload") + vec(b"result") + vec(b"expected")
    assert encode(RESULT) == head + struct.pack("<Q", 7) + tail
    assert evidence.digest(encode(RESULT)) == hashlib.sha256(encode(RESULT)).digest()


u64 = st.integers(0, 2**64 - 1)
addresses = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
blobs = st.binary(max_size=300)
bodies = st.builds(Signed, blobs, blobs)
kinds = st.one_of(
    st.builds(ConflictingHeartbeats, addresses, names, u64, blobs, bodies, bodies),
    st.builds(
        RefusedDrain,
        addresses,
        names,
        u64,
        u64,
        st.lists(st.builds(Observation, u64, st.text(max_size=40), st.booleans()), max_size=5).map(tuple),
    ),
    st.builds(WrongResult, addresses, names, u64, blobs, blobs, blobs),
)


@given(kinds, st.integers(0, 10_000))
def test_what_is_encoded_comes_back_and_nothing_shorter_or_longer_does(given: Any, cut: int) -> None:
    raw, reason = encode(given), evidence.reason_of(given)
    assert decode(reason, raw) == given
    with pytest.raises(InvalidEvidence):
        decode(reason, raw[: cut % len(raw)])
    with pytest.raises(InvalidEvidence):
        decode(reason, raw + b"\x00")
    judge(given)


@given(st.integers(0, 5), st.binary(max_size=400))
def test_any_bytes_are_evidence_or_refused(reason: int, raw: bytes) -> None:
    try:
        found = decode(reason, raw)
    except InvalidEvidence:
        return
    assert encode(found) == raw, "there is one encoding only"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidEvidence):
        decode(3, encode(replace(RESULT, node_id="\x1b[2J")))


def test_two_signed_bodies_of_one_moment_prove_it() -> None:
    verdict = judge(CONFLICT)
    assert verdict.proven
    assert "seal token generation 3" in verdict.left


OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (conflict(signed(), signed()), "both bodies are the same"),
        (conflict(signed(a=1), signed(OTHER, a=2)), "second signature"),
        (conflict(signed(OTHER, a=1), signed(a=2)), "first signature"),
        (conflict(signed(a=1), replace(signed(a=2), signature=b"short")), "second signature"),
        (conflict(signed(a=1), signed(timestamp_ms=5)), "of two moments"),
        (conflict(signed(a=1), signed(node_id="worker-2")), "no heartbeat of worker-1"),
        (conflict(signed(timestamp_ms=True), signed(timestamp_ms=1)), "no heartbeat of worker-1"),
        (replace(CONFLICT, public_key=b"x"), "first signature"),
        (
            conflict(*(Signed(raw, KEY.sign(raw)) for raw in (b"[1]", b"[2]"))),
            "the first body is no heartbeat",
        ),
        (
            conflict(*(Signed(raw, KEY.sign(raw)) for raw in (b"[" * 99_999, b"\xff"))),
            "the first body is no heartbeat",
        ),
    ],
)
def test_what_does_not_prove_conflicting_heartbeats(given: ConflictingHeartbeats, why: str) -> None:
    verdict = judge(given)
    assert not verdict.proven
    assert why in verdict.because


def drain(*seen: tuple[int, str, bool]) -> RefusedDrain:
    return replace(DRAIN, observations=tuple(Observation(*one) for one in seen))


@pytest.mark.parametrize(
    ("given", "proven"),
    [
        (DRAIN, True),
        (drain(*((1_030_001 + n * MINUTE, "p", True) for n in (2, 0, 1))), True),
        (drain(*((1_030_001 + n * MINUTE, "p", True) for n in range(2))), False),
        (drain(*((1_030_000 + n * (MINUTE - 1), "p", True) for n in range(4))), False),
        (drain(*((1_030_001 + n * MINUTE, f"p{n}", True) for n in range(9))), False),
        (drain(*((1_030_001 + n * MINUTE, "p", False) for n in range(9))), False),
        (drain(*((1_030_000 - n * MINUTE, "p", True) for n in range(9))), False),
        (replace(DRAIN, requested_at_ms=2_000_000), False),
        (drain(), False),
    ],
)
def test_refused_drains(given: RefusedDrain, proven: bool) -> None:
    assert judge(given).proven is proven


def test_a_wrong_result_is_not_proven_offline() -> None:
    verdict = judge(RESULT)
    assert not verdict.proven
    assert hashlib.sha256(b"payload").hexdigest() in verdict.left
    assert judge(replace(RESULT, expected=b"result")).because == "result and expectation are equal"


@pytest.mark.parametrize(
    ("raw", "code", "said"),
    [
        (encode(CONFLICT), 0, "offence  1 ConflictingHeartbeats"),
        (encode(DRAIN), 0, "verdict  proven"),
        (encode(RESULT), 1, "verdict  not proven: needs the run anew"),
        (b"nonsense", 2, "can't be read as evidence"),
        (b"", 2, "can't be read as evidence"),
    ],
)
def test_the_command(tmp_path: Path, capsys: Any, raw: bytes, code: int, said: str) -> None:
    path = tmp_path / "evidence.bcs"
    path.write_bytes(raw)
    assert cli.main(["evidence", str(path)]) == code
    shown = "".join(capsys.readouterr())
    assert said in shown
    assert hashlib.sha256(raw).hexdigest() in shown
    assert cli.main(["evidence", str(path), "--hash", "00" * 32]) == 2
    assert "isn't the evidence that the chain names" in capsys.readouterr().err


def test_the_command_without_a_file(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["evidence", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
