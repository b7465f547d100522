"""Whose enclave answers, before the chain knows it: every way in which it isn't ours."""

from typing import Any

import pytest

from k3s_daas.attestation import AWS_ROOT, simulation_root
from k3s_daas.attestation.newcomer import check_newcomer
from k3s_daas.attestation.serving import ServingRefused, new_nonce
from k3s_daas.attestation.statements import Statement, registration, serving
from k3s_daas_localnet.nsm import NsmEmulator

NOW = 1_763_000_000_000
PCR0, PCR3 = b"\x01" * 48, b"\x03" * 48
PACKAGE, REGISTRY, ACCOUNT = ("0x" + digit * 64 for digit in "abc")
CHAIN = "4btiuiMPvEENsttpZC7CZ53DruC3MAgfznDbASZ7DR6S"
OTHER_CHAIN = "69WiPg3DAQiwdxfncX6wYQ2siKwAe6L9BZthQea3JNMD"
STATEMENT = Statement(CHAIN, PACKAGE, REGISTRY, ACCOUNT, b"\x05" * 32, b"\x06" * 32)
EMULATOR = NsmEmulator(NOW - 1000)
NONCE = new_nonce()


def check(raw: bytes | None = None, **changes: Any) -> Any:
    if raw is None:
        raw = document()
    options: dict[str, Any] = {
        "network": "localnet",
        "chain_id": CHAIN,
        "package_id": PACKAGE,
        "registry_id": REGISTRY,
        "pcr0": PCR0,
        "now_ms": NOW,
        "root": simulation_root(EMULATOR.root_pem, "localnet"),
    }
    return check_newcomer(raw, NONCE, **(options | changes))


def document(**changes: Any) -> bytes:
    options: dict[str, Any] = {
        "pcrs": {0: PCR0, 1: PCR0, 2: PCR0, 3: PCR3},
        "public_key": b"\x07" * 32,
        "user_data": serving(STATEMENT),
        "nonce": NONCE,
    }
    return EMULATOR.document(changes.pop("now_ms", NOW), **(options | changes))


def test_an_enclave_of_our_image_for_our_registry_has_an_account() -> None:
    found = check()
    assert (found.account, found.pcr0, found.pcr3) == (ACCOUNT, PCR0, PCR3)
    assert (found.ca_hash, found.config_hash, found.simulated) == (b"\x05" * 32, b"\x06" * 32, True)
    assert check(config_hash=b"\x06" * 32) == found


@pytest.mark.parametrize(
    ("code", "raw"),
    [
        ("pcr0_mismatch", {"pcrs": dict.fromkeys(range(4), PCR3)}),
        ("document_debug", {"pcrs": {}}),
        ("document_not_fresh", {"now_ms": NOW - 300_001}),
        ("nonce_mismatch", {"nonce": new_nonce()}),
        ("nonce_mismatch", {"nonce": None}),
        ("purpose_mismatch", {"user_data": registration(STATEMENT)}),
        ("purpose_mismatch", {"user_data": None}),
    ],
)
def test_a_document_of_another_kind_is_refused(code: str, raw: dict[str, Any]) -> None:
    with pytest.raises(ServingRefused) as refused:
        check(document(**raw))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("chain_mismatch", {"chain_id": OTHER_CHAIN}),
        ("package_mismatch", {"package_id": ACCOUNT}),
        ("registry_mismatch", {"registry_id": ACCOUNT}),
        ("config_mismatch", {"config_hash": b"\x07" * 32}),
        ("document_untrusted", {"root": AWS_ROOT}),
        ("simulated_root", {"network": "testnet"}),
    ],
)
def test_an_enclave_of_something_else_is_refused(code: str, wanted: dict[str, Any]) -> None:
    with pytest.raises(ServingRefused) as refused:
        check(**wanted)
    assert refused.value.code == code


def test_every_flipped_byte_is_refused() -> None:
    raw = document()
    for at in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(ServingRefused):
            check(bytes(changed))
