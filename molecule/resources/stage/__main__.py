"""A stage: what demo and tests need around the playbooks, made on this machine.

    python molecule/resources/stage --name demo [--subnet 10.123.1.0/24] [--workers 2] up
    python molecule/resources/stage --name demo add worker-3
    python molecule/resources/stage --name demo remove worker-3
    python molecule/resources/stage --name demo down
    python molecule/resources/stage --name demo logs

`up` makes the hosts (master, worker-1, worker-2, …, with --monitor one for Prometheus), a Sui localnet on
their bridge, and a wallet that has SUI, chooses a k3s, and describes all of it in .state/NAME/stage.json,
where the inventory reads it. It leaves a whole stage alone, and makes one that a killed run left half anew.
`down` removes everything, twice is fine. `add` makes more workers' hosts and `remove` takes those away; each
prints the names of those that it changed. `logs` keeps the hosts' journals in .state/logs/NAME.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path

# Both packages are started by their folder; what they import is found from the folder above.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from stage.stage import DEFAULT_SUBNET, Stage, StageError  # noqa: E402
from testhosts.errors import HostsError  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="stage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="demo", help="the stage's and its fleet's name")
    parser.add_argument(
        "--subnet",
        type=ipaddress.IPv4Network,
        default=os.environ.get("SUBNET"),
        help="address range of its hosts, also by the environment variable SUBNET "
        f"(default: the one it has, or {DEFAULT_SUBNET})",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.environ.get("K3S_DAAS_STAGE_WORKERS") or 2,
        help="how many, also by the environment variable K3S_DAAS_STAGE_WORKERS (default: 2)",
    )
    parser.add_argument(
        "--monitor",
        action="store_true",
        default=bool(os.environ.get("K3S_DAAS_STAGE_MONITOR")),
        help="also make the host monitor, also by the environment variable K3S_DAAS_STAGE_MONITOR=1",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "logs"):
        commands.add_parser(name)
    for name in ("add", "remove"):
        commands.add_parser(name).add_argument("hosts", nargs="+", metavar="worker-N")
    arguments = parser.parse_args()
    try:
        stage = Stage(arguments.name, arguments.subnet, arguments.workers, arguments.monitor)
        if arguments.command in ("add", "remove"):
            changed = {"add": stage.add, "remove": stage.remove}[arguments.command](arguments.hosts)
            print(" ".join(changed))
        else:
            {"up": stage.up, "down": stage.down, "logs": stage.logs}[arguments.command]()
    except (StageError, HostsError) as error:
        print(f"stage: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
