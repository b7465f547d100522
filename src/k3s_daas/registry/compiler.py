"""Compiling the Move package: with the `sui` CLI where it is installed, else with the localnet's compiler."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from k3s_daas.chain.errors import ChainError
from k3s_daas.registry.deploy import CompiledPackage

_TIMEOUT_S = 300


class CompileFailed(ChainError):
    """The compiler is missing or refused the package."""


def compile_package(
    path: str | Path, compiler: Literal["auto", "sui", "localnet"] = "auto"
) -> tuple[CompiledPackage, str]:
    """The bytecode of the package in `path`, and which compiler made it ("sui" or "localnet")."""
    source = Path(path)
    if not (source / "Move.toml").is_file():
        raise CompileFailed(f"Found no Move.toml in {source}, wanted the folder of a Move package.")
    used = compiler if compiler != "auto" else ("sui" if shutil.which("sui") else "localnet")
    with tempfile.TemporaryDirectory(prefix="k3s-daas-move-") as scratch:
        # The CLI writes build/ and Move.lock beside the sources: not into somebody's checkout.
        copy = Path(scratch) / "package"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build"))
        if used == "sui":
            command = ["sui", "move", "build", "--dump-bytecode-as-base64", "--path", str(copy)]
        else:
            command = [sys.executable, "-m", "k3s_daas_localnet", "build", str(copy)]
        try:
            done = subprocess.run(  # the command is a list of our own words
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            raise CompileFailed(
                f"Found no {command[0]}, wanted it on PATH. Install it, or set compiler to localnet."
            ) from None
        except subprocess.TimeoutExpired:
            raise CompileFailed(f"The compiler ({used}) did not finish within {_TIMEOUT_S} s.") from None
    return _parse(done, used, source), used


def _parse(done: subprocess.CompletedProcess[str], used: str, source: Path) -> CompiledPackage:
    output = (done.stderr + "\n" + done.stdout).strip()
    if done.returncode != 0:
        raise CompileFailed(f"The compiler ({used}) refused {source}: {output[-2000:]}")
    try:
        # The CLI may print notes first; the JSON is the last line.
        compiled = json.loads(done.stdout.strip().splitlines()[-1])
        return CompiledPackage(
            tuple(base64.b64decode(module, validate=True) for module in compiled["modules"]),
            tuple(compiled["dependencies"]),
            bytes(compiled["digest"]),
        )
    except (ValueError, KeyError, IndexError, TypeError):
        raise CompileFailed(
            f"The compiler ({used}) printed no bytecode for {source}, but: {output[-500:]}"
        ) from None
