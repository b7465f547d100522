"""`k3s-daas`: the command for people and units. `register` joins a worker, `status` shows the fleet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; see `k3s_daas_watcher.errors.Exit` and `k3s_daas.status`."""
    # Imported here: this is the one place where the shared package reaches outwards, only to dispatch.
    parser = argparse.ArgumentParser(prog="k3s-daas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    registering = commands.add_parser("register", help="exchange this worker's seal token for a join token")
    status_parser = commands.add_parser("status", help="one table from chain, master and cluster")
    from k3s_daas import status
    from k3s_daas_watcher import register_command

    register_command.add_arguments(registering)
    status.add_arguments(status_parser)
    options = parser.parse_args(arguments)
    if options.command == "register":
        return register_command.run(options)
    return status.run(options)


if __name__ == "__main__":
    raise SystemExit(main())
