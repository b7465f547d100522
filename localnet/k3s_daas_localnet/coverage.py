"""Line coverage of Move code, counted by the interpreter.

Bytecode carries no line numbers, and the offline compiler gives no source map. So the sources are compiled
with a probe before each statement, a call `coverage::hit(line)`, and the interpreter's trace says which ran.
Without a trace the interpreter runs as always: the hook is looked at per function, not per instruction.

A statement counts by the line it starts on; a line with several counts when all of them ran. What a condition
without braces leads to (`if (x) return 0`) is part of its statement.

Use: make a copy with `instrument_package`, compile and run that inside `with record() as hits`, then `table`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .vm import opcodes as op
from .vm import prepare
from .vm.bytecode import FunctionDef

_MODULE = re.compile(r"^module (\w+)::(\w+);", re.MULTILINE)
_TOKEN = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | b?"(?:\\.|[^"\\])*" | x"[0-9a-fA-F]*" | [A-Za-z_@]\w* | \d\w* | =>|::|\s+|.""",
    re.VERBOSE | re.DOTALL,
)
# Several statements may start on one line: probe = line * _PER_LINE + number on it.
_PER_LINE = 100
_PROBES = "module {address}::coverage;\npublic(package) fun hit(_probe: u64) {{}}\n"

Hits = defaultdict[str, set[int]]
"""Module name -> probes that ran."""


def instrument_package(move_dir: Path, into: Path) -> None:
    """Copies a package, with probes in its sources, to the new folder `into`."""
    shutil.copytree(move_dir, into)
    addresses = set()
    for path in sorted((into / "sources").glob("*.move")):
        source = path.read_text("utf-8")
        addresses.add(_module(source)[0])
        path.write_text(instrument(source)[0], "utf-8")
    (address,) = addresses
    (into / "sources" / "coverage.move").write_text(_PROBES.format(address=address), "utf-8")


def instrument(source: str) -> tuple[str, list[int]]:
    """A module's source with probes, on the same lines, and the probes."""
    address, _ = _module(source)
    out: list[str] = []
    probes: list[int] = []
    kinds: list[str] = []  # of the open braces: "block", "match", "other"
    line, number = 1, 0
    starts = False  # a statement may start at the next word
    before: list[str] = []  # the words before this one, back to the last brace or semicolon
    for word in (match[0] for match in _TOKEN.finditer(source)):
        blank = word.isspace() or word.startswith(("//", "/*"))
        if not blank:
            in_block = bool(kinds) and kinds[-1] == "block"
            if starts and in_block and word not in ("}", "else", ";", ",", ")", ".", "&&", "||"):
                number += 1
                probes.append(line * _PER_LINE + number)
                out.append(f"{address}::coverage::hit({probes[-1]}); ")
            starts = False
            if word == "{":
                kinds.append(_kind(before, in_block))
                starts, before = kinds[-1] == "block", []
            elif word == "}":
                # what follows a closed block is a statement, unless it goes on with this one
                starts, before = kinds.pop() == "block", [word]
            elif word == ";":
                starts, before = True, []
            else:
                before.append(word)
        out.append(word)
        if "\n" in word:
            line += word.count("\n")
            number = 0
    return "".join(out), probes


@contextmanager
def record() -> Iterator[Hits]:
    """Collects the probes that run inside the block; complete when it ends."""
    hits: Hits = defaultdict(set)
    traced: list[tuple[FunctionDef, _Traced]] = []

    def trace(function: FunctionDef, code: list[prepare.PreparedInstruction]) -> _Traced:
        found = _Traced(code)
        traced.append((function, found))
        return found

    if prepare.trace is not None:
        raise RuntimeError("coverage is being recorded already")
    prepare.trace = trace
    try:
        yield hits
    finally:
        prepare.trace = None
        for function, code in traced:
            plain = list(code)
            for pc in code.ran:
                opcode, operand = plain[pc]
                if opcode == op.CALL and _is_probe(operand.function):
                    hits[function.module.name].add(int(plain[pc - 1][1]))


def save(hits: Mapping[str, Iterable[int]], path: Path) -> None:
    path.write_text(json.dumps({module: sorted(probes) for module, probes in hits.items()}), "utf-8")


def load(paths: Iterable[Path]) -> Hits:
    """All that several runs hit together."""
    hits: Hits = defaultdict(set)
    for path in paths:
        for module, probes in json.loads(path.read_text("utf-8")).items():
            hits[module].update(probes)
    return hits


def lines(move_dir: Path, hits: Mapping[str, set[int]]) -> dict[str, tuple[set[int], set[int]]]:
    """Module -> (lines on which statements start, those of them that ran completely)."""
    found = {}
    for path in sorted((move_dir / "sources").glob("*.move")):
        source = path.read_text("utf-8")
        module = _module(source)[1]
        probes = set(instrument(source)[1])
        every = {probe // _PER_LINE for probe in probes}
        found[module] = every, every - {probe // _PER_LINE for probe in probes - hits.get(module, set())}
    return found


def table(move_dir: Path, hits: Mapping[str, set[int]]) -> tuple[str, float]:
    """A line of text per module, with the lines that did not run, and the share of all that did (0 to 1)."""
    found = lines(move_dir, hits)
    rows = [f"{'module':<22}{'lines':>7}{'run':>7}  not run"]
    for module, (every, run) in found.items():
        missing = ", ".join(map(str, sorted(every - run)))
        rows.append(f"{module:<22}{len(every):>7}{len(run):>7}  {missing}".rstrip())
    total = sum(len(every) for every, _ in found.values())
    ran = sum(len(run) for _, run in found.values())
    share = ran / total if total else 1.0
    rows.append(f"{'all':<22}{total:>7}{ran:>7}  {share:.1%}")
    return "\n".join(rows), share


class _Traced(list[prepare.PreparedInstruction]):
    """A function's code that notes which instructions were fetched."""

    def __init__(self, code: list[prepare.PreparedInstruction]) -> None:
        super().__init__(code)
        self.ran: set[int] = set()

    def __getitem__(self, pc):  # type: ignore[no-untyped-def]
        self.ran.add(pc)
        return super().__getitem__(pc)


def _is_probe(function: FunctionDef) -> bool:
    return function.name == "hit" and function.module.name == "coverage"


def _module(source: str) -> tuple[str, str]:
    found = _MODULE.search(source)
    if found is None:
        raise ValueError("found no `module address::name;`, which coverage needs")
    return found[1], found[2]


def _kind(before: list[str], in_block: bool) -> str:
    """What a brace opens, from the words before it."""
    if "fun" in before and not in_block:
        return "block"
    if not before:
        return "block" if in_block else "other"
    if "match" in before and before[-1] == ")":
        return "match"
    if before[-1] in (")", "else", "loop", "=>") and "struct" not in before:
        return "block"
    return "other"
