"""`k3s-daas-master backup …`: what the playbooks run, as root. Prints one line of JSON, never a secret."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.make import make, version_of_binary
from k3s_daas_master.backups.manifest import NAMED, Manifest
from k3s_daas_master.backups.places import BackupError, Places
from k3s_daas_master.backups.put import check, finish, put


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("make", help="make a backup below /var/lib/k3s-daas/backups")
    action.add_argument("--keep", type=int, default=7, help="how many stay (default: 7)")
    actions.add_parser("list", help="the backups on this host, the newest last")
    action = actions.add_parser("seal", help="encrypt one with age for its way to another place")
    action.add_argument("--backup", required=True, metavar="NAME")
    action.add_argument("--recipient", required=True, help="public key, age1…")
    action = actions.add_parser("unseal", help="decrypt one; the secret key comes on stdin")
    action.add_argument("--file", type=Path, required=True)
    for name, text in (
        ("check", "whether one may be restored here"),
        ("put", "have one in place; k3s and the master's service must be stopped"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--backup", required=True, metavar="NAME")
        action.add_argument("--registry-id", required=True)
        action.add_argument("--chain-id", default="")
        action.add_argument("--ca-hash", default="", help="as on-chain, in hex; empty when none is announced")
    actions.add_parser("finish", help="a restore is over: k3s may listen for everybody again")
    for name, text in (("keygen", "make an age key once"), ("recipient", "the public half of an age key")):
        action = actions.add_parser(name, help=text)
        action.add_argument("--key-file", type=Path, required=True)


def run(options: argparse.Namespace, places: Places | None = None) -> int:
    """Exit code 0. Raises BackupError and what the parts raise."""
    print(json.dumps(_run(options, places or Places())))
    return 0


def _run(options: argparse.Namespace, places: Places) -> dict[str, Any]:
    match options.action:
        case "make":
            path = make(places, options.keep)
            return _about(path, manifests.load(path))
        case "list":
            return {"backups": [_about(path, manifests.load(path)) for path in _all(places)]}
        case "check":
            return _about(_named(places, options.backup), _check(options, places))
        case "put":
            found = _check(options, places)
            path = _named(places, options.backup)
            return _about(path, found) | {"given_up": put(path, places)}
        case "finish":
            return {"changed": finish(places)}
        case _:
            return _with_age(options, places)


def _with_age(options: argparse.Namespace, places: Places) -> dict[str, Any]:
    # Only here: what restores on this host must work without it.
    from k3s_daas_master.backups import seal

    match options.action:
        case "seal":
            return {"file": str(seal.seal(_named(places, options.backup), options.recipient))}
        case "unseal":
            path = seal.unseal(options.file, sys.stdin.read(), places.backups)
            return _about(path, manifests.load(path))
        case "keygen":
            return {"recipient": seal.make_key(options.key_file)}
        case _:
            return {"recipient": seal.recipient(options.key_file)}


def _check(options: argparse.Namespace, places: Places) -> Manifest:
    return check(
        _named(places, options.backup),
        registry_id=options.registry_id,
        chain_id=options.chain_id,
        ca_hash=options.ca_hash,
        k3s_version=version_of_binary(places),
    )


def _all(places: Places) -> list[Path]:
    if not places.backups.is_dir():
        return []
    return sorted(path for path in places.backups.iterdir() if NAMED.fullmatch(path.name))


def _named(places: Places, name: str) -> Path:
    if not NAMED.fullmatch(name) or not (places.backups / name).is_dir():
        there = ", ".join(path.name for path in _all(places)) or "none"
        raise BackupError(f"Found no backup {name[:80]!r} in {places.backups}; wanted one of: {there}.")
    return places.backups / name


def _about(path: Path, found: Manifest) -> dict[str, Any]:
    """What the playbooks show of a backup."""
    return {
        "path": str(path),
        "name": found.name,
        "created_ms": found.created_ms,
        "k3s_version": found.k3s_version,
        "registry_id": found.registry_id,
        "ca_hash": found.ca_hash,
        "token_id": found.token_id,
        "bytes": sum(entry.bytes for entry in found.files),
    }
