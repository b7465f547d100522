"""`k3s-daas status`: the fleet at a glance, from chain, master and cluster.

Each source is shown for what it says itself: stake, status and token from the chain; heartbeats, alarms and
findings from the master (found on-chain, over TLS with the on-chain CA); readiness straight from the cluster,
if it can be asked. A source that can't be read leaves its cells empty and a line below the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from k3s_daas import release
from k3s_daas.chainconfig import InvalidConfig, add_chain_arguments, chain_of, read
from k3s_daas.status.gather import gather
from k3s_daas.status.report import KnownMaster
from k3s_daas.status.show import as_json, print_table

OK, INCOMPLETE, NOTHING_READ, CONFIG = 0, 1, 10, 78


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_chain_arguments(parser)
    parser.add_argument("--kubeconfig", type=Path, help="also ask the cluster itself with this kubeconfig")
    parser.add_argument("--kubectl", default="kubectl", help="command to ask it with (default: %(default)s)")
    parser.add_argument(
        "--ca",
        type=Path,
        help="on the master, its API server's CA certificate: while the chain gives no answer, the master "
        "that --config names is asked with it",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Print the status; 0 when every source could be read, 1 when one was missing, 10 when all were."""
    try:
        config = chain_of(options)
        report = asyncio.run(gather(config, options.kubectl, options.kubeconfig, _known(options)))
        if options.config is not None:
            report.release = release.read(options.config.with_name(release.PATH.name))
    except InvalidConfig as error:
        print(f"k3s-daas status: {error}", file=sys.stderr)
        return CONFIG
    if options.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        print_table(report)
    if report.chain is None and report.master is None and report.nodes is None:
        return NOTHING_READ
    return INCOMPLETE if report.problems else OK


def _known(options: argparse.Namespace) -> KnownMaster | None:
    if options.ca is None or options.config is None:
        return None
    try:
        ca = options.ca.read_bytes()
    except OSError as error:
        raise InvalidConfig(options.ca, str(error.strerror), "the API server's CA certificate") from None
    return KnownMaster(str(read(options.config).get("endpoint", "")), ca)
