"""What somebody should look at: raised once, cleared once, remembered over restarts of the watcher.

A condition that can't be judged yet (nothing was asked since the start) leaves its alert as it was, so a
restart neither forgets an alert nor raises it anew.
"""

from __future__ import annotations

from k3s_daas import logs

from .agent import AgentState
from .chainview import Outcome
from .config import WatcherConfig
from .errors import Exit
from .live import FAILURES_BEFORE_RESTART, NOT_REGISTERED, RESTART_CAP, Live
from .state import Alert, State

log = logs.get_logger(__name__)

# A chain view older than this is one that others act on too: the master lets nobody new in.
STALE_MS = 60_000
TOKEN_EXPIRES_SOON_MS = 14 * 86_400_000
_ROTATE = "run playbooks/rotate.yml -e rotate=seal_tokens"
# These don't pass by themselves.
_WRONG = {Outcome.WRONG_NETWORK, Outcome.NO_REGISTRY}
# What the last failed heartbeat means, by its exit code.
_KIND_OF = {
    Exit.MASTER_UNREACHABLE: "master_unreachable",
    Exit.MASTER_NOT_ANNOUNCED: "master_unreachable",
    Exit.CA_MISMATCH: "master_untrusted",
    Exit.TOKEN_REFUSED: "token_refused",
    Exit.MASTER_REFUSED: "heartbeat_refused",
    Exit.SLASHED: "heartbeat_refused",
}
NAMES = (
    "agent_unhealthy",
    "agent_restarts_given_up",
    "chain_unusable",
    "heartbeat_refused",
    "master_unreachable",
    "master_untrusted",
    "slash_proposed",
    "state_unwritable",
    "token_expired",
    "token_expires_soon",
    "token_refused",
    "worker_not_registered",
)


def judge(config: WatcherConfig, state: State, live: Live, now_ms: int) -> dict[str, str]:
    """Every alert that can be judged now: its detail when it should be raised, "" when not."""
    verdicts = {
        **_chain(state, live, now_ms),
        **_heartbeats(state, live),
        **_agent(config, state, live),
        "state_unwritable": live.state_problem,
    }
    if live.outcome is Outcome.AGREED:
        verdicts |= _records(config, state, live, now_ms)
    return verdicts


def update(config: WatcherConfig, state: State, live: Live, now_ms: int) -> None:
    """Raise and clear what `judge` says; logs each once."""
    alerts = dict(state.alerts)
    for name, detail in judge(config, state, live, now_ms).items():
        raised = alerts.get(name)
        if detail and raised is None:
            alerts[name] = Alert(raised_at_ms=now_ms, detail=detail)
            log.error("alert raised", alert=name, detail=detail)
        elif detail and raised is not None and raised.detail != detail:
            alerts[name] = Alert(raised_at_ms=raised.raised_at_ms, detail=detail)
        elif not detail and raised is not None:
            del alerts[name]
            log.info("alert cleared", alert=name, lasted_s=max(0, now_ms - raised.raised_at_ms) // 1000)
    if alerts != state.alerts:
        state.alerts = alerts


def _chain(state: State, live: Live, now_ms: int) -> dict[str, str]:
    if live.outcome is None:
        return {}
    if live.outcome is Outcome.AGREED:
        return {"chain_unusable": ""}
    since = state.last_validation_ms
    # A clock that was set back makes the last look a future one; that is no reason to be silent.
    stale = since is None or abs(now_ms - since) > STALE_MS
    if live.outcome in _WRONG or stale:
        return {"chain_unusable": f"{live.outcome.value}: {live.chain_detail}"}
    return {}


def _heartbeats(state: State, live: Live) -> dict[str, str]:
    if live.failure is None:
        # No failure of this run; a good heartbeat clears, and before the first one nothing is known.
        return dict.fromkeys(set(_KIND_OF.values()), "") if live.beats else {}
    if state.consecutive_failures < FAILURES_BEFORE_RESTART:
        return {}
    kind = _KIND_OF.get(live.failure.exit_code, "heartbeat_refused")
    text = f"{live.failure.code}: {live.failure.message}: {live.failure.found}"
    return {name: text if name == kind else "" for name in set(_KIND_OF.values())}


def _agent(config: WatcherConfig, state: State, live: Live) -> dict[str, str]:
    verdicts = {}
    if live.agent is not None and live.agent.state is not AgentState.UNKNOWN:
        ill = live.agent.state is AgentState.UNHEALTHY
        verdicts["agent_unhealthy"] = live.agent.detail if ill else ""
        given_up = ill and state.restarts >= RESTART_CAP
        verdicts["agent_restarts_given_up"] = (
            f"{config.agent_unit} was restarted {state.restarts} times" if given_up else ""
        )
    return verdicts


def _records(config: WatcherConfig, state: State, live: Live, now_ms: int) -> dict[str, str]:
    expires = state.token_expires_at_ms
    left_ms = None if expires is None else expires - now_ms
    expired = left_ms is not None and left_ms <= 0
    soon = left_ms is not None and 0 < left_ms <= TOKEN_EXPIRES_SOON_MS
    days = (left_ms or 0) // 86_400_000
    return {
        "worker_not_registered": (
            f"registry {config.registry_id} has no worker {config.node_id}"
            if state.status == NOT_REGISTERED
            else ""
        ),
        "slash_proposed": "a slash is proposed: see the appeal window on-chain"
        if live.slash_proposed
        else "",
        "token_expired": _ROTATE if expired else "",
        "token_expires_soon": f"in {days} days: {_ROTATE}" if soon else "",
    }
