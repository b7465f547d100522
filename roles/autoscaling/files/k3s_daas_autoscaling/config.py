"""What the role writes for the service: strict, so that a typing mistake is found at the start."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigError(Exception):
    """The configuration is not what was wanted; the message says where."""


class Config(BaseModel):
    """:ivar fleet: value of the tag `k3s-daas-fleet` on the groups that are ours.
    :ivar project: this project's checkout, where `playbooks/` is.
    :ivar inventory: as `ansible-playbook -i` takes it.
    :ivar state_dir: where it keeps who is leaving.
    :ivar heartbeat_s: seconds between two heartbeats to AWS, for all that a hook holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fleet: str = Field(min_length=1)
    region: str = Field(min_length=1)
    project: Path
    inventory: Path
    ansible_playbook: Path
    state_dir: Path
    heartbeat_s: float = Field(default=60, gt=0)


def load(path: Path) -> Config:
    """
    Raises:
        ConfigError: it can't be read, or isn't right
    """
    try:
        return Config.model_validate(json.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(
            f"Found no readable {path} ({error.strerror}). Run playbooks/autoscaling.yml."
        ) from None
    except ValueError as error:
        problems = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise ConfigError(
            f"Found {path} not as wanted: {problems}. Run playbooks/autoscaling.yml again."
        ) from None
