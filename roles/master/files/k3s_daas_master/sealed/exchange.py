"""How the service and root talk: the service asks for a snapshot in its state directory, where a path unit
looks; root answers below /run. Neither believes more of the other than these few fields.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k3s_daas_master.errors import StateError

REQUEST_NAME = "snapshot-request"
#: Where this state stands in the line of snapshots.
PLACE_NAME = "snapshots.json"
ANSWER = Path("/run/k3s-daas-snapshot/answer.json")
_MAX_BYTES = 4096
_Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
M = TypeVar("M", bound=BaseModel)


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Base(_Message):
    """A snapshot in its line: `counter` 0 is before the first, `hash` (hex) is empty of an abandoned one."""

    counter: Annotated[int, Field(ge=0, lt=2**63)]
    hash: _Hash


class Place(_Message):
    """What a state goes on from: the newest snapshot that it made or was made of. `sent` are those
    made since, of which nobody knows whether they were anchored; one of them at most can be."""

    base: Base
    sent: tuple[Base, ...] = ()


class Request(_Message):
    """Make the snapshot that follows `base`; `discard` is the hash of one that was refused on-chain."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    base: Base
    discard: _Hash = ""


class Answer(_Message):
    """To the request of this id: the snapshot lies in the store, or why it doesn't.

    `copied_ms` is the moment before its first file was copied: what was done until then is in it.
    """

    id: str
    made: Base | None = None
    copied_ms: int = 0
    bytes: int = 0
    error: str = ""


def read(path: Path, kind: type[M]) -> M | None:
    """What stands in the file; None when there is none. Raises StateError."""
    try:
        # The service's folder is the service's: it may put a link there, which root doesn't follow.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            raw = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}. Wanted a file that this may read.") from None
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise StateError(
            f"{path} holds no {kind.__name__.lower()}: {first['msg']}. It is damaged, or another release's."
        ) from None


def write(path: Path, message: BaseModel, mode: int = 0o600) -> None:
    """Whole or not at all, durably. Raises StateError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(message.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}. Wanted to write it.") from None
