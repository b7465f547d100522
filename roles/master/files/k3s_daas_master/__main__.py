"""The command `k3s-daas-master`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
from pathlib import Path

from k3s_daas import logs
from k3s_daas.chain import ChainError, Key
from k3s_daas_master import cut, memory
from k3s_daas_master.backups import command as backups
from k3s_daas_master.backups.places import BackupError
from k3s_daas_master.certificate import CertificateError, Issued, issue
from k3s_daas_master.clock import Clock
from k3s_daas_master.cluster import ClusterError
from k3s_daas_master.config import Config, ConfigError, load
from k3s_daas_master.errors import StateError
from k3s_daas_master.identity import issue_kubeconfig
from k3s_daas_master.sealed import command as snapshots
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.store import Store

#: A configuration or state that a restart doesn't mend (sysexits' EX_CONFIG).
EXIT_CONFIG = 78


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the process' exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "issue-certificate":
            return _issue_certificate(options)
        if options.command == "issue-kubeconfig":
            return _issue_kubeconfig(options)
        if options.command == "backup":
            return backups.run(options)
        if options.command == "snapshot":
            return snapshots.run(options)
        if options.command == "cut-connections":
            return cut.main(options.port, options.unit)
        config = load(options.config)
        if options.command == "init-key":
            return _init_key(config)
        if options.command == "give-back":
            return _give_back(config, options.to)
        if options.command == "acknowledge-gap":
            return _acknowledge_gap(config)
        return _serve(config)
    except (
        BackupError,
        SealedError,
        ConfigError,
        StateError,
        ClusterError,
        ChainError,
        CertificateError,
    ) as error:
        print(logs.redact(f"k3s-daas-master {options.command}: {error}"), file=sys.stderr)
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="k3s-daas-master", description="The K3s-DaaS master's service.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "run the service"),
        ("init-key", "make the master's wallet key once and print its address"),
        ("give-back", "send what the master's wallet holds to an address, before its key goes"),
        ("acknowledge-gap", "say that you looked at a replay gap: slashes may be proposed again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, help="the service's JSON configuration")
        if name == "give-back":
            command.add_argument("--to", help="address; without it, only say what there is")
    certificate = commands.add_parser(
        "issue-certificate", help="make or renew the API's TLS certificate with k3s' server CA (as root)"
    )
    certificate.add_argument("--ca-cert", type=Path, required=True, help="k3s' server-ca.crt")
    certificate.add_argument("--ca-key", type=Path, required=True, help="k3s' server-ca.key")
    certificate.add_argument(
        "--out", type=Path, required=True, help="directory for server.crt and server.key"
    )
    certificate.add_argument(
        "--san", action="append", required=True, help="IP address or DNS name; repeatable"
    )
    certificate.add_argument("--owner", help="user who may read the key (default: whoever runs this)")
    kubeconfig = commands.add_parser(
        "issue-kubeconfig", help="make or renew the service's own kubeconfig with k3s' client CA (as root)"
    )
    kubeconfig.add_argument("--ca-cert", type=Path, required=True, help="k3s' client-ca.crt")
    kubeconfig.add_argument("--ca-key", type=Path, required=True, help="k3s' client-ca.key")
    kubeconfig.add_argument("--server-ca", type=Path, required=True, help="k3s' server-ca.crt")
    kubeconfig.add_argument("--server", required=True, help="the API server, https://host:port")
    kubeconfig.add_argument("--out", type=Path, required=True, help="the kubeconfig to write")
    kubeconfig.add_argument("--owner", help="user who may read it (default: whoever runs this)")
    backups.add_arguments(commands.add_parser("backup", help="make, check and restore backups (as root)"))
    snapshots.add_arguments(
        commands.add_parser("snapshot", help="seal the master's state, and have it back (as root)")
    )
    closing = commands.add_parser(
        "cut-connections", help="close every connection to the API server, after a removal (as root)"
    )
    closing.add_argument("--port", type=int, required=True, help="the API server's TCP port")
    closing.add_argument("--unit", required=True, help="restarted where the kernel can't close connections")
    return parser


def _init_key(config: Config) -> int:
    try:
        created = not config.key_file.exists()
        key = Key.create(config.key_file) if created else Key.load(config.key_file)
    except OSError as error:
        raise StateError(
            f"{config.key_file}: {error.strerror}. Wanted a directory that this user may write: run this "
            "as the service's user, after its state directory was made."
        ) from None
    print(json.dumps({"address": key.address, "created": created}))
    return 0


def _give_back(config: Config, to: str | None) -> int:
    from k3s_daas_master import farewell  # late, as the service below

    if not config.key_file.exists():
        print(json.dumps(None))
        return 0
    key = Key.load(config.key_file)
    done = farewell.give_back(config, key, to) if to else farewell.look(config, key)
    print(json.dumps(dataclasses.asdict(asyncio.run(done))))
    return 0


def _acknowledge_gap(config: Config) -> int:
    store = Store(config.state_dir)
    try:
        gaps = store.open_gaps()
        store.acknowledge_gaps(Clock().now_ms())
    finally:
        store.close()
    print(json.dumps({"acknowledged": [{"noticed_ms": at, "after": a, "until": b} for at, a, b in gaps]}))
    return 0


def _issue_certificate(options: argparse.Namespace) -> int:
    return _say(issue(options.ca_cert, options.ca_key, options.out, options.san, owner=options.owner))


def _issue_kubeconfig(options: argparse.Namespace) -> int:
    ca = (options.ca_cert, options.ca_key, options.server_ca)
    return _say(issue_kubeconfig(*ca, options.server, options.out, owner=options.owner))


def _say(issued: Issued) -> int:
    answer = {
        "changed": issued.changed,
        "reason": issued.reason,
        "cert": str(issued.cert),
        "not_after": issued.not_after.isoformat(),
    }
    print(json.dumps(answer))
    return 0


def _serve(config: Config) -> int:
    # Imported late: the chain's client costs a second and 50 MB that the other commands needn't pay.
    import uvloop

    from k3s_daas_master.service import serve

    logs.configure("k3s-daas-master", config.log_level)
    memory.map_large_blocks()
    # Half as many token checks again as on asyncio's own loop.
    uvloop.run(serve(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
