"""Formats of a k3s join, held against what k3s' own Go code computed."""

import hashlib
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import join

BUNDLES = Path(__file__).parent / "bundles"

# Printed by hashCA of k3s 1.34 (pkg/clientaccess/token.go), built with Go 1.26, for each of these files.
GO_CA_HASHES = {
    "single.pem": "358bbfc84893e0ac3ad2bac4b0ae2f2832fe30133b5cac9eac0f500c0ca337ff",
    "single-no-newline.pem": "2028e067c8bdab00a766049368624055f9fbd984c668f4831c87eea3ef80dcdd",
    "chain.pem": "8bc2ebe314608bbf7256118c06ce678363e1df4ae945176166a0c2f35cdfdeb0",
    "chain-renewed.pem": "8bc2ebe314608bbf7256118c06ce678363e1df4ae945176166a0c2f35cdfdeb0",
    "two-roots.pem": "8bc2ebe314608bbf7256118c06ce678363e1df4ae945176166a0c2f35cdfdeb0",
    "unrelated.pem": "8e55737df8950715a0079c3890c709584356095a663df5b303b3f52207148083",
}
# Of server-ca.crt of a k3s 1.34.10 server: the hash in the token which that server wrote to server/token.
K3S_SERVER_CA_HASH = "71554018fa40fcb7a62a6fea46925f7f699d351fda22363bdf9267679cd90c17"
# Printed by SCrypt.CreateHash("correct-horse") of k3s 1.34 (pkg/authenticator/hash/scrypt.go).
GO_SCRYPT = (
    "$1:07da2520bf2703af:15:8:1:"
    "uRQG3WqDBrk5heuQ3H77lgz87XR4p2ir6D3hKLcE3oBl1TT6OmclcdTOF9C30bzhomFT6ddyFbs7GI+H3QmDJg"
)


@pytest.mark.parametrize(("name", "digest"), GO_CA_HASHES.items())
def test_ca_hash_is_the_one_k3s_computes(name: str, digest: str) -> None:
    assert join.ca_hash((BUNDLES / name).read_bytes()).hex() == digest


def test_ca_hash_of_one_certificate_is_over_the_bytes_as_served() -> None:
    served = (BUNDLES / "single.pem").read_bytes()
    assert join.ca_hash(served) == hashlib.sha256(served).digest()
    assert join.ca_hash(served + b"\n") != join.ca_hash(served)


def test_the_ca_of_a_real_k3s_with_its_serial_number_0_hashes_without_complaint() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        digest = join.ca_hash((BUNDLES / "k3s-server-ca.pem").read_bytes())
    assert digest.hex() == K3S_SERVER_CA_HASH


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_ca_hash_refuses_what_holds_no_certificate(data: bytes) -> None:
    with pytest.raises(join.InvalidCaBundle, match="no PEM certificate"):
        join.ca_hash(data)


@given(st.binary(min_size=32, max_size=32))
def test_full_tokens_round_trip(digest: bytes) -> None:
    token_id, secret = join.bootstrap_token()
    text = join.full_token(digest, token_id, secret)
    assert re.fullmatch(r"K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}", text)
    parsed = join.parse_full_token(text + "\n")
    assert (parsed.ca_hash, parsed.token_id, parsed.secret) == (digest, token_id, secret)
    assert secret not in repr(parsed)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"\0" * 31, "abcdef", "0123456789abcdef"),
        (b"\0" * 32, "ABCDEF", "0123456789abcdef"),
        (b"\0" * 32, "abcdef", "0123456789abcde"),
        (b"\0" * 32, "abcdef", "0123456789abcdef\n"),
    ],
)
def test_full_token_refuses_parts_of_the_wrong_shape(arguments: tuple[bytes, str, str]) -> None:
    with pytest.raises(join.InvalidJoinToken) as caught:
        join.full_token(*arguments)
    assert arguments[2] not in str(caught.value)


HEX = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abcdef.0123456789abcdef",  # k3s would take it and trust any CA
        "K10::abcdef.0123456789abcdef",
        f"K10{HEX}::server:s3cr3tpassword",  # the cluster's own secret
        f"K10{HEX}:abcdef.0123456789abcdef",
        f"K10{HEX[:-2]}::abcdef.0123456789abcdef",
        f"K10{HEX.upper()}::abcdef.0123456789abcdef",
        f"K10{HEX}::abcdef.0123456789abcdeF",
        f"K10{HEX}::abcdef.0123456789abcdef::",
        f"K10{HEX}::abcdef.0123456789abcdé",
    ],
)
def test_parse_full_token_refuses_without_quoting(text: str) -> None:
    with pytest.raises(join.InvalidJoinToken, match="wanted K10") as caught:
        join.parse_full_token(text)
    assert "0123456789abcd" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_hash_made_by_k3s_verifies() -> None:
    assert join.verify_node_password(GO_SCRYPT, "correct-horse")
    assert not join.verify_node_password(GO_SCRYPT, "correct-horsf")


def test_our_hashes_have_k3s_form_and_a_salt_of_their_own() -> None:
    password = join.node_password()
    assert re.fullmatch(r"[0-9a-f]{32}", password)
    first, second = join.node_password_hash(password), join.node_password_hash(password)
    assert first != second
    for made in (first, second):
        assert re.fullmatch(r"\$1:[0-9a-f]{16}:15:8:1:[A-Za-z0-9+/]{86}", made)
        assert join.verify_node_password(made, password)
        assert password not in made


@pytest.mark.parametrize(
    "text",
    ["", "x", "$2" + GO_SCRYPT[2:], GO_SCRYPT.replace(":15:", ":40:"), GO_SCRYPT + "=="],
)
def test_hashes_that_k3s_would_not_write_are_refused(text: str) -> None:
    with pytest.raises(join.InvalidPasswordHash):
        join.verify_node_password(text, "correct-horse")


def test_the_password_secret_is_named_as_k3s_names_it() -> None:
    assert join.node_password_secret_name("Worker-1") == "worker-1.node-password.k3s"
