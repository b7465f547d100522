"""How the unprivileged watcher asks root to stop or restart the agent or to register anew, and the answer.

Request: `<state_dir>/agent-control.json`, written by the watcher, at most 2 KiB of JSON:

    {"schema": 1, "id": "<32 hex digits>", "action": "stop" | "restart" | "register",
     "reason": "slashed" | "agent_unhealthy" | "commanded", "node_id": "...",
     "requested_at_ms": 1700000000000}

A path unit (PathExists=) starts `k3s-daas-watcher agent-control` as root, which takes the request away,
checks it, acts, and answers in a file that only root can write (`/run/k3s-daas/agent-control.done`):

    {"schema": 1, "id": "<the request's>", "action": "...", "result": "done" | "failed",
     "detail": "...", "finished_at_ms": 1700000000000}

Consuming the file makes it level-triggered: a request written while nobody watched is found later.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .config import NodeId
from .files import write_atomic

REQUEST_NAME = "agent-control.json"
MAX_BYTES = 2048


Action = Literal["stop", "restart", "register"]
Reason = Literal["slashed", "agent_unhealthy", "commanded"]


class ControlError(Exception):
    """A request or an answer that is not to be believed; the text says why."""


class Request(BaseModel):
    """What the watcher asks for."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    version: Annotated[Literal[1], Field(alias="schema")]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    action: Action
    reason: Reason
    node_id: NodeId
    requested_at_ms: Annotated[int, Field(ge=0)]


class Answer(BaseModel):
    """What root did."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    version: Annotated[Literal[1], Field(alias="schema")]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    action: Action
    result: Literal["done", "failed"]
    detail: Annotated[str, Field(max_length=500)] = ""
    finished_at_ms: Annotated[int, Field(ge=0)]


class Control:
    """The watcher's side. `root_uid` is who must own the answer (tests are not always root)."""

    def __init__(self, state_dir: Path, confirmation: Path, node_id: str, root_uid: int = 0) -> None:
        self._request_path = state_dir / REQUEST_NAME
        self._confirmation = confirmation
        self._node_id = node_id
        self._root_uid = root_uid

    def pending(self) -> bool:
        """Whether root hasn't taken the last request yet."""
        return self._request_path.exists()

    def ask(self, action: Action, reason: Reason, now_ms: int) -> str:
        """Write a request (it replaces one not yet taken); returns its id. Raises OSError."""
        request = Request.model_validate(
            {
                "schema": 1,
                "id": secrets.token_hex(16),
                "action": action,
                "reason": reason,
                "node_id": self._node_id,
                "requested_at_ms": now_ms,
            }
        )
        write_atomic(self._request_path, request.model_dump_json(by_alias=True).encode() + b"\n")
        return request.id

    def answer(self, request_id: str) -> Answer | None:
        """Root's answer to that request, or None while there is none."""
        try:
            raw = read_owned(self._confirmation, self._root_uid)
            answer = Answer.model_validate_json(raw)
        except (FileNotFoundError, ControlError, ValidationError):
            return None
        return answer if answer.id == request_id else None


def read_owned(path: Path, owner_uid: int) -> bytes:
    """The bytes of `path` when it is a regular file of `owner_uid` alone.

    All checks are made on the opened file, so it can't be swapped between check and read.
    Raises FileNotFoundError, ControlError.
    """
    try:
        # O_NONBLOCK: a FIFO put there must not hang us. O_NOFOLLOW: no symlink to a file of somebody else.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ControlError(f"{path} can't be opened as a plain file: {error.strerror}") from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ControlError(f"{path} is not a regular file")
        if info.st_uid != owner_uid:
            raise ControlError(f"{path} belongs to uid {info.st_uid}, wanted uid {owner_uid}")
        if info.st_nlink != 1:
            raise ControlError(f"{path} has {info.st_nlink} names, wanted one (hard links are refused)")
        if info.st_mode & 0o022:
            raise ControlError(f"{path} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})")
        if info.st_size > MAX_BYTES:
            raise ControlError(f"{path} has {info.st_size} bytes, wanted at most {MAX_BYTES}")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def read_request(path: Path, owner_uid: int, node_id: str) -> Request:
    """The request at `path`, fully checked. Raises FileNotFoundError, ControlError."""
    raw = read_owned(path, owner_uid)
    try:
        request = Request.model_validate_json(raw)
    except ValidationError as error:
        # Only places and kinds: what a forged file says doesn't belong in root's journal.
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['type']}" for p in error.errors(include_url=False)
        )
        raise ControlError(f"{path} is not a valid request: {problems[:300]}") from None
    if request.node_id != node_id:
        raise ControlError(f"{path} is for another node than {node_id}")
    return request
