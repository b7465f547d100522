"""`k3s-daas`: the command for people. `status` shows the fleet, `doctor` what is wrong with this host."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from k3s_daas import status
from k3s_daas.doctor import command as doctor

_COMMANDS = {"status": status.run, "doctor": doctor.run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; see `k3s_daas.status` and `k3s_daas.doctor`."""
    parser = argparse.ArgumentParser(prog="k3s-daas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    status.add_arguments(commands.add_parser("status", help="one table from chain, master and cluster"))
    doctor.add_arguments(commands.add_parser("doctor", help="what is wrong with this host, and what to do"))
    options = parser.parse_args(arguments)
    return _COMMANDS[options.command](options)


if __name__ == "__main__":
    raise SystemExit(main())
