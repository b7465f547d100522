"""`k3s-daas kubeconfig`: from the chain to a kubeconfig that kubectl can use.

The API server's address and the hash of its CA come from the chain, where the master announced them; the CA
is fetched and must have that hash. Nobody on the way can put another server in its place.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path

from k3s_daas import join, kubeconfig, seal, tokenfile
from k3s_daas.chain.errors import ChainError
from k3s_daas.chainconfig import ChainConfig, InvalidConfig, add_chain_arguments, chain_of
from k3s_daas.registry import Registry, RegistryConfig, SealTokenRecord
from k3s_daas.tenancy import InvalidOwner, tenant_namespace

OK, REFUSED, CHAIN_UNREADABLE, CONFIG = 0, 1, 10, 78


class Refused(Exception):
    """No kubeconfig for this owner; the message says what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_chain_arguments(parser)
    parser.add_argument("--owner", help="the owner's address (default: as noted when the token was made)")
    parser.add_argument("--token-file", type=Path, default=tokenfile.DEFAULT, help="default: %(default)s")
    parser.add_argument(
        "--ca-file",
        type=Path,
        help="CA data that `k3s-daas attest` wrote; refused when another was announced since "
        "(default: fetched, and held against the hash on-chain)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("~/.k3s-daas/kubeconfig"), help="default: %(default)s"
    )
    parser.add_argument(
        "--name", default=kubeconfig.NAME, help="of cluster, user and context (default: %(default)s)"
    )
    parser.add_argument("--plugin", help="what kubectl runs for the token (default: this very k3s-daas)")
    present = parser.add_mutually_exclusive_group()
    present.add_argument("--merge", action="store_true", help="add to a kubeconfig that is there")
    present.add_argument("--force", action="store_true", help="replace a kubeconfig that is there")


def run(options: argparse.Namespace) -> int:
    """Write the kubeconfig; says on stdout whether it was written or unchanged."""
    path, token_file = options.out.expanduser(), options.token_file.expanduser().absolute()
    try:
        config = chain_of(options)
        token = tokenfile.read(token_file)
        note = tokenfile.read_note(token_file, token)
        owner = options.owner or (note.owner if note else "")
        if not owner:
            raise Refused("Found no --owner and no note beside the token, wanted the owner's address (0x…).")
        tenant_namespace(owner)
        record, registry = asyncio.run(_ask(config, owner))
        note = check_token(record, owner, token, time.time_ns() // 1_000_000)
        server, ca_pem = trusted_server(registry, options.ca_file)
        content = kubeconfig.build(
            server,
            ca_pem,
            owner,
            command=options.plugin or _this_command(),
            token_file=token_file,
            name=options.name,
        )
        changed = kubeconfig.put(path, content, merge=options.merge, force=options.force)
        changed |= _keep_note(token_file, note)
    except InvalidConfig as error:
        return _say(error, CONFIG)
    except ChainError as error:
        return _say(error, CHAIN_UNREADABLE)
    except (Refused, InvalidOwner, join.JoinError, kubeconfig.CantWrite, tokenfile.UnusableToken) as error:
        return _say(error, REFUSED)
    if not registry.require_attestation:
        print(
            "SIMULATED: this registry takes a master without attestation; what it runs is proven by nobody.",
            file=sys.stderr,
        )
    print(f"{'written' if changed else 'unchanged'}: {path}")
    print(f"kubectl --kubeconfig {path} --context {options.name} get pods")
    return OK


async def _ask(config: ChainConfig, owner: str) -> tuple[SealTokenRecord | None, RegistryConfig]:
    from k3s_daas.chain import SuiClient  # costs a second: not before the arguments are known to be good

    async with await SuiClient.connect(
        list(config.endpoints), config.network, chain_id=config.chain_id
    ) as chain:
        registry = Registry(chain, config.deployment)
        return await registry.owner_token(owner), await registry.config()


def check_token(record: SealTokenRecord | None, owner: str, token: str, now_ms: int) -> tokenfile.Note:
    """What the chain says about the owner's token, if it is this one and alive. Raises Refused."""
    if record is None:
        raise Refused(
            f"Found no owner's seal token of {owner} on-chain, wanted one. Run playbooks/kubectl.yml."
        )
    if not seal.equal(record.commitment, seal.commitment(token)):
        raise Refused(
            f"Found another seal token than the chain knows for {owner} (generation {record.generation}). "
            "Use the file it is in, or rotate: playbooks/kubectl.yml -e kubectl_state=rotated."
        )
    if record.revoked or record.expires_at_ms <= now_ms:
        raise Refused(
            f"The seal token of {owner} (generation {record.generation}) is "
            f"{'revoked' if record.revoked else 'expired'}, wanted a live one. Rotate it: "
            "playbooks/kubectl.yml -e kubectl_state=rotated."
        )
    return tokenfile.Note(owner, record.commitment.hex(), record.generation, record.expires_at_ms)


def trusted_server(registry: RegistryConfig, ca_file: Path | None = None) -> tuple[str, bytes]:
    """The announced API server and its CA bundle, which has the announced hash: out of `ca_file`, or as the
    server shows it. Raises Refused, JoinError."""
    master = registry.master
    if master is None or not master.api_server or not master.ca_hash:
        raise Refused(
            "Found no master that announced itself on-chain, wanted one. Run playbooks/master.yml, or wait a "
            "moment if it was just started."
        )
    if ca_file is None:
        return master.api_server, join.fetch_cacerts(master.api_server, master.ca_hash)
    try:
        bundle = ca_file.expanduser().read_bytes()
    except OSError as error:
        raise Refused(f"{ca_file}: {error.strerror}. Wanted the file that `k3s-daas attest` wrote.") from None
    if (found := join.ca_hash(bundle)) != master.ca_hash:
        raise Refused(
            f"Found a CA with hash {found.hex()} in {ca_file}, wanted {master.ca_hash.hex()}, which the "
            "master has announced. Run k3s-daas attest again."
        )
    return master.api_server, bundle


def _keep_note(token_file: Path, note: tokenfile.Note) -> bool:
    path, wanted = tokenfile.note_path(token_file), tokenfile.note_text(note)
    try:
        if path.read_text(encoding="utf-8") == wanted:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    kubeconfig.write(path, wanted)
    return True


def _this_command() -> str:
    """This program as kubectl can start it from anywhere."""
    found = shutil.which(sys.argv[0])
    return str(Path(found).absolute()) if found else "k3s-daas"


def _say(error: Exception, code: int) -> int:
    print(f"k3s-daas kubeconfig: {error}", file=sys.stderr)
    return code
