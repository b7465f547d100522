"""The node watch: a hint to look, for each node that turns Ready or stops being it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from k3s_daas_master.cluster import ClusterError
from k3s_daas_master.nodewatch import NodeWatch


class Watched:
    """A cluster whose watches say what the test says, and then fail."""

    def __init__(self, *rounds: list[tuple[str, bool]]) -> None:
        self.rounds = list(rounds)

    async def watch_nodes(self) -> AsyncIterator[tuple[str, bool]]:
        for change in self.rounds.pop(0) if self.rounds else []:
            yield change
        raise ClusterError("watch nodes: the API server answered 403")


async def run(cluster: Any) -> tuple[int, list[float]]:
    """(times woken, pauses) until the watch has failed three times."""
    woken, pauses = [], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            await asyncio.Event().wait()

    watch = NodeWatch(cluster, lambda: woken.append(1), sleep)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(5):
        while len(pauses) < 3:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return len(woken), pauses


@pytest.mark.parametrize(
    ("rounds", "woken"),
    [
        ([[("a", False), ("b", False)]], 0),
        ([[("a", True)]], 1),
        ([[("a", True), ("a", True), ("a", False), ("a", True)]], 3),
        ([[("a", True)], [("a", True), ("b", True)]], 2),
        ([[("a", True), ("a", False)]], 2),
    ],
)
async def test_it_wakes_for_each_change_of_readiness(rounds: Any, woken: int) -> None:
    assert (await run(Watched(*rounds)))[0] == woken


async def test_a_watch_that_is_refused_is_tried_again_with_pauses() -> None:
    assert await run(Watched()) == (0, [5.0, 5.0, 5.0])
