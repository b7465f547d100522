"""Limits for each source address, beside the gate's for strangers: answers, registrations, documents."""

from __future__ import annotations

from starlette.requests import Request

from k3s_daas_master.errors import ApiError
from k3s_daas_master.gate import is_strange
from k3s_daas_master.ratelimit import RateLimiter, source_of
from k3s_daas_master.state import State


def limit_reads(request: Request, state: State) -> None:
    """For large answers that anybody may ask for. Raises ApiError."""
    _limit(request, state.reads, "Too many requests from this address.")


def limit_registrations(request: Request, state: State) -> None:
    """For workers. A stranger has had its try from the gate already, and takes nothing away from the workers
    behind the same address. Raises ApiError."""
    if not is_strange(request.scope, state):
        _limit(request, state.limiter, "Too many registrations from this address.")


def limit_attestations(request: Request, state: State) -> None:
    """For documents, each of which costs the security module a signature. Raises ApiError."""
    _limit(request, state.attestations, "Too many attestations for this address.")


def _limit(request: Request, limiter: RateLimiter, message: str) -> None:
    if wait := limiter.take(source_of(request.client)):
        raise ApiError(
            "rate_limited",
            message,
            f"more than {limiter.burst:g} at once",
            f"{limiter.per_s:g} a second",
            f"Wait {wait:.1f} s.",
        )
