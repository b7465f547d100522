"""What an operator is shown before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3s_daas.registry.operation import Operation, preview

SUI = 1_000_000_000
MIST = st.integers(0, 2**60)


def never(_: Any) -> Any:
    raise AssertionError("a preview builds nothing")


@pytest.mark.parametrize(
    ("gas_mist", "told"),
    [
        (4_700_000, "Gas: about 0.0047 SUI, in 1 transaction."),
        (-4_700_000, "Gas: about 0.0047 SUI come back, in 1 transaction."),
        (None, "Gas: can't be estimated before what it works on exists, in 1 transaction."),
    ],
)
def test_what_is_said_of_gas(gas_mist: int | None, told: str) -> None:
    shown = preview(Operation(builds=[never], meaning=["Withdraws."]), "0x1", SUI, gas_mist)
    assert shown["summary"][1].startswith(told)


@given(MIST, MIST, MIST, MIST, st.integers(-(2**40), 2**40))
def test_the_wallet_s_balance_adds_up(before: int, locks: int, returns: int, pays: int, gas: int) -> None:
    operation = Operation([never], locks_mist=locks, returns_mist=returns, pays_mist=pays, meaning=["x"])
    shown = preview(operation, "0x1", before, gas)
    assert shown["balance_after_mist"] == before - locks - pays - gas + returns


def test_nothing_to_do_is_said_and_costs_nothing() -> None:
    shown = preview(Operation(), "0x1", SUI, 0)
    assert shown["summary"] == ["Nothing to do: nothing is sent and nothing is paid."]
    assert (shown["transactions"], shown["balance_after_mist"]) == (0, SUI)
