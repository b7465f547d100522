"""The release that a host runs, as the role release wrote it down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PATH = Path("/etc/k3s-daas/release.json")


class Release(BaseModel):
    """`name` is made of what a checkout deploys and the version of k3s, `ref` is where git had it ("" if it
    didn't), `environment` the directory of the daemons' Python environment."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[0-9a-f]{16}-[!-~]{1,100}$")]
    ref: Annotated[str, Field(max_length=200)]
    k3s: Annotated[str, Field(max_length=100)]
    environment: Annotated[str, Field(max_length=200)]

    @property
    def shown(self) -> str:
        """The name, and where git had it."""
        return f"{self.name} ({self.ref})" if self.ref else self.name


def read(path: Path = PATH) -> Release | None:
    """The record in this file; None where there is none that can be read."""
    try:
        return Release.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
