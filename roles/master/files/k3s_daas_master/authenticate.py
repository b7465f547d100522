"""From a header's text to a worker: the checks that registration and heartbeats share."""

from __future__ import annotations

from k3s_daas import seal
from k3s_daas.registry import WorkerStatus
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError
from k3s_daas_master.index import TokenIndex, TokenView, WorkerView
from k3s_daas_master.store import Store

#: How far a message's timestamp may be from our clock.
MAX_SKEW_MS = 60_000


def worker_of(index: TokenIndex, header: str | None, node_id: str) -> tuple[TokenView, WorkerView]:
    """The live token and worker behind `header`, if the token is `node_id`'s own. Raises ApiError.

    Expiry is not looked at: an expired token stops registrations, never a joined node's heartbeats.
    """
    if not header:
        raise ApiError(
            "token_malformed",
            "The request carries no seal token.",
            "no X-Seal-Token header",
            "X-Seal-Token: seal_ and 43 characters",
            "Send the worker's seal token in the header.",
        )
    try:
        token = index.find(seal.parse(header))
    except seal.InvalidSealToken as error:
        raise ApiError(
            "token_malformed",
            "The seal token hasn't the shape of one.",
            str(error),
            "the seal token as the worker made it",
            "Compare the file with the one on the worker; it may be cut off.",
        ) from None
    if token is None:
        raise ApiError(
            "token_unknown",
            "The registry doesn't know this seal token.",
            "a token whose commitment isn't on-chain",
            "a current token of a worker in this master's registry",
            "Run the workers play: it stakes and mints. A token that was rotated away is unknown too. Right "
            "after minting, try again in a few seconds.",
        )
    if token.scope != "worker":
        raise ApiError(
            "token_unknown",
            "This is an owner's token.",
            "a token of scope owner (for kubectl)",
            "a token of scope worker",
            "Use the worker's own seal token; an owner's doesn't belong on a worker.",
        )
    if token.node_id != node_id:
        raise ApiError(
            "node_mismatch",
            "The seal token belongs to another worker.",
            f"node_id {node_id!r}",
            "the node_id that the token was minted for",
            "Each worker has a token of its own; check the host's node_id and its token file.",
        )
    worker = index.workers.get(node_id)
    if worker is None:
        raise ApiError(
            "worker_not_eligible",
            "The worker has left the registry.",
            "no such worker on-chain",
            "a staked worker",
            "Stake again with the workers play.",
        )
    if worker.status is WorkerStatus.SLASHED:
        raise ApiError(
            "worker_slashed",
            "The worker was slashed.",
            "status slashed on-chain",
            "a worker in good standing",
            "Slashing is final. Stake a new worker under another node_id.",
        )
    if token.revoked:
        raise ApiError(
            "token_revoked",
            "The seal token was revoked.",
            f"generation {token.generation}, revoked by its owner",
            "a current token",
            "Rotate the worker's token and register again.",
        )
    return token, worker


def check_timestamp(store: Store, clock: Clock, kind: str, node_id: str, timestamp_ms: int) -> int:
    """Accept a worker's timestamp once: near our clock and later than its last. Returns our time in ms."""
    now = clock.now_ms()
    if abs(now - timestamp_ms) > MAX_SKEW_MS:
        raise ApiError(
            "clock_skew",
            "The worker's clock and the master's differ too much.",
            f"timestamp_ms {timestamp_ms}, {abs(now - timestamp_ms) // 1000} s "
            f"{'behind' if timestamp_ms < now else 'ahead of'} the master's {now}",
            f"at most {MAX_SKEW_MS // 1000} s apart",
            "Synchronize the clocks of worker and master (chrony, systemd-timesyncd).",
        )
    last = store.advance(kind, node_id, timestamp_ms, now)
    if last is not None:
        raise ApiError(
            "timestamp_replayed",
            "A message with this timestamp or a later one was accepted already.",
            f"timestamp_ms {timestamp_ms}",
            f"later than {last}",
            "Send the present time with each message; if nothing was sent twice, somebody replays it.",
        )
    return now
