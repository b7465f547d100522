"""The role's filters; what they do is in k3s_daas.k3s_versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k3s_daas.k3s_versions import plan


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_upgrade_plan": plan}
