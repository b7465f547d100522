"""What the role writes for the service: strict, so that a typing mistake is found at the start."""

from __future__ import annotations

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
        return Config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"Found no readable {path} ({error.strerror}). Run playbooks/autoscaling.yml."
        ) from None
    except ValidationError as error:
        raise ConfigError(
            f"Found {path} not as wanted: {problems(error)}. Run playbooks/autoscaling.yml again."
        ) from None


def problems(error: ValidationError) -> str:
    """Each on one line, by the name of its field."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all of it'}: {e['msg']}" for e in error.errors())
