"""A stage: what demo and tests need around the playbooks, made on this machine.

    python molecule/resources/stage --name demo [--subnet 10.123.1.0/24] [--workers 2] up
    python molecule/resources/stage --name demo add worker-3
    python molecule/resources/stage --name demo remove worker-3
    python molecule/resources/stage --name demo down
    python molecule/resources/stage --name demo logs
    python molecule/resources/stage --name demo --enclave enclave --image DIR --cluster FILE
    python molecule/resources/stage --name demo --standby emulate master PCR0

`up` makes the hosts (master, worker-1, worker-2, …, with --monitor one for Prometheus), a Sui localnet on
their bridge, and a wallet that has SUI, chooses a k3s, and describes all of it in .state/NAME/stage.json,
where the inventory reads it. It leaves a whole stage alone, and makes one that a killed run left half anew.
`down` removes everything, twice is fine. `add` makes more workers' hosts and `remove` takes those away; each
prints the names of those that it changed. `logs` keeps the hosts' journals in .state/logs/NAME. With
--enclave the master is none of the hosts: `enclave` starts it from the enclave image in DIR, with the
cluster's configuration in FILE, and prints what the emulator of its security module says. With --standby
there is another host for a master, standby. All hosts share a folder, /srv/shared, where each of the two has
its emulator's socket, master.nsm and standby.nsm: `emulate` has one measure an image of that PCR0.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
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
    parser.add_argument(
        "--enclave",
        action="store_true",
        default=bool(os.environ.get("K3S_DAAS_STAGE_ENCLAVE")),
        help="start the master from an image, also by the environment variable K3S_DAAS_STAGE_ENCLAVE=1",
    )
    parser.add_argument(
        "--standby",
        action="store_true",
        default=bool(os.environ.get("K3S_DAAS_STAGE_STANDBY")),
        help="also make the host standby, also by the environment variable K3S_DAAS_STAGE_STANDBY=1",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "logs"):
        commands.add_parser(name)
    for name in ("add", "remove"):
        commands.add_parser(name).add_argument("hosts", nargs="+", metavar="worker-N")
    enclave = commands.add_parser("enclave")
    enclave.add_argument("--image", type=Path, required=True, help="the folder with the image and its record")
    enclave.add_argument("--cluster", type=Path, required=True, help="what the parent says of the cluster")
    emulate = commands.add_parser("emulate")
    emulate.add_argument("host", choices=["master", "standby"])
    emulate.add_argument("pcr0", help="96 hex digits")
    arguments = parser.parse_args()
    try:
        stage = Stage(
            arguments.name,
            arguments.subnet,
            arguments.workers,
            arguments.enclave,
            arguments.monitor,
            arguments.standby,
        )
        if arguments.command in ("add", "remove"):
            changed = {"add": stage.add, "remove": stage.remove}[arguments.command](arguments.hosts)
            print(" ".join(changed))
        elif arguments.command == "enclave":
            cluster = json.loads(arguments.cluster.read_text())
            print(json.dumps(stage.start_enclave(arguments.image.resolve(), cluster)))
        elif arguments.command == "emulate":
            print(json.dumps(stage.emulate(arguments.host, arguments.pcr0)))
        else:
            {"up": stage.up, "down": stage.down, "logs": stage.logs}[arguments.command]()
    except (StageError, HostsError) as error:
        print(f"stage: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
