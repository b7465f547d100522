"""The loopback API: what this watcher knows, for the host's own people and tools. No part of any secret."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .chainview import Outcome
from .clock import Clock
from .watcher import NOT_REGISTERED, Watcher

# Beats that may be missed before /health turns red: the same three that make a restart thinkable.
MISSED_BEATS = 3


def report(watcher: Watcher, clock: Clock) -> tuple[bool, dict[str, Any]]:
    """(healthy, body). Times in ms since the epoch, ages in seconds."""
    state, live, config = watcher.store.state, watcher.live, watcher.config
    now = clock.now_ms()
    problems = []
    if live.outcome is None:
        problems.append("chain_not_checked_yet")
    elif live.outcome is not Outcome.AGREED:
        problems.append(live.outcome.value)
    if state.status in {NOT_REGISTERED, "slashed", "jailed"}:
        problems.append(f"worker_{state.status.removeprefix('worker_')}")
    beat_age = _age(now, state.last_heartbeat_ms)
    if state.consecutive_failures >= MISSED_BEATS:
        problems.append(state.last_failure or "heartbeat_failing")
    elif beat_age is None or beat_age > config.heartbeat_s * MISSED_BEATS + 15:
        problems.append("no_recent_heartbeat")
    body = {
        "status": "degraded" if problems else "ok",
        "problems": problems,
        "node_id": config.node_id,
        "network": config.network,
        "tee": "SIMULATED" if config.simulated else config.tee_mode,
        "heartbeat": {
            "last_ms": state.last_heartbeat_ms,
            "age_s": beat_age,
            "consecutive_failures": state.consecutive_failures,
            "last_failure": state.last_failure,
            "detail": live.failure_detail,
        },
        "chain": {
            "outcome": live.outcome.value if live.outcome else None,
            "detail": live.chain_detail,
            "last_validation_ms": state.last_validation_ms,
            "age_s": _age(now, state.last_validation_ms),
            "status": state.status,
            "stake_mist": None if state.stake_mist is None else str(state.stake_mist),
            "slash_proposed": live.slash_proposed,
            "endpoints": [{"name": a.name, "ok": a.error is None, "error": a.error} for a in live.answers],
        },
        "token": {
            "generation": state.token_generation,
            "expires_at_ms": state.token_expires_at_ms,
        },
        "master": None
        if state.master is None
        else {
            "endpoint": state.master.endpoint,
            "epoch": state.master.epoch,
            "ca_hash": state.master.ca_hash,
        },
        "agent": {
            "unit": config.agent_unit,
            "state": live.agent.state.value if live.agent else None,
            "detail": live.agent.detail if live.agent else "",
            "restarts": state.restarts,
            "next_restart_ms": state.next_restart_ms or None,
        },
    }
    return not problems, body


def application(watcher: Watcher, clock: Clock) -> Starlette:
    """`GET /health`: 200 when all is well, 503 with the reasons when not."""

    async def health(_request: Request) -> JSONResponse:
        healthy, body = report(watcher, clock)
        return JSONResponse(body, 200 if healthy else 503, headers={"Cache-Control": "no-store"})

    return Starlette(routes=[Route("/health", health, methods=["GET"])])


def _age(now_ms: int, then_ms: int | None) -> float | None:
    return None if then_ms is None else round(max(0, now_ms - then_ms) / 1000, 1)
