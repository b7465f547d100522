"""What has to outlive a pass: who is coming, and who is leaving."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from .config import problems


class StateError(Exception):
    """The state can't be read; the message says what to do."""


class State(BaseModel):
    """:ivar coming: workers that were held at their launch and may have staked.
    :ivar leaving: when each worker that leaves wants exit.yml again, in ms since 1970; 0 at once.
    """

    model_config = ConfigDict(extra="forbid")

    coming: set[str] = set()
    leaving: dict[str, int] = {}


class StateFile:
    """One JSON file, replaced whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.json"

    def load(self) -> State:
        """
        Raises:
            StateError: it is there and isn't ours. Who is leaving is known from it alone, so it stays.
        """
        try:
            return State.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValidationError) as error:
            why = problems(error) if isinstance(error, ValidationError) else error.strerror
            raise StateError(
                f"Found {self._path} unreadable: {why}. Wanted the state that the last pass wrote. Its "
                "workers that are leaving have stakes to withdraw: mend it, or note them and remove it."
            ) from None

    def save(self, state: State) -> None:
        """Raises OSError when it can't be written; the old one is there then."""
        draft = self._path.with_suffix(".new")
        with draft.open("w") as file:
            file.write(state.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
