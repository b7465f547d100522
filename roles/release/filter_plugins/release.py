"""The role's filters; what they do is in k3s_daas.promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k3s_daas.promotion import judge, plan, way_back


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"release_health": judge, "release_plan": plan, "release_back": way_back}
