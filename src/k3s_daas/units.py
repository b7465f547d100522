"""SUI and MIST. Money is an integer number of MIST everywhere; SUI exists only in text for people.

1 SUI = 1,000,000,000 MIST. No float ever touches an amount: 0.1 + 0.2 is not money.
"""

from __future__ import annotations

import re

MIST_PER_SUI = 1_000_000_000
#: Sui's u64 holds every amount.
MAX_MIST = 2**64 - 1

_AMOUNT = re.compile(r"(?P<whole>[0-9]{1,20})(?:\.(?P<part>[0-9]{1,9}))?\s*(?P<unit>SUI|MIST)?", re.ASCII)


class InvalidAmount(ValueError):
    """Not an amount of SUI or MIST."""

    def __init__(self, found: object, why: str) -> None:
        super().__init__(
            f"Found {found!r} ({why}), wanted an amount such as '1.5' or '1.5 SUI' (at most 9 decimals) or "
            "'1500000000 MIST'. Write it as text: a YAML float has lost precision before we see it."
        )


def parse_sui(amount: str | int) -> int:
    """Exact MIST in an amount given as text ("1.5", "1.5 SUI", "1500000000 MIST") or as whole SUI (int).

    Raises InvalidAmount, also on a float: binary fractions are not money.
    """
    if isinstance(amount, bool) or not isinstance(amount, (str, int)):
        raise InvalidAmount(amount, f"a {type(amount).__name__}")
    match = _AMOUNT.fullmatch(str(amount).strip())
    if match is None:
        raise InvalidAmount(amount, "not a non-negative decimal number")
    whole, part = int(match["whole"]), match["part"]
    if match["unit"] == "MIST":
        if part is not None:
            raise InvalidAmount(amount, "MIST can't be split")
        mist = whole
    else:
        mist = whole * MIST_PER_SUI + int((part or "").ljust(9, "0"))
    if mist > MAX_MIST:
        raise InvalidAmount(amount, "more than a u64 of MIST holds")
    return mist


def format_sui(mist: int) -> str:
    """`mist` as exact SUI text with its unit, without trailing zeros: 1500000000 is "1.5 SUI"."""
    sign, mist = ("-", -mist) if mist < 0 else ("", mist)
    whole, part = divmod(mist, MIST_PER_SUI)
    text = f"{whole}.{part:09d}".rstrip("0").rstrip(".")
    return f"{sign}{text} SUI"
