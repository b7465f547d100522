from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.units import MAX_MIST, InvalidAmount, format_sui, parse_sui


@given(st.integers(0, MAX_MIST))
def test_format_and_parse_are_inverse(mist: int) -> None:
    assert parse_sui(format_sui(mist)) == mist
    assert parse_sui(f"{mist} MIST") == mist


@given(st.decimals(0, 18_000_000_000, places=9))
def test_parsing_is_exact(amount: Decimal) -> None:
    assert parse_sui(f"{amount:f}") == int(amount * 1_000_000_000)


@pytest.mark.parametrize(
    ("text", "mist"),
    [
        ("1", 10**9),
        (1, 10**9),
        ("1.5 SUI", 1_500_000_000),
        ("0.000000001", 1),
        ("0.1", 100_000_000),
        ("1500000000 MIST", 1_500_000_000),
        (" 2 ", 2 * 10**9),
    ],
)
def test_reads_amounts(text: str | int, mist: int) -> None:
    assert parse_sui(text) == mist


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "+1", "1e3", "1,5", ".5", "1.", "1.0000000001", "1.5 MIST", "1 sui", "0x1", "nan", "1_0"),
        *("\u0661", "18446744074", "99999999999999999999"),  # the first is a digit, but no ASCII one
        *(1.5, True, None, b"1"),
    ],
)
def test_refuses_what_is_no_amount(text: object) -> None:
    with pytest.raises(InvalidAmount, match="wanted an amount"):
        parse_sui(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mist", "text"),
    [
        (0, "0 SUI"),
        (1, "0.000000001 SUI"),
        (10**9, "1 SUI"),
        (1_500_000_000, "1.5 SUI"),
        (-5, "-0.000000005 SUI"),
    ],
)
def test_formats_without_needless_zeros(mist: int, text: str) -> None:
    assert format_sui(mist) == text
