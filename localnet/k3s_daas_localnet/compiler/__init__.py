"""Compiles Move packages with Sui's own compiler, offline.

The compiler is `@zktx.io/sui-move-builder`: the real one as WASM, run by Node. `make setup` installs it from
the package-lock.json beside this file, this code never does.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .stubs import framework_stubs

_HERE = Path(__file__).parent
_NAME = Path("node_modules", "@zktx.io", "sui-move-builder", "package.json")
# Beside this file, or in a folder above it: where Node itself looks, too.
_FOLDERS = (_HERE, *_HERE.parents)
_PACKAGE = next((found for folder in _FOLDERS if (found := folder / _NAME).is_file()), _HERE / _NAME)
_WANTED_VERSION: str = json.loads((_HERE / "package.json").read_text("utf-8"))["dependencies"][
    "@zktx.io/sui-move-builder"
]
_TIMEOUT_S = 120
_TEST_MODE = "localnet"
# "error[E04007]: incompatible types" and, on the next line, "   ┌─ sources/x.move:2:23"
_DIAGNOSTIC = re.compile(
    r"^(?P<what>(?:error|warning|bug)\[\w+\]: .*)\n\s*┌─ (?P<where>\S+:\d+:\d+)$", re.MULTILINE
)


class CompilerMissing(RuntimeError):
    """Node or the npm package of the compiler is absent; the message says what to run."""


class CompileError(RuntimeError):
    """The package does not compile; the message has the findings as `file:line:column: message`."""


@dataclass(frozen=True)
class CompiledPackage:
    """Bytecode of a package at address 0x0, as `sui move build --dump-bytecode-as-base64` gives it."""

    modules: list[bytes]
    """Dependencies before their users."""
    dependencies: list[str]
    """Ids of the packages it links against, "0x" and 64 hex digits."""
    digest: bytes
    """32 bytes."""
    warnings: str = ""

    def to_json(self) -> str:
        """What the sui CLI prints."""
        return json.dumps(
            {
                "modules": [base64.b64encode(module).decode() for module in self.modules],
                "dependencies": self.dependencies,
                "digest": list(self.digest),
            }
        )


def build(move_dir: str | Path, test: bool = False) -> CompiledPackage:
    """Compile the package in `move_dir`.

    With `test`, `#[mode(localnet)]` code and the folder `tests` are compiled too, into modules that no public
    network accepts. (`#[test_only]` code is not: it needs the test framework's source.)

    Raises CompilerMissing, CompileError, vm.framework.FrameworkMissing.
    """
    request = {
        "files": _sources(Path(move_dir), test),
        "framework": framework_stubs(),
        "modes": [_TEST_MODE] if test else [],
    }
    run = subprocess.run(
        [_node(), str(_HERE / "compile.mjs")],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    try:
        answer = json.loads(run.stdout)
    except ValueError:
        raise CompileError(
            f"the Move compiler gave no answer (exit code {run.returncode}): "
            + run.stderr.decode(errors="replace")
        ) from None
    if "error" in answer:
        raise CompileError(_readable(answer["error"], Path(move_dir)))
    return CompiledPackage(
        modules=[base64.b64decode(module) for module in answer["modules"]],
        dependencies=answer["dependencies"],
        digest=bytes(answer["digest"]),
        warnings=_readable(answer["warnings"], Path(move_dir)),
    )


def main(argv: Sequence[str]) -> int:
    """`build MOVE_DIR [--test]`: the CLI's JSON to stdout, findings to stderr; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m k3s_daas_localnet build",
        description="Compile a Move package offline: `sui move build --dump-bytecode-as-base64` without sui.",
    )
    parser.add_argument("move_dir", type=Path, help="folder of the package, with Move.toml")
    parser.add_argument("--test", action="store_true", help="compile test code too (can't be published)")
    arguments = parser.parse_args(argv)
    try:
        package = build(arguments.move_dir, arguments.test)
    except (CompilerMissing, CompileError) as error:
        print(error, file=sys.stderr)
        return 1
    if package.warnings:
        print(package.warnings, file=sys.stderr)
    print(package.to_json())
    return 0


def _sources(move_dir: Path, test: bool) -> dict[str, str]:
    if not (move_dir / "Move.toml").is_file():
        raise CompileError(f"{move_dir} is no Move package: it has no Move.toml")
    found = {"Move.toml": (move_dir / "Move.toml").read_text("utf-8")}
    for folder in ("sources", "tests") if test else ("sources",):
        for path in sorted((move_dir / folder).rglob("*.move")):
            found[path.relative_to(move_dir).as_posix()] = path.read_text("utf-8")
    if len(found) == 1:
        raise CompileError(f"{move_dir} has no .move file in its folder sources")
    return found


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        raise CompilerMissing("Node (20 or newer) is not installed: run `make setup`, which installs it")
    if not _PACKAGE.is_file():
        raise CompilerMissing(
            f"the Move compiler's npm package is not installed: run `make setup`, or `npm ci` in {_HERE}"
        )
    found = json.loads(_PACKAGE.read_text("utf-8"))["version"]
    if found != _WANTED_VERSION:
        raise CompilerMissing(
            f"the Move compiler is version {found}, wanted {_WANTED_VERSION}: "
            f"run `make setup`, or `npm ci` in {_HERE}"
        )
    return node


def _readable(diagnostics: str, move_dir: Path) -> str:
    """Puts the place first, as editors and people expect it, and leaves the picture of the code below."""

    def place_first(match: re.Match[str]) -> str:
        return f"{move_dir / match['where']}: {match['what']}"

    return _DIAGNOSTIC.sub(place_first, diagnostics).strip()
