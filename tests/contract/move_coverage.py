"""How the contract tests compile the contracts: as they are, or, where K3S_DAAS_MOVE_COVERAGE names a folder,
with probes whose hits are written there when the run ends. benchmarks/onboarding.py reads them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from k3s_daas_localnet import compiler, coverage

FOLDER = os.environ.get("K3S_DAAS_MOVE_COVERAGE")


def build(move_dir: Path, extra: Sequence[Path] = ()) -> compiler.CompiledPackage:
    """Compiles the package, with more modules of the tests'."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "package"
        if FOLDER:
            coverage.instrument_package(move_dir, copy)
        else:
            shutil.copytree(move_dir, copy)
        for path in extra:
            shutil.copy(path, copy / "sources")
        return compiler.build(copy)


@contextmanager
def recording() -> Iterator[None]:
    if not FOLDER:
        yield
        return
    with coverage.record() as hits:
        yield
    coverage.save(hits, Path(FOLDER) / f"{os.getpid()}.json")
