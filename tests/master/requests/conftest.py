"""A master whose chain takes requests and whose Kubernetes API serves owners."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves test folders off the path
from request_fakes import OWNER, OwnersKube, attach


@pytest.fixture
def chain(chain: Any) -> Any:
    """The fake chain, with a book of requests."""
    attach(chain)
    return chain


@pytest.fixture
def kube(kube: Any, chain: Any) -> Any:
    """The fake cluster, which serves owners in their namespaces, too."""
    kube.owners = OwnersKube(chain.book.log)
    own, owners = kube.app(), kube.owners.app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        as_owner = any(name == b"impersonate-user" for name, _ in scope["headers"])
        await (owners if as_owner else own)(scope, receive, send)

    kube.app = lambda: app
    return kube


@dataclass
class Client:
    """An owner with its token, at one master."""

    bench: Any
    token: str
    owner: str = OWNER

    @property
    def _headers(self) -> dict[str, str]:
        return {"X-Seal-Token": self.token}

    async def post(self, number: int | str, raw: bytes) -> httpx.Response:
        return await self.bench.api.post(f"/api/v1/requests/{number}", content=raw, headers=self._headers)

    async def get(self, number: int | str) -> httpx.Response:
        return await self.bench.api.get(f"/api/v1/requests/{number}", headers=self._headers)

    async def all(self) -> list[dict[str, Any]]:
        answer = await self.bench.api.get("/api/v1/requests", headers=self._headers)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["requests"]
        return found

    async def status(self, number: int) -> str:
        answer = await self.get(number)
        assert answer.status_code == 200, answer.text
        status: str = answer.json()["status"]
        return status

    async def ask(self, raw: bytes, **how: Any) -> int:
        """Submit and post; the master knows it afterwards and hasn't begun."""
        number: int = self.bench.chain.book.submit(raw, self.owner, **how)
        await self.bench.catch_up()
        answer = await self.post(number, raw)
        assert answer.status_code == 202, answer.text
        return number

    async def served(self, raw: bytes, **how: Any) -> dict[str, Any]:
        """Submit, post, and let the master work; the answer, its result as JSON."""
        number = await self.ask(raw, **how)
        await self.bench.state.requests.sweep()
        await self.bench.catch_up()
        answer: dict[str, Any] = (await self.get(number)).json()
        if answer["result"] is not None:
            assert hashlib.sha256(answer["result"].encode()).hexdigest() == answer["result_hash"]
            answer["result"] = json.loads(answer["result"])
        return answer


@pytest.fixture
async def owner(bench: Any) -> Client:
    """An owner with an active worker, worker-1, and a token."""
    await bench.join("worker-1", OWNER)
    token = bench.chain.mint("", OWNER)
    await bench.catch_up()
    return Client(bench, token)
