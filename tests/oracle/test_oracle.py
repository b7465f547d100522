"""Our interpreter gives what the real Move VM gives, for the framework and for our contracts' views."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s_daas_localnet import compiler
from k3s_daas_localnet.oracle import (
    KNOWN_DIFFERENCES,
    Case,
    Difference,
    Reading,
    compare_views,
    name_of,
    new_world,
    plain_functions,
    random_state,
    reached_by_package,
    survey,
)
from k3s_daas_localnet.oracle.framework import is_known
from k3s_daas_localnet.vm import interpreter
from k3s_daas_localnet.vm.errors import VmError

# Branches that no plain value reaches: functions on structs that the surveyed ones call only in passing, and
# asserts behind asserts.
_OUT_OF_REACH = {
    "0x2::party::set_permissions",
    "0x2::priority_queue::create_entries",
    "0x2::vec_map::from_keys_values",
    "0x2::vec_map::get_idx",
}


@pytest.fixture(scope="session")
def package() -> compiler.CompiledPackage:
    return compiler.build(Path(__file__).parents[2] / "move" / "k3s_daas")


def test_framework_functions_that_our_contracts_reach(package: compiler.CompiledPackage) -> None:
    reached = reached_by_package(package.modules)
    found = survey([f for f in plain_functions() if name_of(f) in reached])
    assert found.unlisted == []
    assert found.uncovered == []
    assert len(found.functions) >= 15
    assert found.cases >= 2 * len(found.functions)


@pytest.mark.parametrize("part", [0, 1])
def test_all_framework_functions_on_plain_values(part: int) -> None:
    modules = sorted({f.module for f in plain_functions()})[part::2]
    found = survey([f for f in plain_functions() if f.module in modules])
    assert found.unlisted == []
    assert {
        branch.function for branch in found.uncovered if f"{branch.function}" in set(found.functions)
    } <= (_OUT_OF_REACH)
    assert len(found.functions) > 60
    assert all(reason for reason in found.skipped.values())


def test_views_of_our_contracts(package: compiler.CompiledPackage) -> None:
    world = new_world(package.modules, [bytes.fromhex(item[2:]) for item in package.dependencies])
    reading = Reading()
    for number in range(3):
        random_state(world, number, 1200)
        compare_views(world, number, reading=reading)
    assert reading.unlisted == []
    assert len(reading.views) >= 14
    assert reading.cases - reading.aborts > 50, "too many views only abort: the state is empty"
    assert reading.aborts > 0
    # The state is worth reading: workers staked, and more was done with them.
    assert {"create_registry", "stake_and_register_worker", "request_unstake"} <= world.succeeded.keys()


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: an interpreter that adds wrongly doesn't pass."""
    functions = [f for f in plain_functions() if name_of(f) == "0x1::u64::diff"]
    assert survey(functions).unlisted == []
    real_call = interpreter.Interpreter.call

    def wrong(self: interpreter.Interpreter, *arguments: object) -> list[object]:
        return [type(value)(int(value) ^ 1) for value in real_call(self, *arguments)]  # type: ignore[arg-type]

    monkeypatch.setattr(interpreter.Interpreter, "call", wrong)
    assert survey(functions).unlisted

    def stopping(self: interpreter.Interpreter, *arguments: object) -> list[object]:
        raise VmError("ARITHMETIC_ERROR")

    monkeypatch.setattr(interpreter.Interpreter, "call", stopping)
    assert survey(functions).unlisted


def test_known_differences_are_exact() -> None:
    """A listed function may differ in the listed way only."""
    case = Case("0x2::hmac::hmac_sha3_256", (), ())
    assert is_known(Difference(case, "20" + "00" * 32, "2001"))
    assert not is_known(Difference(case, "20" + "01" * 32, "2001"))
    assert not is_known(Difference(Case("0x1::u64::max", (), ()), "20" + "00" * 32, "2001"))
    assert all(known.reason for known in KNOWN_DIFFERENCES.values())
