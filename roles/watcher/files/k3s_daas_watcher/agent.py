"""Whether the k3s agent on this host is well. Only looks; doing is root's part."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import httpx

PROBE_TIMEOUT_S = 3.0


class AgentState(StrEnum):
    HEALTHY = "healthy"
    # Left alone: it waits for its server, and a restart would only make it wait from the beginning; or
    # somebody is stopping or restarting it, as an upgrade does, and has an eye on it.
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    # systemd didn't say; an unknown agent is not restarted on a guess.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AgentReport:
    """State and, in words, why."""

    state: AgentState
    detail: str


class AgentProbe(Protocol):
    """Looks at the agent when asked; never raises."""

    async def look(self) -> AgentReport: ...


class KubeletProbe:
    """Unit state by systemctl, then the kubelet's own health page on loopback."""

    def __init__(self, unit: str, health_url: str) -> None:
        self._unit = unit
        self._url = health_url

    async def look(self) -> AgentReport:
        state = await self._unit_state()
        if state in {"activating", "deactivating", "reloading"}:
            return AgentReport(AgentState.STARTING, f"{self._unit} is {state}")
        if state != "active":
            kind = AgentState.UNKNOWN if state == "" else AgentState.UNHEALTHY
            return AgentReport(kind, f"{self._unit} is {state or 'in a state systemd did not tell'}")
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=PROBE_TIMEOUT_S) as client:
                answer = await client.get(self._url)
        except httpx.HTTPError as error:
            return AgentReport(AgentState.UNHEALTHY, f"kubelet at {self._url}: {type(error).__name__}")
        if answer.status_code != httpx.codes.OK:
            return AgentReport(AgentState.UNHEALTHY, f"kubelet at {self._url} answers {answer.status_code}")
        return AgentReport(AgentState.HEALTHY, "unit active, kubelet ok")

    async def _unit_state(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                "systemctl",
                "show",
                "--property=ActiveState",
                "--value",
                self._unit,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return ""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return ""
        return output.decode("ascii", "replace").strip()
