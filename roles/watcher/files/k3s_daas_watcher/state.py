"""What the watcher must still know after a restart. No secrets in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k3s_daas import logs

from .files import write_atomic

log = logs.get_logger(__name__)

STATE_NAME = "state.json"
SLASHED_NAME = "slashed"
_MAX_BYTES = 256 * 1024


class KnownMaster(BaseModel):
    """The last master all endpoints agreed on, with the CA that matched its on-chain hash.

    Kept so that heartbeats go on while the chain can't be reached, also over a restart.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    epoch: int
    endpoint: str
    api_server: str
    ca_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ca_pem: str
    # Whether it proved itself; without that it isn't one where proof is wanted.
    attested: bool = False


class Slashed(BaseModel):
    """That this host saw this worker slashed; time in ms since the epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    node_id: str
    seen_at_ms: int


class Alert(BaseModel):
    """An alert that was raised and not cleared; time in ms since the epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    raised_at_ms: int
    detail: str


class State(BaseModel):
    """Times in ms since the epoch; None for "never"."""

    model_config = ConfigDict(strict=True, extra="forbid", validate_assignment=True)

    version: Annotated[Literal[1], Field(alias="schema")] = 1
    node_id: str
    # No heartbeat that the master may have recorded had a later timestamp than this.
    timestamp_floor_ms: int = 0
    # The last moments that a heartbeat was signed for.
    signed_ms: list[int] = []
    consecutive_failures: int = 0
    last_failure: str | None = None
    last_heartbeat_ms: int | None = None
    last_validation_ms: int | None = None
    status: str | None = None
    stake_mist: int | None = None
    token_generation: int | None = None
    token_expires_at_ms: int | None = None
    restarts: int = 0
    next_restart_ms: int = 0
    alerts: dict[str, Alert] = {}
    master: KnownMaster | None = None


class StateStore:
    """`<state_dir>/state.json`, written whole or not at all."""

    def __init__(self, state_dir: Path, node_id: str) -> None:
        self._path = state_dir / STATE_NAME
        self._slashed = state_dir / SLASHED_NAME
        self.state = self._load(node_id)
        self._written = b""
        #: Why the state can't be written now; empty when it can.
        self.problem = ""

    def _load(self, node_id: str) -> State:
        fresh = State(node_id=node_id)
        try:
            with self._path.open("rb") as file:
                raw = file.read(_MAX_BYTES)
            state = State.model_validate_json(raw)
        except FileNotFoundError:
            return fresh
        except (OSError, ValidationError) as error:
            # Only counters and the last view are lost; the chain and the clock give them back.
            log.warning("state can't be read, starting anew", path=str(self._path), why=type(error).__name__)
            return fresh
        return state if state.node_id == node_id else fresh

    def save(self) -> None:
        """Write the state if it changed. A full disk is logged, not fatal: the stake check must go on."""
        data = self.state.model_dump_json(by_alias=True).encode() + b"\n"
        if data == self._written:
            return
        try:
            write_atomic(self._path, data)
        except OSError as error:
            problem = f"{self._path}: {os.strerror(error.errno or 0)}"
            if problem != self.problem:
                # Once, not every ten seconds.
                log.error("state can't be written", path=str(self._path), why=os.strerror(error.errno or 0))
            self.problem = problem
            return
        self._written, self.problem = data, ""

    @property
    def slashed(self) -> bool:
        """Whether this host saw this very worker slashed. One under another node id may start anew."""
        try:
            seen = Slashed.model_validate_json(self._slashed.read_bytes()[:_MAX_BYTES])
        except FileNotFoundError:
            return False
        except (OSError, ValidationError):
            # Whoever wrote it meant a slash; stopping is the safe side of a mistake.
            return True
        return seen.node_id == self.state.node_id

    def mark_slashed(self, now_ms: int) -> None:
        """Remember it for ever: a slash is final. Raises OSError."""
        seen = Slashed(node_id=self.state.node_id, seen_at_ms=now_ms)
        write_atomic(self._slashed, seen.model_dump_json().encode() + b"\n")
