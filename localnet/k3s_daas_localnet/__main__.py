"""`python -m k3s_daas_localnet [serve] …` runs the network, `… build MOVE_DIR` compiles Move, `… nsm …` runs
the emulator of a Nitro security module."""

from __future__ import annotations

import sys


def main() -> int:
    """Dispatch to a subcommand, `serve` when none is named; returns the exit code."""
    argv = sys.argv[1:]
    # Imported late: compiling needs nothing of the network, which takes a second to import.
    if argv[:1] == ["build"]:
        from . import compiler

        return compiler.main(argv[1:])
    if argv[:1] == ["nsm"]:
        from . import nsm_serve

        return nsm_serve.main(argv[1:])
    from . import serve

    return serve.main(argv[1:] if argv[:1] == ["serve"] else argv)


if __name__ == "__main__":
    sys.exit(main())
