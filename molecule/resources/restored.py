"""For scenarios whose master is restored from snapshots: who writes meanwhile, and what stays the same."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap

from k3s_daas.chain import SuiClient
from k3s_daas.registry import Deployment, Master, Registry
from k3s_daas.registry.snapshots import Anchor, read_anchor

# The agent: its process, when it joined, its keys.
AGENT = (
    "systemctl show --property=MainPID,NRestarts k3s-agent; stat --format=%y /var/lib/k3s-daas/agent-joined; "
    "sha256sum /etc/rancher/node/password /var/lib/rancher/k3s/agent/client-kubelet.key"
)


@dataclass(frozen=True)
class OnChain:
    """What the chain says of the master and its snapshots."""

    master: Master
    anchor: Anchor


@dataclass
class Writer:
    """Writes ConfigMaps all the time, as long as the API server answers; when each was acknowledged."""

    client: Client
    number: int = 0
    acknowledged: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            self.number += 1
            name = f"note-{self.number}"
            # Without an answer it may be written or not: it doesn't count.
            with contextlib.suppress(httpx2.HTTPError, ApiError):
                self.client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default")))
                self.acknowledged[name] = time.time()
            self.stop.wait(0.2)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()
            self.stop.clear()


def ask_chain(stage: dict[str, Any], deployment: Deployment) -> Callable[[], OnChain]:
    """`ask()`: what the chain says now."""

    def ask() -> OnChain:
        async def read() -> OnChain:
            async with await SuiClient.connect(
                [stage["rpc"]], "localnet", chain_id=stage["chain_id"]
            ) as chain:
                registry = Registry(chain, deployment)
                master, anchor = await registry.master(), await read_anchor(registry)
                assert master is not None
                assert anchor is not None
                return OnChain(master, anchor)

        return asyncio.run(read())

    return ask


def is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
