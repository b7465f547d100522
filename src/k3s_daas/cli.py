"""`k3s-daas`: the command for people. `status` shows the fleet, `evidence` judges a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from k3s_daas import evidence, status


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; see `k3s_daas.status`."""
    parser = argparse.ArgumentParser(prog="k3s-daas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    status.add_arguments(commands.add_parser("status", help="one table from chain, master and cluster"))
    evidence.add_arguments(commands.add_parser("evidence", help="what a file of evidence proves, offline"))
    options = parser.parse_args(arguments)
    return evidence.run(options) if options.command == "evidence" else status.run(options)


if __name__ == "__main__":
    raise SystemExit(main())
