"""What this watcher knows, as the loopback API shows it. No part of any secret."""

from __future__ import annotations

from dataclasses import asdict

from .answers import (
    AgentView,
    AlertView,
    ChainView,
    Configuration,
    EndpointView,
    Health,
    HeartbeatView,
    HostView,
    MasterView,
    PodsView,
    Staking,
    TokenView,
    Usage,
)
from .chainview import Outcome, safe_name
from .clock import Clock
from .config import WatcherConfig
from .live import NOT_REGISTERED
from .watcher import Watcher

# Beats that may be missed before /health turns red: the same three that make a restart thinkable.
MISSED_BEATS = 3


def report(watcher: Watcher, clock: Clock) -> Health:
    """How the worker is; `degraded` with the reasons when something is wrong."""
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
    if live.state_problem:
        problems.append("state_unwritable")
    known, agent = state.master, live.agent
    return Health(
        status="degraded" if problems else "ok",
        problems=problems,
        alerts=[
            AlertView(name=name, raised_at_ms=alert.raised_at_ms, detail=alert.detail)
            for name, alert in sorted(state.alerts.items())
        ],
        node_id=config.node_id,
        network=config.network,
        tee="SIMULATED" if config.simulated else config.tee_mode,
        heartbeat=HeartbeatView(
            last_ms=state.last_heartbeat_ms,
            age_s=beat_age,
            consecutive_failures=state.consecutive_failures,
            last_failure=state.last_failure,
            detail=live.failure_detail,
        ),
        chain=ChainView(
            outcome=live.outcome.value if live.outcome else None,
            detail=live.chain_detail,
            last_validation_ms=state.last_validation_ms,
            age_s=_age(now, state.last_validation_ms),
            status=state.status,
            stake_mist=_mist(state.stake_mist),
            slash_proposed=live.slash_proposed,
            endpoints=[EndpointView(name=a.name, ok=a.error is None, error=a.error) for a in live.answers],
        ),
        token=_token(watcher),
        master=None
        if known is None
        else MasterView(endpoint=known.endpoint, epoch=known.epoch, ca_hash=known.ca_hash),
        agent=AgentView(
            unit=config.agent_unit,
            state=agent.state.value if agent else None,
            detail=agent.detail if agent else "",
            restarts=state.restarts,
            next_restart_ms=state.next_restart_ms or None,
        ),
    )


def staking(watcher: Watcher, clock: Clock) -> Staking:
    """The worker's record as last agreed."""
    state, config = watcher.store.state, watcher.config
    return Staking(
        node_id=config.node_id,
        network=config.network,
        registry_id=config.registry_id,
        status=state.status,
        stake_mist=_mist(state.stake_mist),
        slash_proposed=watcher.live.slash_proposed,
        validated_at_ms=state.last_validation_ms,
        age_s=_age(clock.now_ms(), state.last_validation_ms),
        token=_token(watcher),
    )


def usage(watcher: Watcher, clock: Clock) -> Usage:
    """The host's figures of now, and the pods as of the last heartbeat."""
    live, config = watcher.live, watcher.config
    return Usage(
        node_id=config.node_id,
        at_ms=clock.now_ms(),
        host=HostView(**asdict(watcher.usage())),
        pods=PodsView(running=live.pods, asked_at_ms=live.pods_at_ms, runtime=config.runtime),
    )


def configuration(config: WatcherConfig) -> Configuration:
    """What the watcher was told; an endpoint's path or query may be a provider's API key and is left out."""
    shown = config.model_dump(include=set(Configuration.model_fields) - {"endpoints"})
    return Configuration(endpoints=[safe_name(endpoint) for endpoint in config.endpoints], **shown)


def _token(watcher: Watcher) -> TokenView:
    state = watcher.store.state
    return TokenView(generation=state.token_generation, expires_at_ms=state.token_expires_at_ms)


def _mist(amount: int | None) -> str | None:
    # As text: a u64 is more than a JSON number holds exactly.
    return None if amount is None else str(amount)


def _age(now_ms: int, then_ms: int | None) -> float | None:
    return None if then_ms is None else round(max(0, now_ms - then_ms) / 1000, 1)
