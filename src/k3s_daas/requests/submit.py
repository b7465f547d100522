"""Submitting a request on-chain: planned and shown first, sent once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from k3s_daas.chain.model import Event
from k3s_daas.registry import Deployment, OpenRequest, Registry, RequestScheduled, parse_event
from k3s_daas.registry.operation import Operation, carry_out, estimate
from k3s_daas.registry.requests import plan_request
from k3s_daas.requests.errors import RequestError
from k3s_daas.requests.schema import payload_hash


@dataclass(frozen=True)
class Submission:
    """What is submitted: the body, 0 to 10, MIST, and node ids (None: the best of all)."""

    raw: bytes
    priority: int
    deposit_mist: int
    candidates: Sequence[str] | None = None


@dataclass(frozen=True)
class Planned:
    """`known`: the wallet's open request with that body; it isn't submitted a second time."""

    known: OpenRequest | None
    operation: Operation
    preview: dict[str, Any]


async def plan(registry: Registry, submission: Submission) -> Planned:
    """Simulate it; nothing is sent. Raises ChainError."""
    known, _, operation = await plan_request(
        registry,
        payload_hash(submission.raw),
        submission.priority,
        submission.deposit_mist,
        submission.candidates,
    )
    return Planned(known, operation, (await estimate(registry.chain, operation)).preview)


async def send(registry: Registry, planned: Planned) -> int:
    """Send it; the request's id. Raises ChainError."""
    if planned.known is not None:
        return planned.known.request_id
    done = await carry_out(registry.chain, planned.operation)
    made = scheduled(done.events, registry.deployment)
    if made is None:
        raise RequestError(f"Transaction {done.digests} scheduled no request; look at it on-chain.")
    return made.request_id


def scheduled(events: Iterable[Event], deployment: Deployment) -> RequestScheduled | None:
    """The request that a transaction with these events has scheduled."""
    parsed = (parse_event(event, deployment) for event in events)
    return next((event for event in parsed if isinstance(event, RequestScheduled)), None)
