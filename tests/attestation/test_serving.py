"""The parent lies: every document it can put in the master's place is refused, each lie with its own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import base58
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k3s_daas.attestation import AWS_ROOT, Root, simulation_root
from k3s_daas.attestation.serving import (
    CODES,
    LiveMaster,
    ServingRefused,
    check_on_chain,
    check_serving,
    new_nonce,
)
from k3s_daas.attestation.statements import (
    SERVING_PREFIX,
    Statement,
    registration,
    serving,
    split_serving,
)
from k3s_daas_localnet.nsm import NsmEmulator

NOW = 1_760_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
PCR0, PCR3 = b"\x10" * 48, b"\x13" * 48
PCRS = {0: PCR0, 1: b"\x11" * 48, 2: b"\x12" * 48, 3: PCR3}
KEY, NONCE = b"k" * 32, bytes(range(32))
STATEMENT = Statement(
    chain_id=base58.b58encode(b"\x01" * 32).decode(),
    package_id="0x" + "02" * 32,
    registry_id="0x" + "03" * 32,
    account="0x" + "04" * 32,
    ca_hash=b"\x05" * 32,
    config_hash=b"\x06" * 32,
)
LIVE = LiveMaster(
    network="localnet",
    statement=STATEMENT,
    public_key=KEY,
    pcr0=PCR0,
    pcr3=PCR3,
    expires_at_ms=NOW + HOUR,
    images=frozenset({(PCR0, PCR3), (b"\x20" * 48, PCR3)}),
)


@pytest.fixture(scope="session")
def emulator() -> NsmEmulator:
    return NsmEmulator(NOW - 10 * HOUR)


@pytest.fixture(scope="session")
def root(emulator: NsmEmulator) -> Root:
    return simulation_root(emulator.root_pem, "localnet")


Make = Callable[..., bytes]


@pytest.fixture(scope="session")
def make(emulator: NsmEmulator) -> Make:
    """A document as the master makes it, but for `changed`."""

    def document(now_ms: int = NOW, **changed: Any) -> bytes:
        fields: dict[str, Any] = {
            "pcrs": PCRS,
            "public_key": KEY,
            "user_data": serving(STATEMENT),
            "nonce": NONCE,
        }
        return emulator.document(now_ms, **(fields | changed))

    return document


@pytest.fixture(scope="session")
def good(make: Make) -> bytes:
    return make()


def refused(
    code: str, raw: bytes, live: LiveMaster = LIVE, nonce: bytes = NONCE, **kw: Any
) -> ServingRefused:
    assert code in CODES
    with pytest.raises(ServingRefused) as caught:
        check_serving(raw, nonce, live, **({"now_ms": NOW} | kw))
    assert caught.value.code == code
    assert caught.value.found
    assert caught.value.wanted
    assert caught.value.fix
    return caught.value


def test_the_masters_own_document(good: bytes, make: Make, root: Root) -> None:
    document = check_serving(good, NONCE, LIVE, now_ms=NOW, root=root)
    assert document.simulated
    for late in (-MINUTE, 5 * MINUTE):
        check_serving(make(certified_ms=NOW - HOUR), NONCE, LIVE, now_ms=NOW + late, root=root)
    long = new_nonce() + new_nonce()
    check_serving(make(nonce=long), long, LIVE, now_ms=NOW, root=root)


def test_statements_have_the_documented_form() -> None:
    parts = b"".join(bytes([i]) * 32 for i in range(1, 7))
    assert serving(STATEMENT) == b"k3s-daas-serving-v1" + parts
    # As the contract's own tests write it (tests/contract/contract_masters.py).
    assert registration(STATEMENT) == b"k3s-daas-master-v1" + parts
    assert len(serving(STATEMENT)) <= 512


@pytest.mark.parametrize(
    "wrong",
    [
        {"chain_id": base58.b58encode(b"\x01" * 31).decode()},
        {"chain_id": "0OIl"},
        {"chain_id": ""},
        {"package_id": "0x22"},
        {"registry_id": "03" * 32},
        {"account": "0x" + "zz" * 32},
        {"ca_hash": b""},
        {"config_hash": b"\x06" * 33},
    ],
)
@pytest.mark.parametrize("purpose", [serving, registration])
def test_what_can_be_no_statement(purpose: Callable[[Statement], bytes], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        purpose(dataclasses.replace(STATEMENT, **wrong))


def test_nonces_are_long_and_new(good: bytes, root: Root) -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
    assert len(new_nonce()) == 32
    for short in (b"", bytes(31)):
        with pytest.raises(ValueError, match="at least 32"):
            check_serving(good, short, LIVE, now_ms=NOW, root=root)


# -- what the parent can send instead ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"nonce": None}, "nonce_mismatch"),
        ({"nonce": bytes(32)}, "nonce_mismatch"),
        ({"nonce": NONCE + b"\0"}, "nonce_mismatch"),
        ({"nonce": NONCE[:31]}, "nonce_mismatch"),
        ({"pcrs": {}}, "document_debug"),
        ({"pcrs": PCRS | {0: bytes(48)}}, "document_debug"),
        ({"pcrs": PCRS | {0: b"\x20" * 48}}, "pcr0_mismatch"),  # allowed, but not the live master's
        ({"pcrs": PCRS | {3: b"\x14" * 48}}, "pcr3_mismatch"),  # the same image in another account
        ({"pcrs": PCRS | {3: bytes(48)}}, "pcr3_mismatch"),
        ({"public_key": None}, "key_mismatch"),
        ({"public_key": b"K" * 32}, "key_mismatch"),
        ({"public_key": KEY + b"k"}, "key_mismatch"),
        ({"user_data": None}, "purpose_mismatch"),
        ({"user_data": b""}, "purpose_mismatch"),
        ({"user_data": registration(STATEMENT)}, "purpose_mismatch"),
        ({"user_data": serving(STATEMENT)[:-1]}, "purpose_mismatch"),
        ({"user_data": serving(STATEMENT) + b"\0"}, "purpose_mismatch"),
        ({"user_data": b"k3s-daas-serving-v2" + serving(STATEMENT)[19:]}, "purpose_mismatch"),
    ],
)
def test_one_thing_wrong(make: Make, root: Root, changed: dict[str, Any], code: str) -> None:
    refused(code, make(**changed), root=root)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("chain_id", base58.b58encode(b"\xff" * 32).decode(), "chain_mismatch"),
        ("package_id", "0x" + "ff" * 32, "package_mismatch"),
        ("registry_id", "0x" + "ff" * 32, "registry_mismatch"),
        ("account", "0x" + "ff" * 32, "account_mismatch"),
        ("ca_hash", b"\xff" * 32, "ca_mismatch"),
        ("config_hash", b"\xff" * 32, "config_mismatch"),
    ],
)
def test_a_master_of_something_else(make: Make, root: Root, field: str, value: Any, code: str) -> None:
    other = dataclasses.replace(STATEMENT, **{field: value})
    error = refused(code, make(user_data=serving(other)), root=root)
    assert "ff" * 32 in error.found
    # The other way round: the chain changed and the master lags.
    refused(code, make(), dataclasses.replace(LIVE, statement=other), root=root)


def test_time_is_the_chains(good: bytes, make: Make, root: Root) -> None:
    late = dataclasses.replace(LIVE, expires_at_ms=NOW + 24 * HOUR)
    refused("document_not_fresh", good, late, now_ms=NOW + 5 * MINUTE + 1, root=root)
    refused("document_not_fresh", good, late, now_ms=NOW + 6 * MINUTE, root=root)
    older = make(certified_ms=NOW - HOUR)
    refused("document_not_fresh", older, late, now_ms=NOW - MINUTE - 1, root=root)
    # A clock an hour off on either side: the enclave's documents are refused, whoever's clock it is.
    for off in (-HOUR, HOUR):
        refused("document_not_fresh", make(NOW + off, certified_ms=NOW - 2 * HOUR), late, root=root)
    # Outside its certificates' windows it doesn't even get that far.
    refused("document_untrusted", good, late, now_ms=NOW + 4 * HOUR, root=root)


def test_other_roots(good: bytes, root: Root) -> None:
    refused("document_untrusted", good)  # AWS's alone, unless told otherwise
    other = NsmEmulator(NOW - HOUR)
    refused("document_untrusted", good, root=simulation_root(other.root_pem, "localnet"))
    for network in ("mainnet", "testnet", "devnet"):
        public = dataclasses.replace(LIVE, network=network)
        refused("simulated_root", good, public, root=root)
        # Not even one that doesn't say that it is simulated.
        refused("simulated_root", good, public, root=Root(root.certificate, simulated=False))
        refused("document_untrusted", good, public, root=AWS_ROOT)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"public_key": b"", "pcr0": b"", "pcr3": b"", "expires_at_ms": 0}, "master_not_attested"),
        ({"expires_at_ms": 0}, "master_not_attested"),
        ({"pcr3": b""}, "master_not_attested"),
        ({"expires_at_ms": NOW}, "attestation_expired"),
        ({"expires_at_ms": NOW - 1}, "attestation_expired"),
        ({"images": frozenset()}, "image_not_allowed"),
        # Both are on the list, but not together.
        ({"images": frozenset({(PCR0, b"\x14" * 48), (b"\x20" * 48, PCR3)})}, "image_not_allowed"),
    ],
)
def test_what_the_chain_says(good: bytes, root: Root, changed: dict[str, Any], code: str) -> None:
    live = dataclasses.replace(LIVE, **changed)
    refused(code, good, live, root=root)
    with pytest.raises(ServingRefused) as caught:
        check_on_chain(live, NOW)
    assert caught.value.code == code


def test_nothing_that_is_no_document(good: bytes, root: Root) -> None:
    for raw in (b"", b"{}", good[:-1], good + b"\0", b"<html>", bytes(20_000)):
        refused("document_malformed", raw, root=root)


def test_every_flipped_bit_is_noticed(good: bytes, root: Root) -> None:
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1 << position % 8
        with pytest.raises(ServingRefused):
            check_serving(bytes(changed), NONCE, LIVE, now_ms=NOW, root=root)


_quiet = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_quiet
@given(data=st.data())
def test_every_changed_byte_of_a_statement_is_noticed(make: Make, root: Root, data: st.DataObject) -> None:
    """Well signed by the security module, so only the comparison can refuse it."""
    statement = bytearray(serving(STATEMENT))
    at = data.draw(st.integers(0, len(statement) - 1))
    statement[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ServingRefused) as caught:
        check_serving(make(user_data=bytes(statement)), NONCE, LIVE, now_ms=NOW, root=root)
    part = (at - len(SERVING_PREFIX)) // 32
    names = ("chain", "package", "registry", "account", "ca", "config")
    wanted = "purpose_mismatch" if at < len(SERVING_PREFIX) else f"{names[part]}_mismatch"
    assert caught.value.code == wanted


@_quiet
@given(
    field=st.sampled_from(["user_data", "nonce", "public_key"]),
    value=st.none() | st.binary(max_size=512),
    pcr=st.integers(0, 15),
    measured=st.binary(min_size=48, max_size=48),
)
def test_other_fields_never_pass(
    make: Make, root: Root, field: str, value: bytes | None, pcr: int, measured: bytes
) -> None:
    right = {"user_data": serving(STATEMENT), "nonce": NONCE, "public_key": KEY}
    if value != right[field]:
        with pytest.raises(ServingRefused):
            check_serving(make(**{field: value}), NONCE, LIVE, now_ms=NOW, root=root)
    if pcr in (0, 3) and measured != PCRS[pcr]:
        with pytest.raises(ServingRefused):
            check_serving(make(pcrs=PCRS | {pcr: measured}), NONCE, LIVE, now_ms=NOW, root=root)


@given(st.none() | st.binary(max_size=512))
def test_a_statement_is_read_or_none(raw: bytes | None) -> None:
    assert split_serving(raw) is None  # 2^-152 that hypothesis draws the prefix
    whole = SERVING_PREFIX + (raw or b"").ljust(192, b"\0")[:192]
    parts = split_serving(whole)
    assert parts is not None
    assert SERVING_PREFIX + b"".join(parts.values()) == whole
