"""The command line."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import testhosts
from testhosts import fleet as fleets
from testhosts import image, registry
from testhosts.errors import HostsError
from testhosts.fleet import FleetPaths
from testhosts.names import Fleet
from testhosts.system import MACHINE_PACKAGES, check_machine, check_root, missing_packages, progress

_STATE = Path(__file__).resolve().parents[3] / ".state"  # of this checkout, from wherever we are called


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="testhosts",
        description=testhosts.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fleet", default="demo", help="its name decides all other names (default: %(default)s)"
    )
    parser.add_argument(
        "--subnet", default="10.123.1.0/24", help="private, /24 to /29 (default: %(default)s)"
    )
    parser.add_argument("--state-dir", type=Path, help="default: the checkout's .state/FLEET")
    parser.add_argument(
        "--image-dir", type=Path, help="shared by fleets (default: the checkout's .state/image)"
    )
    parser.add_argument(
        "--kubernetes",
        action="store_true",
        help="hosts that can run a kubelet and containerd; privileged: only for machines to throw away",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("image", help="make the root image and print its path; nothing when it is there")
    command = commands.add_parser("up", help="make hosts; running ones are left alone")
    command.add_argument("hosts", nargs="+", metavar="NAME=ADDRESS")
    commands.add_parser("down", help="remove everything of the fleet and put sysctls back; twice is fine")
    commands.add_parser("sweep", help="remove what killed runs left; running hosts stay")
    commands.add_parser("status", help="print JSON: hosts with their state, address and console")
    command = commands.add_parser("exec", help="run a command in a host; its exit status becomes ours")
    command.add_argument("name")
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    command = commands.add_parser("logs", help="save each host's journal and console below DIR")
    command.add_argument("directory", type=Path, metavar="DIR")
    commands.add_parser(
        "packages", help="print the Debian packages that this machine needs, for apt-get install"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 well, 1 an error told on stderr, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except HostsError as error:
        print(f"testhosts: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a state directory that somebody removes while we work
        print(f"testhosts: {error}; run the same command again, or `down`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testhosts: interrupted; run the same command again, or `down`", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    fleet = Fleet.parse(arguments.fleet, arguments.subnet)
    state = (arguments.state_dir or _STATE / fleet.name).resolve()
    image_dir = (arguments.image_dir or _STATE / "image").resolve()
    paths = FleetPaths(state)
    kubernetes: bool = arguments.kubernetes
    if arguments.command == "packages":
        print(" ".join(MACHINE_PACKAGES))
        return 0
    if arguments.command == "exec":
        given = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
        if not given:
            raise HostsError("no command given, wanted: exec NAME -- COMMAND")
        return fleets.execute(paths, arguments.name, shlex.join(given))
    wanted = fleet.hosts(arguments.hosts) if arguments.command == "up" else []
    check_root()
    if arguments.command in ("down", "sweep") and (missing := missing_packages()):
        progress(f"nothing to remove: no host was ever made here, {', '.join(missing)} not being installed")
        return 0
    check_machine()
    if arguments.command == "image":
        fleets.check_paths(image_dir)
        print(image.ensure(image_dir, kubernetes))
        return 0
    if arguments.command == "status":
        print(json.dumps(fleets.status(fleet, paths), indent=2))
        return 0
    if arguments.command == "logs":
        fleets.logs(fleet, paths, arguments.directory)
        return 0
    with registry.fleet_lock(fleet.name):
        if arguments.command == "up":
            fleets.up(fleet, paths, wanted, image_dir, kubernetes)
        elif arguments.command == "down":
            fleets.down(fleet, paths)
        elif arguments.command == "sweep":
            registry.check_owner(fleet, state)
            fleets.sweep(fleet, paths, fleets.well_hosts(fleet, paths))
        else:
            raise AssertionError(arguments.command)
    return 0
