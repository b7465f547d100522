"""`k3s-daas attest`: check all that the master can prove, then write the CA data that kubectl trusts it by.

The live master and the images that may attest come from the chain (all endpoints that answer agree), the
master's document from the master itself, with a nonce of ours in it. No secret is sent. A file that is there
is left alone unless everything holds. Exit codes: 0 proven, 1 the file can't be written, 10 the chain
can't be read, 15 the master gives no document, 19 what it gives doesn't hold, 78 wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s_daas import attest, join
from k3s_daas.attestation import AttestationDocument, Root
from k3s_daas.attestation.serving import ServingRefused, check_on_chain, check_serving, new_nonce
from k3s_daas.chain.errors import ChainError
from k3s_daas.chainconfig import ChainConfig, InvalidConfig, add_chain_arguments, chain_of
from k3s_daas.enclave.cluster import ClusterError, parse
from k3s_daas.enclave.configure import told_hash
from k3s_daas.registry.agreed import AgreedRegistry
from k3s_daas.registry.attested import Basis, agree, live_master, read_basis
from k3s_daas.registry.model import Master

OK, UNWRITABLE, CHAIN_UNREADABLE, NO_DOCUMENT, NOT_ATTESTED, CONFIG = 0, 1, 10, 15, 19, 78
DEFAULT_CA = Path("~/.k3s-daas/server-ca.crt")
SIMULATED_NOTICE = (
    "SIMULATED: the document is an emulator's. It proves nothing about what the master runs; don't trust it "
    "with anything of value."
)

FetchCa = Callable[[str, bytes], bytes]
ReadBasis = Callable[[], Awaitable[Basis]]


@dataclass(frozen=True)
class Proof:
    """A master that proved itself: its CA bundle and the document."""

    master: Master
    ca_pem: bytes
    document: AttestationDocument
    now_ms: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_chain_arguments(parser)
    parser.add_argument(
        "--ca-out", type=Path, default=DEFAULT_CA, help="where the CA data go, 0644 (default: %(default)s)"
    )
    parser.add_argument(
        "--simulation-root",
        type=Path,
        metavar="PEM",
        help="on a localnet: trust this emulator's root in place of AWS's, and say SIMULATED",
    )
    parser.add_argument(
        "--cluster",
        type=Path,
        metavar="JSON",
        help="what the enclave's parent was to tell it (cluster.json); a master that was told anything else "
        "is refused",
    )
    parser.add_argument("--json", action="store_true", help="print what was proved as JSON")


def run(options: argparse.Namespace) -> int:
    """Exit code of the command; what was proved goes to stdout, the rest to stderr."""
    path = options.ca_out.expanduser()
    try:
        config = chain_of(options)
        root = attest.trusted_root(config.network, options.simulation_root)
        wanted = None if options.cluster is None else _told(options.cluster)
        proof = asyncio.run(_ask(config, root))
        if wanted is not None:
            check_config(proof.master, wanted)
        changed = write_public(path, proof.ca_pem)
    except (InvalidConfig, attest.InvalidRoot, ClusterError) as error:
        return _say(str(error), CONFIG)
    except ServingRefused as error:
        text = f"the master doesn't prove what it runs ({error.code})"
        lines = f"\n  found:  {error.found}\n  wanted: {error.wanted}\n  fix:    {error.fix}"
        return _say(f"{text}{lines}", NOT_ATTESTED)
    except ChainError as error:
        return _say(str(error), CHAIN_UNREADABLE)
    except (attest.NoAnswer, join.JoinError) as error:
        return _say(f"{error}. Check that the master runs and that this host reaches it.", NO_DOCUMENT)
    except OSError as error:
        return _say(f"{error.filename or path}: {error.strerror}. Wanted a file you may write.", UNWRITABLE)
    if proof.document.simulated:
        print(SIMULATED_NOTICE, file=sys.stderr)
    told = facts(proof)
    if options.json:
        print(json.dumps(told | {"ca_file": str(path), "changed": changed}))
        return OK
    for name, value in told.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"{'written' if changed else 'unchanged'}: {path}")
    return OK


async def _ask(config: ChainConfig, root: Root) -> Proof:
    from k3s_daas.chain import SuiClient  # costs a second: not before the arguments are known to be good

    async with await SuiClient.connect(
        list(config.endpoints), config.network, chain_id=config.chain_id
    ) as chain:
        registry = AgreedRegistry(chain, config.deployment)

        async def read() -> Basis:
            return agree(await registry.each(read_basis))

        return await prove(config, read, root)


async def prove(
    config: ChainConfig, read: ReadBasis, root: Root, fetch_ca: FetchCa = join.fetch_cacerts
) -> Proof:
    """The live master's proof. Raises ServingRefused, NoAnswer, JoinError, and what `read` raises."""
    before = await read()
    check_on_chain(live_master(config.network, config.deployment, before), before.time_ms)
    master = before.master
    assert master is not None, "live_master refuses that"
    ca_pem = await asyncio.to_thread(fetch_ca, master.api_server, master.ca_hash)
    nonce = new_nonce()
    raw = await attest.fetch_document(master.endpoint, ca_pem, nonce)
    # Anew: the chain's time and word are to be newer than the document.
    now = await read()
    live = live_master(config.network, config.deployment, now)
    if live.statement.ca_hash != master.ca_hash:
        raise ServingRefused(
            "ca_mismatch",
            "another CA announced meanwhile",
            "one and the same",
            "the master was replaced just now; run this again",
        )
    document = check_serving(raw, nonce, live, now_ms=now.time_ms, root=root)
    assert now.master is not None, "live_master refuses that"
    return Proof(now.master, ca_pem, document, now.time_ms)


def check_config(master: Master, wanted: bytes) -> None:
    """Whether the master was told what it was to be told, by the hashes. Raises ServingRefused."""
    found = master.binding.config_hash
    if found != wanted:
        raise ServingRefused(
            "config_mismatch",
            f"a master that was given a configuration with the hash {found.hex()}",
            f"{wanted.hex()}, this file's",
            "compare the file with cluster.json on the parent; who changed it there can mislead the master, "
            "not impersonate it",
        )


def _told(path: Path) -> bytes:
    """The hash of what an enclave makes of this file. Raises ClusterError."""
    try:
        return told_hash(parse(path.read_bytes()))
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}. Wanted what the parent has as cluster.json.") from None


def facts(proof: Proof) -> dict[str, Any]:
    """What was proved, by names that people and programs can read."""
    master, document = proof.master, proof.document
    return {
        "tee": "SIMULATED" if document.simulated else "nitro",
        "master": master.account,
        "epoch": master.epoch,
        "endpoint": master.endpoint,
        "api_server": master.api_server,
        "image_pcr0": master.pcr0.hex(),
        "iam_role_pcr3": master.pcr3.hex(),
        "module_id": document.module_id if document.module_id.isprintable() else repr(document.module_id),
        "attested_until": _when(master.attestation_expires_at_ms),
        "ca_hash": master.ca_hash.hex(),
        "config_hash": master.binding.config_hash.hex(),
    }


def write_public(path: Path, data: bytes) -> bool:
    """Have `data` in `path` (0644), whole or not at all; whether anything changed. Raises OSError."""
    try:
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o644:
            return False
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return True


def _when(ms: int) -> str:
    try:
        return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _say(text: str, code: int) -> int:
    print(f"k3s-daas attest: {text}", file=sys.stderr)
    return code
