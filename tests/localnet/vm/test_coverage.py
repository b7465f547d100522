"""Line coverage of Move code: where probes go, and that what ran, and only that, is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from k3s_daas_localnet import compiler, coverage
from k3s_daas_localnet.vm import CodeStore, Interpreter, Module, ModuleId, MoveAbort, prepare

SOURCE = """module probe::probe;

const ELow: u64 = 1;
public struct Pair has copy, drop { a: u64, b: u64 }
public enum Side has copy, drop { Left, Right { by: u64 } }

public fun walk(steps: u64): u64 {
    let mut i = 0;
    let mut sum = 0;
    while (i < steps) {
        if (i % 2 == 0) {
            sum = sum + i;  // { not a block }
        } else {
            sum = sum + 1; i = i + 0;
        };
        i = i + 1;
    };
    let Pair { a, b } = Pair {
        a: sum,
        b: i,
    };
    assert!(b > 0, ELow);
    a + b
}

fun never(side: Side): u64 {
    match (side) {
        Side::Left => 0,
        Side::Right { by } => { by + 1 },
    }
}

public fun loud(): vector<u8> { b"; { }" }
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "probe"
    (folder / "sources").mkdir(parents=True)
    (folder / "Move.toml").write_text(
        '[package]\nname = "probe"\nedition = "2024"\n[addresses]\nprobe = "0x0"\n'
    )
    (folder / "sources" / "probe.move").write_text(SOURCE)
    return folder


def run(package: Path, into: Path, *calls: tuple[str, list[Any]]) -> coverage.Hits:
    coverage.instrument_package(package, into)
    code = CodeStore.with_framework()
    for module in map(Module.parse, compiler.build(into).modules):
        code.add(module)
    with coverage.record() as hits:
        for function, arguments in calls:
            interpreter = Interpreter(code, cast(Any, None))  # nothing here asks the chain
            interpreter.call(ModuleId(bytes(32), "probe"), function, [], arguments)
    return hits


def missing(package: Path, hits: coverage.Hits) -> set[int]:
    every, ran = coverage.lines(package, hits)["probe"]
    return every - ran


def test_probes_stand_before_statements_and_keep_the_lines() -> None:
    text, probes = coverage.instrument(SOURCE)
    assert text.count("\n") == SOURCE.count("\n")
    assert sorted({probe // 100 for probe in probes}) == [
        *(8, 9, 10, 11, 12, 14, 16, 18, 22, 23),
        *(27, 29, 33),
    ]
    assert [probe for probe in probes if probe // 100 == 14] == [1401, 1402]


def test_what_ran_is_counted_and_nothing_else(package: Path, tmp_path: Path) -> None:
    hits = run(package, tmp_path / "copy", ("walk", [1]))
    assert missing(package, hits) == {14, 27, 29, 33}
    text, share = coverage.table(package, hits)
    assert "14, 27, 29, 33" in text
    assert share == pytest.approx(9 / 13)


def test_runs_add_up(package: Path, tmp_path: Path) -> None:
    for number, calls in enumerate([("walk", [3])], start=1):
        coverage.save(run(package, tmp_path / f"copy-{number}", calls), tmp_path / f"{number}.json")
    coverage.save(run(package, tmp_path / "loud", ("loud", [])), tmp_path / "loud.json")
    assert missing(package, coverage.load(tmp_path.glob("*.json"))) == {27, 29}


def test_an_abort_counts_up_to_its_statement(package: Path, tmp_path: Path) -> None:
    coverage.instrument_package(package, tmp_path / "copy")
    code = CodeStore.with_framework()
    for module in map(Module.parse, compiler.build(tmp_path / "copy").modules):
        code.add(module)
    with pytest.raises(MoveAbort), coverage.record() as hits:
        Interpreter(code, cast(Any, None)).call(ModuleId(bytes(32), "probe"), "walk", [], [0])
    assert missing(package, hits) == {11, 12, 14, 16, 23, 27, 29, 33}


def test_the_hook_is_gone_afterwards() -> None:
    with coverage.record():
        with pytest.raises(RuntimeError, match="already"), coverage.record():
            pass
        assert prepare.trace is not None
    assert prepare.trace is None
