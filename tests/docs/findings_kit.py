"""What `k3s-daas doctor` can print, read out of the source of its checks."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCES = sorted((Path(__file__).parents[2] / "src/k3s_daas/doctor").glob("checks_*.py"))
GAP = "…"


@dataclass(frozen=True)
class Told:
    """One `error(...)` or `warning(...)`: its check, and what it can say, with … for what is filled in."""

    check: str
    found: frozenset[str]
    cause: frozenset[str]
    where: str


def findings(sources: list[Path] = SOURCES) -> Iterator[Told]:
    for path in sources:
        module = ast.parse(path.read_text())
        constants = _assigned(module.body)
        for function in (node for node in module.body if isinstance(node, ast.FunctionDef)):
            names = constants | _assigned(ast.walk(function))
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if not isinstance(call.func, ast.Name) or call.func.id not in ("error", "warning", "level"):
                    continue
                check, found, cause, _ = call.args
                assert isinstance(check, ast.Constant), (
                    f"{path.name}:{call.lineno}: the check has to be a word"
                )
                yield Told(
                    str(check.value),
                    frozenset(_texts(found, names)),
                    frozenset(_texts(cause, names)),
                    f"{path.name}:{call.lineno}",
                )


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """What each plain name is set to, alone or among others."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts, strict=True) if both else [(target, value)]
        for name, one in pairs:
            if isinstance(name, ast.Name):
                found.setdefault(name.id, []).append(one)
    return found


def _texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one, names)
            yield from _texts(other, names)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _texts(value, names)
        case ast.Name(id=name) if name in names:
            for value in names[name]:
                yield from _texts(value, names)
        case _:
            yield GAP
