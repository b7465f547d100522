"""Exchanging the seal token for a join token: the one-shot client behind `k3s-daas-watcher register`.

In this order, so that the seal token goes to nobody but the master: what the chain says about this worker,
its token and the master (all endpoints agree) → the CA whose hash is on-chain → TLS verified against exactly
that CA → the master's attestation, where its TEE isn't simulated → the token. Files are written last, the
join token last of all: when it is there, all is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import stamina

from k3s_daas import join
from k3s_daas.registry.model import Master

from .attested import prove
from .chainview import Reader, look
from .clock import Clock
from .config import WatcherConfig
from .errors import Exit, Refusal
from .files import write_atomic
from .findings import check_tee, check_worker, master_refusal
from .master_client import MasterClient, MasterRefused, MasterUnreachable, Registered
from .pinned import FetchCa, pinned_ca
from .signing import HeartbeatKey

# Things that pass by themselves: a master or endpoint that lags behind a transaction made a moment ago.
_PASSING = {
    "chain_unreachable",
    "chain_too_few_answers",
    "chain_disagrees",
    "worker_unknown",
    "token_unknown",
    "token_mismatch",
    "master_not_announced",
    "master_unreachable",
    "master_not_attested",
    "attestation_unreachable",
    "cacerts_unreachable",
    "not_ready",
    "rate_limited",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Outputs:
    """Where the files go; `ca` is optional because the join token pins the CA too."""

    token: Path
    password: Path
    ca: Path | None


@dataclass(frozen=True)
class Joined:
    """What can be told about a registration. No secrets."""

    node_id: str
    server: str
    expires_at_ms: int


async def register(
    config: WatcherConfig,
    token: str,
    readers: Sequence[Reader],
    outputs: Outputs,
    clock: Clock,
    *,
    key: HeartbeatKey | None = None,
    wait_s: float = 30.0,
    fetch_ca: FetchCa = join.fetch_cacerts,
) -> Joined:
    """Register this worker and write its files (0600). Raises Refusal; then no file was touched.

    `key` is what its heartbeats will be signed with; the master learns the public half here.
    `wait_s` is how long each step may take to come right: chain, CA, master.
    """
    check_tee(config)
    for path in (outputs.token, outputs.password, outputs.ca):
        # Before the master makes a token for us that couldn't be kept.
        if path is not None:
            _make_parent(path)
    master = await _until(wait_s, lambda: _find_master(config, token, readers, clock))
    ca = await _until(wait_s, lambda: _fetch_ca(master, fetch_ca))
    await _until(wait_s, lambda: prove(config, master, ca, readers))
    try:
        client = MasterClient(master.endpoint, ca.decode("ascii", "ignore"), token)
    except MasterUnreachable as error:
        raise master_refusal(error) from None
    try:
        answer = await _until(wait_s, lambda: _ask(client, config.node_id, key, clock))
    finally:
        await client.close()
    _check_answer(config, master, ca, answer)
    try:
        # k3s reads both without caring for the last newline; people's tools do.
        write_atomic(outputs.password, answer.node_password.encode() + b"\n")
        if outputs.ca is not None:
            write_atomic(outputs.ca, ca)
        write_atomic(outputs.token, answer.token.encode() + b"\n")
    except OSError as error:
        raise unwritable(Path(error.filename or outputs.token), error) from None
    return Joined(config.node_id, answer.server, answer.expires_at_ms)


async def _until(wait_s: float, step: Callable[[], Awaitable[T]]) -> T:
    """Do `step` until it doesn't fail in a way that passes by itself, for at most `wait_s`."""
    async for attempt in stamina.retry_context(
        on=lambda error: isinstance(error, Refusal) and error.code in _PASSING,
        attempts=None,
        timeout=wait_s,
        wait_initial=0.5,
        wait_max=3.0,
        wait_jitter=0.3,
    ):
        with attempt:
            return await step()
    raise AssertionError("unreachable: the last attempt raises")


async def _find_master(config: WatcherConfig, token: str, readers: Sequence[Reader], clock: Clock) -> Master:
    view = await look(readers, config.node_id, config.wanted_answers)
    return check_worker(config, view, token, clock.now_ms())


async def _fetch_ca(master: Master, fetch_ca: FetchCa) -> bytes:
    return await asyncio.to_thread(pinned_ca, master.api_server, master.ca_hash, fetch_ca)


async def _ask(client: MasterClient, node_id: str, key: HeartbeatKey | None, clock: Clock) -> Registered:
    try:
        return await client.register(node_id, clock.now_ms(), key.public_key if key else None)
    except (MasterRefused, MasterUnreachable) as error:
        raise master_refusal(error) from None


def _check_answer(config: WatcherConfig, master: Master, ca: bytes, answer: Registered) -> None:
    """The master is trusted for its CA, yet a mix-up must not become a node with another's name."""
    try:
        pinned = join.parse_full_token(answer.token).ca_hash
    except join.InvalidJoinToken as error:
        raise _unexpected("a join token in another format", str(error)) from None
    if answer.node_id != config.node_id:
        raise _unexpected(f"a registration of {answer.node_id!r:.80}", f"one of {config.node_id}")
    if pinned != master.ca_hash or answer.ca_pem.encode() != ca:
        raise _unexpected("a join token or CA that pins another CA", "the CA that is on-chain")
    if answer.server.rstrip("/") != master.api_server.rstrip("/"):
        raise _unexpected(f"API server {answer.server!r:.80}", f"{master.api_server}, as on-chain")


def _unexpected(found: str, wanted: str) -> Refusal:
    return Refusal(
        "master_answer_unexpected",
        "the master's answer doesn't fit what is on-chain",
        found=found,
        wanted=wanted,
        fix="let the master announce itself again (playbooks/master.yml); no file was written",
        exit_code=Exit.MASTER_REFUSED,
    )


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> Refusal:
    """What to tell of a file or directory that this command may not change."""
    return Refusal(
        "file_unwritable",
        "a file can't be written",
        found=f"{path}: {error.strerror}",
        wanted="a directory this command may write",
        fix="run it as root and look at the disk's free space; run it again afterwards",
        exit_code=Exit.FAILED,
    )
