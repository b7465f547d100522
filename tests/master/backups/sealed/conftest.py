"""A master's host with a store beside it, and a chain that keeps the contract's rules about anchors."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k3s_daas.chain import ChainError, Receipt
from k3s_daas.chain.errors import MoveAbort
from k3s_daas.registry.snapshots import Anchor
from k3s_daas_master.backups.places import BackupError, Places
from k3s_daas_master.clock import Clock
from k3s_daas_master.config import Config, load
from k3s_daas_master.errors import StateError
from k3s_daas_master.sealed import command, sealer
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.keys import LocalKeys
from k3s_daas_master.sealed.sealer import Sealer

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
MASTER = "0x" + "cc" * 32
VERSION = "v1.34.2+k3s1"


class Hands(Clock):
    """Stands still at the moment when the test began: root's half has the host's own clock."""

    def __init__(self) -> None:
        self.ms = time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@dataclass
class FakeAnchors:
    """The contract's rules, in memory. `fail` is raised by the next call that anchors, before or after it."""

    anchor_: Anchor | None = None
    fail: ChainError | None = None
    fail_after: ChainError | None = None
    lags_behind: Anchor | None = None
    sent: list[int] = field(default_factory=list)

    async def newest(self) -> Anchor | None:
        return self.lags_behind or self.anchor_

    async def anchor(self, counter: int, previous: bytes, hash_: bytes) -> Receipt:
        failure, self.fail = self.fail, None
        if failure is not None:
            raise failure
        last, last_hash = (self.anchor_.counter, self.anchor_.hash) if self.anchor_ else (0, b"")
        if (counter, previous) != (last + 1, last_hash):
            raise MoveAbort("snapshots", "anchor_snapshot", 0, "ENotTheNextSnapshot", "another number")
        self.anchor_ = Anchor(counter, hash_, 1, 0)
        self.sent.append(counter)
        failure, self.fail_after = self.fail_after, None
        if failure is not None:
            raise failure
        return Receipt("digest", 1, 1000, [], {})

    def abandon(self) -> None:
        assert self.anchor_ is not None
        self.anchor_ = Anchor(self.anchor_.counter, b"", 1, 0)


@dataclass
class Master:
    """One master on one host: the service's half here, root's as it really is."""

    places: Places
    config: Config
    anchors: FakeAnchors
    clock: Hands
    answer_file: Path
    index: Any = field(
        default_factory=lambda: SimpleNamespace(loaded=True, master=SimpleNamespace(account=MASTER))
    )
    view: Any = field(default_factory=lambda: SimpleNamespace(fresh=lambda: True))
    attester: Any = field(default_factory=lambda: SimpleNamespace(required=False, live=lambda: False))
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> Sealer:
        self.sealer = Sealer(
            anchors=self.anchors,
            index=self.index,
            view=self.view,
            attester=self.attester,
            address=MASTER,
            state_dir=self.places.master,
            interval_s=self.config.snapshot_interval_s,
            clock=self.clock,
            answer_file=self.answer_file,
        )
        return self.sealer

    @asynccontextmanager
    async def root(self) -> AsyncIterator[None]:
        """What the path unit starts, again and again."""

        async def answer() -> None:
            while True:
                with suppress(SealedError, BackupError, StateError):
                    command.answer_request(self.config, self.places, self.answer_file)
                await asyncio.sleep(0)

        task = asyncio.create_task(answer())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        async with self.root():
            await self.sealer.look()

    @property
    def stored(self) -> list[str]:
        return command.store_of(self.config).names()


@pytest.fixture
def make_master(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Master]:
    """`make_master(places, anchors)`: a master of `host`'s configuration on other places."""
    monkeypatch.setattr(sealer, "_POLL_S", 0.001)
    monkeypatch.setattr(sealer, "_PATIENCE_S", 2.0)
    store, key = tmp_path / "parent", tmp_path / "sealing.key"
    store.mkdir()
    LocalKeys.create(key)
    host.places.k3s.write_text(f"#!/bin/sh\necho k3s version {VERSION} '(abc)'\n")
    host.places.k3s.chmod(0o755)
    content = json.loads(host.places.config.read_text())
    content |= {"snapshot_dir": str(store), "snapshot_key_file": str(key), "snapshot_keep": 2}
    host.places.config.write_text(json.dumps(content))
    clock = Hands()

    def make(places: Places | None = None, anchors: FakeAnchors | None = None) -> Master:
        places = places or host.places
        config = load(host.places.config).model_copy(update={"state_dir": places.master})
        return Master(
            places, config, anchors or FakeAnchors(), clock, tmp_path / f"{places.master.name}.answer"
        )

    return make


@pytest.fixture
def master(make_master: Callable[..., Master]) -> Master:
    return make_master()


@pytest.fixture
def empty_places(host: Any, tmp_path: Path) -> Places:
    """A fresh host in the place of the other: its image has a configuration and the binary."""
    root = tmp_path / "fresh"
    (root / "etc-rancher").mkdir(parents=True)
    (root / "etc-rancher/config.yaml").write_text("of the image")
    return Places(
        server=root / "rancher/server",
        etc=root / "etc-rancher",
        config=host.places.config,
        master=root / "fresh-master",
        home=root / "home",
        k3s=host.places.k3s,
    )
