"""`k3s-daas`: the command for people. `k3s-daas --help` lists what it can do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

#: name → (module with add_arguments() and run(), one line of help). Only the one asked for is imported:
#: kubectl runs `credential` with each of its commands, and the chain's library costs a second.
COMMANDS = {
    "status": ("k3s_daas.status.command", "the fleet at a glance, from chain, master and cluster"),
    "doctor": ("k3s_daas.doctor.command", "what is wrong with this host, and what to do"),
    "support": ("k3s_daas.support", "what somebody who helps wants to see of this host, in one file"),
    "request": ("k3s_daas.requests.command", "have something run on the fleet"),
    "attest": ("k3s_daas.attest_command", "check what the master proves, and write its CA"),
    "demand": ("k3s_daas.scaling.demand", "count pods that run and pods that found no room"),
    "kubeconfig": ("k3s_daas.kubeconfig_command", "write a kubeconfig for an owner"),
    "evidence": ("k3s_daas.evidence", "what a file of evidence proves, offline"),
    "credential": ("k3s_daas.credential", "kubectl's credential plugin: print the owner's token"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; see its module."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="k3s-daas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    module = None
    for name, (where, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name == chosen:
            module = import_module(where)
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    assert module is not None, "the parser takes known commands only"
    code: int = module.run(options)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
