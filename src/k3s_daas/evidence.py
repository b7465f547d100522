"""Evidence of an offence: the same bytes for everybody, and what they prove by themselves.

The chain keeps the SHA-256 of the bytes. Offences and structs are defined at the head of
`move/k3s_daas/sources/slashing.move`. An arbiter needs nothing but the file: `k3s-daas evidence FILE`. What a
file can't prove by itself is said with the verdict.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from k3s_daas.chain import bcs
from k3s_daas.registry.model import InvalidNodeId, check_node_id

CONFLICTING_HEARTBEATS, REFUSED_DRAIN, WRONG_RESULT = 1, 2, 3
#: Observations of a refused drain: so many, at least so far apart.
DRAIN_OBSERVATIONS = 3
DRAIN_APART_MS = 60_000
_MAX_BYTES = 4 << 20


class InvalidEvidence(Exception):
    """These bytes are no evidence of that kind; the message says why."""


@dataclass(frozen=True)
class Signed:
    """A heartbeat's JSON as it was sent, and the Ed25519 signature over it (64 bytes)."""

    body: bytes
    signature: bytes


@dataclass(frozen=True)
class ConflictingHeartbeats:
    """Offence 1. `public_key` (32 bytes) was registered under the seal token's `generation`."""

    registry: str
    node_id: str
    generation: int
    public_key: bytes
    first: Signed
    second: Signed


@dataclass(frozen=True)
class Observation:
    """One look at one pod that should have gone; ms since 1970."""

    at_ms: int
    pod_uid: str
    node_ready: bool


@dataclass(frozen=True)
class RefusedDrain:
    """Offence 2. The pods should have been gone by `deadline_ms`."""

    registry: str
    node_id: str
    requested_at_ms: int
    deadline_ms: int
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class WrongResult:
    """Offence 3. Running `payload` gives `expected` where the worker completed the request with `result`."""

    registry: str
    node_id: str
    request_id: int
    payload: bytes
    result: bytes
    expected: bytes


Evidence = ConflictingHeartbeats | RefusedDrain | WrongResult


@dataclass(frozen=True)
class Verdict:
    """Whether the offence is proven, why or why not, and what is left to check elsewhere."""

    proven: bool
    because: str
    left: str


def reason_of(evidence: Evidence) -> int:
    """The contract's number of the offence."""
    return 1 + (ConflictingHeartbeats, RefusedDrain, WrongResult).index(type(evidence))


def digest(raw: bytes) -> bytes:
    """What the chain keeps: SHA-256 of the evidence."""
    return hashlib.sha256(raw).digest()


def encode(evidence: Evidence) -> bytes:
    """BCS. Raises OverflowError, or InvalidAddress, for values that don't fit."""
    head = bcs.address(evidence.registry) + bcs.string(evidence.node_id)
    match evidence:
        case ConflictingHeartbeats():
            signed = b"".join(
                bcs.data(one.body) + bcs.data(one.signature) for one in (evidence.first, evidence.second)
            )
            return head + bcs.unsigned(evidence.generation, 8) + bcs.data(evidence.public_key) + signed
        case RefusedDrain():
            seen = bcs.vector(
                bcs.unsigned(one.at_ms, 8) + bcs.string(one.pod_uid) + bcs.unsigned(one.node_ready, 1)
                for one in evidence.observations
            )
            times = bcs.unsigned(evidence.requested_at_ms, 8) + bcs.unsigned(evidence.deadline_ms, 8)
            return head + times + seen
        case WrongResult():
            parts = (evidence.payload, evidence.result, evidence.expected)
            return head + bcs.unsigned(evidence.request_id, 8) + b"".join(map(bcs.data, parts))


def decode(reason: int, raw: bytes) -> Evidence:
    """The evidence of offence `reason` in `raw`. Raises InvalidEvidence."""
    read = bcs.Reader(raw)
    try:
        evidence = _DECODERS[reason](read)
        read.end()
        check_node_id(evidence.node_id)
    except KeyError:
        raise InvalidEvidence(f"found reason {reason}, wanted one of {sorted(_DECODERS)}") from None
    except (ValueError, InvalidNodeId) as error:
        raise InvalidEvidence(f"no evidence of offence {reason}: {error}") from None
    return evidence


def _heartbeats(read: bcs.Reader) -> Evidence:
    head = read.address(), read.string(), read.unsigned(8), read.data()
    return ConflictingHeartbeats(*head, *(Signed(read.data(), read.data()) for _ in range(2)))


def _drain(read: bcs.Reader) -> Evidence:
    head = read.address(), read.string(), read.unsigned(8), read.unsigned(8)
    seen = (Observation(read.unsigned(8), read.string(), read.flag()) for _ in range(read.uleb()))
    return RefusedDrain(*head, tuple(seen))


def _result(read: bcs.Reader) -> Evidence:
    return WrongResult(read.address(), read.string(), read.unsigned(8), read.data(), read.data(), read.data())


_DECODERS: dict[int, Callable[[bcs.Reader], Evidence]] = {
    CONFLICTING_HEARTBEATS: _heartbeats,
    REFUSED_DRAIN: _drain,
    WRONG_RESULT: _result,
}


# -- judging -----------------------------------------------------------------------------------------------


def judge(evidence: Evidence) -> Verdict:
    """What the evidence proves by itself."""
    match evidence:
        case ConflictingHeartbeats():
            wrong = _heartbeats_wrong(evidence)
            left = (
                f"that public key {base64.b64encode(evidence.public_key).decode()} was the worker's: the "
                f"master keeps it, bound at registration under seal token generation {evidence.generation}"
            )
            return Verdict(wrong is None, wrong or "one key signed two bodies for one moment", left)
        case RefusedDrain():
            wrong = _drain_wrong(evidence)
            left = "that the master saw what it says: observations are its word"
            return Verdict(wrong is None, wrong or "pods ran on after the deadline on a Ready node", left)
        case WrongResult():
            hashes = " and ".join(
                hashlib.sha256(part).hexdigest() for part in (evidence.payload, evidence.result)
            )
            left = (
                f"that request {evidence.request_id} was scheduled and completed with the hashes {hashes}, "
                "and that running the payload gives what is expected"
            )
            same = evidence.result == evidence.expected
            return Verdict(False, "result and expectation are equal" if same else "needs the run anew", left)


def _heartbeats_wrong(evidence: ConflictingHeartbeats) -> str | None:
    if evidence.first.body == evidence.second.body:
        return "both bodies are the same"
    moments = []
    for name, signed in (("first", evidence.first), ("second", evidence.second)):
        try:
            key = Ed25519PublicKey.from_public_bytes(evidence.public_key)
            key.verify(signed.signature, signed.body)
        except (InvalidSignature, ValueError):
            return f"the {name} signature isn't one of that key over that body"
        try:
            body = json.loads(signed.body)
            moment, node_id = body["timestamp_ms"], body["node_id"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return f"the {name} body is no heartbeat"
        if node_id != evidence.node_id or not isinstance(moment, int) or isinstance(moment, bool):
            return f"the {name} body is no heartbeat of {evidence.node_id}"
        moments.append(moment)
    if moments[0] != moments[1]:
        return f"the bodies are of two moments: {moments[0]} and {moments[1]}"
    return None


def _drain_wrong(evidence: RefusedDrain) -> str | None:
    if evidence.requested_at_ms > evidence.deadline_ms:
        return "the deadline is before the request"
    counts: dict[str, tuple[int, int]] = {}
    for seen in sorted(evidence.observations, key=lambda one: one.at_ms):
        count, last = counts.get(seen.pod_uid, (0, seen.at_ms - DRAIN_APART_MS))
        if seen.node_ready and seen.at_ms > evidence.deadline_ms and seen.at_ms - last >= DRAIN_APART_MS:
            counts[seen.pod_uid] = (count + 1, seen.at_ms)
    most = max((count for count, _ in counts.values()), default=0)
    if most < DRAIN_OBSERVATIONS:
        return (
            f"no pod was seen {DRAIN_OBSERVATIONS} times after the deadline, a minute or more apart, on a "
            f"Ready node; the most is {most}"
        )
    return None


# -- the command -------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the evidence, as the master publishes it")
    parser.add_argument("--hash", help="the SHA-256 that the chain keeps (64 hex digits)")


def run(options: argparse.Namespace) -> int:
    """Print the verdict; 0 proven by the file alone, 1 not proven, 2 unreadable or not the chain's."""
    try:
        with options.file.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        print(f"{options.file}: {error.strerror}. Wanted a readable file.", file=sys.stderr)
        return 2
    if len(raw) > _MAX_BYTES:
        print(f"{options.file}: more than {_MAX_BYTES} bytes. Wanted evidence.", file=sys.stderr)
        return 2
    found = digest(raw).hex()
    print(f"sha256   {found}")
    wanted = (options.hash or found).lower().removeprefix("0x")
    if wanted != found:
        print(f"This isn't the evidence that the chain names: wanted sha256 {wanted}.", file=sys.stderr)
        return 2
    tried = []
    for reason in _DECODERS:
        try:
            evidence = decode(reason, raw)
        except InvalidEvidence as error:
            tried.append(str(error))
            continue
        verdict = judge(evidence)
        print(f"offence  {reason} {type(evidence).__name__}")
        print(f"worker   {evidence.node_id} of registry {evidence.registry}")
        print(f"verdict  {'proven' if verdict.proven else 'not proven'}: {verdict.because}")
        print(f"left     {verdict.left}")
        return 0 if verdict.proven else 1
    print(f"{options.file} can't be read as evidence: {'; '.join(tried)}", file=sys.stderr)
    return 2
