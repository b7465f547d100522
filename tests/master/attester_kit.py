"""What tests of a master that proves itself share: the emulated security module, and what the loops do."""

from __future__ import annotations

from typing import Any

from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_master.attester import PAUSE_S

HOUR_MS = 3_600_000


class Emulated:
    """The emulator behind the real client, by the test's clock; may be broken."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.emulator = NsmEmulator(clock.ms - HOUR_MS)
        self.module = nsm_serve.Module(self.emulator, nsm_serve.DEFAULT_PCRS, clock.ms)
        self.requests = 0
        self.broken = False

    def exchange(self, request: bytes) -> bytes:
        self.requests += 1
        if self.broken:
            return b"\xa1\x65Error\x6dInternalError"
        return self.module.answer(request, self.clock.ms)


async def settle(bench: Any) -> None:
    """What the loops do: register, take the event in, announce, take that in."""
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.attester.look()
    await bench.catch_up()
    bench.clock.advance(PAUSE_S)
    bench.chain.checkpoint()
    await bench.catch_up()
    await bench.state.fleet.reconcile()
    await bench.catch_up()
