"""`k3s-daas`: the command for people. `status` shows the fleet, `request` has something run on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from k3s_daas import status
from k3s_daas.requests import command as request


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; see `k3s_daas.status` and `k3s_daas.requests.command`."""
    parser = argparse.ArgumentParser(prog="k3s-daas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    status.add_arguments(commands.add_parser("status", help="one table from chain, master and cluster"))
    request.add_arguments(commands.add_parser("request", help="have something run on the fleet"))
    options = parser.parse_args(arguments)
    return {"status": status.run, "request": request.run}[options.command](options)


if __name__ == "__main__":
    raise SystemExit(main())
