"""Seal tokens: one spelling, one commitment, and errors that never show the secret."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas import seal

ALPHABET = string.ascii_letters + string.digits + "-_"
bodies = st.text(ALPHABET, min_size=43, max_size=43)


def test_make_gives_distinct_tokens_of_the_documented_shape() -> None:
    tokens = {seal.make() for _ in range(200)}
    assert len(tokens) == 200
    for token in tokens:
        assert token.startswith("seal_")
        assert len(token) == 48
        assert set(token[5:]) <= set(ALPHABET)
        assert seal.parse(token) == token


def test_commitment_is_sha256_of_the_ascii_text() -> None:
    token = "seal_" + "A" * 43
    assert seal.commitment(token) == hashlib.sha256(token.encode()).digest()


def test_parse_drops_a_files_last_newline() -> None:
    token = seal.make()
    assert seal.parse(f"{token}\n") == token


def test_commitment_refuses_what_parse_would_have_to_trim() -> None:
    with pytest.raises(seal.InvalidSealToken, match="whitespace"):
        seal.commitment(seal.make() + "\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("seal_" + "A" * 42, "47 characters"),
        ("seal_" + "A" * 44, "49 characters"),
        ("teal_" + "A" * 43, "doesn't begin"),
        ("SEAL_" + "A" * 43, "doesn't begin"),
        ("seal_" + "A" * 42 + "+", "alphabet"),
        ("seal_" + "A" * 42 + "é", "alphabet"),
        ("seal_" + "A" * 42 + "=", "alphabet"),
        ("seal_" + "A" * 42 + "B", "stray bits"),
        ("K10" + "a" * 64 + "::abcdef.0123456789abcdef", "characters"),
    ],
)
def test_parse_refuses_and_says_what_was_wanted(text: str, says: str) -> None:
    with pytest.raises(seal.InvalidSealToken, match=says):
        seal.parse(text)


@given(st.text(max_size=60))
def test_parse_never_quotes_its_input(text: str) -> None:
    canary = "C4N4RY" + text
    with pytest.raises(seal.InvalidSealToken) as caught:
        seal.parse(canary)
    assert "C4N4RY" not in str(caught.value)


@given(bodies)
def test_a_token_has_one_spelling(body: str) -> None:
    # Of the 64 characters that can come last, only the 16 without stray bits make a token.
    accepted = []
    for last in ALPHABET:
        try:
            accepted.append(seal.parse("seal_" + body[:42] + last))
        except seal.InvalidSealToken:
            continue
    assert len(accepted) == 16


@given(st.text(), st.text())
def test_equal_agrees_with_equality_even_on_unicode(a: str, b: str) -> None:
    assert seal.equal(a, a)
    assert seal.equal(a, b) == (a == b)
