"""The end of a master that another has overtaken: it serves nobody any more.

Two ways lead there. Its state isn't what the chain goes on from (`Sealer.fenced`); or another enclave is the
live master (`Attester.replaced`), which all endpoints that answer have to say. Both are for good: what it did
since is kept nowhere, so whoever writes into its API server loses that.

The service can't stop k3s. It leaves a file, whose path unit starts the root oneshot that does, and this
service ends with it. The file stays with the state: as long as it is there, k3s doesn't start on that state
(`sealed.put_back`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from k3s_daas.chain import ChainError
from k3s_daas.logs import get_logger
from k3s_daas.registry import Master
from k3s_daas_master.attester import Attester
from k3s_daas_master.backups.places import OVERTAKEN
from k3s_daas_master.sealed.sealer import Sealer

_LOOK_S = 1.0
_log = get_logger("k3s_daas_master.fence")


class SeesMasters(Protocol):
    async def masters(self) -> list[Master | None]:
        """The live master by the word of each endpoint that answers. Raises ChainError."""


class Fence:
    """`state_dir` is the service's own folder."""

    def __init__(self, *, sealer: Sealer, attester: Attester, registry: SeesMasters, state_dir: Path) -> None:
        self._sealer = sealer
        self._attester = attester
        self._registry = registry
        self._file = state_dir / OVERTAKEN
        self._done = False

    async def run(self) -> None:
        """Look again and again. Never ends."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask root to end k3s, once, if another has overtaken this master. Never raises."""
        if self._done:
            return
        try:
            reason = self._sealer.fenced or await self._replaced()
            if reason is None:
                return
            draft = self._file.with_name(f".{OVERTAKEN}")
            draft.write_text(f"{reason}\n")
            draft.replace(self._file)
        except (ChainError, OSError) as error:
            _log.warning("not known whether this master is overtaken", error=str(error))
            return
        self._done = True
        _log.error("overtaken: k3s ends, and this service with it", reason=reason)

    async def _replaced(self) -> str | None:
        """One endpoint may lie, or lag: then nothing ends."""
        if self._attester.replaced is None:
            return None
        for master in await self._registry.masters():
            if master is None or self._attester.is_ours(master):
                return None
        return self._attester.replaced
