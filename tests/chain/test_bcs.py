from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.chain import bcs
from k3s_daas.chain.errors import InvalidAddress
from k3s_daas_localnet.vm.types import encode_type, parse_type

NAMES = st.sampled_from(["coin", "Coin", "a_1", "T"])
PRIMITIVES = st.sampled_from(["bool", "u8", "u16", "u32", "u64", "u128", "u256", "address"])
TYPES = st.recursive(
    PRIMITIVES,
    lambda inner: (
        inner.map(lambda item: f"vector<{item}>")
        | st.builds(
            lambda address, module, name, args: (
                f"0x{address:x}::{module}::{name}" + (f"<{', '.join(args)}>" if args else "")
            ),
            st.integers(0, 2**256 - 1),
            NAMES,
            NAMES,
            st.lists(inner, max_size=3),
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("text", ["0x6", "0x06", "0x" + "0" * 63 + "6"])
def test_addresses_have_one_spelling(text: str) -> None:
    assert bcs.normalize_address(text) == "0x" + "0" * 63 + "6"
    assert bcs.normalize_address("0xAB") == bcs.normalize_address("0xab")


@pytest.mark.parametrize(
    "text", ["", "6", "0x", "0xg", "0x" + "1" * 65, "0x1 ", "0X1", "published by this run", 6]
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidAddress, match="wanted a Sui address"):
        bcs.normalize_address(text)


@given(TYPES)
def test_type_tags_agree_with_the_move_interpreter(text: str) -> None:
    assert bcs.type_tag(text) == encode_type(parse_type(text))


@pytest.mark.parametrize(
    "text", ["", "u7", "vector", "vector<u8", "u8>", "u8<u8>", "0x1::a::B<>", "vector<u8,u8>"]
)
def test_refuses_what_is_no_type(text: str) -> None:
    with pytest.raises(ValueError, match="Found"):
        bcs.type_tag(text)


@given(st.integers(0, 2**64 - 1))
def test_uleb_is_read_back(number: int) -> None:
    encoded = bcs.uleb(number)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(encoded)) == number
    assert all(byte & 0x80 for byte in encoded[:-1])
    assert not encoded[-1] & 0x80


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OverflowError):
        bcs.unsigned(256, 1)
    with pytest.raises(OverflowError):
        bcs.unsigned(-1, 8)
