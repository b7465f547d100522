"""The Kubernetes API as an owner: every call is impersonated, goes to the owner's namespace, and is bounded.

The API server adds `system:authenticated` to an impersonated user by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from k3s_daas.tenancy import groups_of

#: The most that is read of an answer.
MAX_ANSWER_BYTES = 2 * 1024 * 1024


class NotExecuted(Exception):
    """The API server certainly did nothing; try again later."""


class InDoubt(Exception):
    """The call may have had its effect: no answer came, or one that doesn't say."""


@dataclass(frozen=True)
class Answer:
    """A definite answer. `body` is None when it was longer than MAX_ANSWER_BYTES."""

    status: int
    body: dict[str, Any] | str | None

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def missing(self) -> bool:
        return self.status == 404

    def object(self) -> dict[str, Any]:
        return self.body if isinstance(self.body, dict) else {}

    def metadata(self) -> dict[str, Any]:
        found = self.object().get("metadata")
        return found if isinstance(found, dict) else {}

    def message(self) -> str:
        """What the API server says about a refusal."""
        text = self.object().get("message")
        return text[:1000] if isinstance(text, str) else f"status {self.status}"

    def reason(self) -> str:
        text = self.object().get("reason")
        return text[:64] if isinstance(text, str) and text else f"Status{self.status}"


class OwnerApi:
    """`client` gives the connection of the moment, with the master's own identity, which may impersonate
    owners: it is asked for with each call, because that identity is renewed."""

    def __init__(self, client: Callable[[], httpx2.AsyncClient], timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def call(
        self,
        owner: str,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """One call as `owner`. Raises NotExecuted or InDoubt (a reader may take both for "try again")."""
        headers = [("Impersonate-User", owner), ("Accept", "application/json")]
        headers += [("Impersonate-Group", group) for group in groups_of(owner, stale=False, operator=False)]
        content = None
        if body is not None:
            headers.append(("Content-Type", content_type))
            content = json.dumps(body).encode()
        client = self._client()
        request = client.build_request(method, path, params=params, headers=headers, content=content)
        try:
            async with asyncio.timeout(self._timeout_s):
                status, kind, raw = await self._send(client, request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotExecuted(f"{method} {path}: {error or type(error).__name__}") from None
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            raise InDoubt(f"{method} {path}: {error or type(error).__name__}") from None
        answer = Answer(status, _content(kind, raw))
        if status >= 500:
            raise InDoubt(f"{method} {path}: {status}, {answer.message()}")
        if status in (401, 429) or (status == 403 and "impersonate" in answer.message()):
            # Of us and not of the owner: our own identity, or too many calls.
            raise NotExecuted(f"{method} {path}: {status}, {answer.message()}")
        return answer

    async def _send(
        self, client: httpx2.AsyncClient, request: httpx2.Request
    ) -> tuple[int, str, bytes | None]:
        response = await client.send(request, stream=True)
        try:
            raw = b""
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > MAX_ANSWER_BYTES:
                    return response.status_code, "", None
            return response.status_code, response.headers.get("content-type", ""), raw
        finally:
            await response.aclose()


def _content(kind: str, raw: bytes | None) -> dict[str, Any] | str | None:
    if raw is None:
        return None
    text = raw.decode("utf-8", "replace")
    if kind.partition(";")[0].strip() == "application/json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return found if isinstance(found, dict) else text
    return text
