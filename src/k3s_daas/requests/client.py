"""An owner's side of a request: hand its body to the master, wait, and hold the result against the chain.

The master is found on-chain and its TLS verified with the CA whose hash is there. What it answers is believed
only as far as the chain says the same: the result's hash stands in the event that completed the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from types import TracebackType
from typing import Any

import httpx

from k3s_daas import join, logs
from k3s_daas.registry.client import Registry
from k3s_daas.registry.events import RequestCompleted, parse_event
from k3s_daas.requests.errors import RequestError
from k3s_daas.requests.schema import payload_hash

PATH = "/api/v1/requests"
#: A result is at most 256 KiB, which JSON may write with up to six characters a byte.
MAX_ANSWER_BYTES = 2 * 1024 * 1024
#: Nothing more comes of these by itself.
OVER = frozenset({"succeeded", "failed", "refused", "abandoned", "timed_out", "ended"})

_POLL_S = 0.5
# Right after the transactions the master may not have heard of the request, or of the token, yet.
_NEWS_S = 20.0
_NEWS = frozenset({"request_unknown", "token_unknown", "not_ready"})
_CHAIN_S = 30.0


class MasterRefused(RequestError):
    """The master's own refusal; `code` as in its answer."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class ResultMismatch(RequestError):
    """The master's result isn't the one whose hash is on-chain."""


class RequestsApi:
    """The requests of one owner at one master. Use `connect`, or hand in a client of your own."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._headers = {"X-Seal-Token": token, "Accept-Encoding": "identity"}

    @classmethod
    async def connect(cls, registry: Registry, token: str, timeout_s: float = 10.0) -> RequestsApi:
        """The master that is announced on-chain. Raises RequestError, ChainError."""
        master = await registry.master()
        if master is None or not master.endpoint.startswith("https://"):
            found = "none" if master is None else repr(master.endpoint)[:80]
            raise RequestError(
                f"Found {found} as the master on-chain, wanted an https:// address: run playbooks/master.yml."
            )
        try:
            ca = await asyncio.to_thread(
                join.fetch_cacerts, master.api_server, master.ca_hash, timeout_s=timeout_s
            )
        except join.JoinError as error:
            raise RequestError(str(error)) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ca.decode("ascii"))
        # No proxy and no CA out of the environment comes between us and the pinned CA.
        client = httpx.AsyncClient(
            base_url=master.endpoint, verify=context, timeout=timeout_s, trust_env=False
        )
        return cls(client, token)

    async def __aenter__(self) -> RequestsApi:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def greet(self) -> None:
        """Make sure, before anything is paid, that the master takes the token. Raises RequestError."""
        await self._patiently("GET", PATH)

    async def post(self, request_id: int, raw: bytes) -> dict[str, Any]:
        """Hand in the body. Raises RequestError."""
        return await self._patiently("POST", f"{PATH}/{request_id}", raw)

    async def get(self, request_id: int) -> dict[str, Any]:
        """One request as the master has it. Raises RequestError."""
        return await self._call("GET", f"{PATH}/{request_id}")

    async def listed(self) -> list[dict[str, Any]]:
        """The newest requests, newest first. Raises RequestError."""
        found = (await self._call("GET", PATH)).get("requests")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise RequestError("The master listed the requests unlike our master does.")
        return found

    async def wait(self, request_id: int, timeout_s: float) -> dict[str, Any]:
        """The request once it is over, or as it is after `timeout_s`. Raises RequestError."""
        until = time.monotonic() + timeout_s
        while True:
            answer = await self.get(request_id)
            if answer.get("status") in OVER or time.monotonic() >= until:
                return answer
            await asyncio.sleep(_POLL_S)

    async def _patiently(self, method: str, path: str, raw: bytes | None = None) -> dict[str, Any]:
        """Call until the master has heard the news from the chain."""
        until = time.monotonic() + _NEWS_S
        while True:
            try:
                return await self._call(method, path, raw)
            except MasterRefused as error:
                if error.code not in _NEWS or time.monotonic() >= until:
                    raise
            await asyncio.sleep(_POLL_S)

    async def _call(self, method: str, path: str, raw: bytes | None = None) -> dict[str, Any]:
        body, headers = b"", self._headers | ({"Content-Type": "application/json"} if raw else {})
        try:
            async with self._client.stream(method, path, content=raw, headers=headers) as response:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise RequestError(f"The master sent more than {MAX_ANSWER_BYTES} bytes.")
        except httpx.HTTPError as error:
            why = logs.redact(str(error)) or type(error).__name__
            raise RequestError(f"The master at {self._client.base_url} didn't answer: {why}.") from None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if response.status_code in (200, 202) and isinstance(answer, dict):
            return answer
        raise _refused(response.status_code, answer)


def _refused(status: int, answer: Any) -> MasterRefused:
    error = answer.get("error") if isinstance(answer, dict) else None
    fields = error if isinstance(error, dict) else {}

    def text(name: str, default: str = "") -> str:
        value = fields.get(name)
        shown = value if isinstance(value, str) else default
        return logs.redact("".join(c if c.isprintable() else "?" for c in shown))[:400]

    said = text("message", f"The master answered {status}.")
    more = f"Found {text('found')}, wanted {text('wanted')}. {text('fix')}" if fields else ""
    return MasterRefused(status, text("code", f"http_{status}"), f"{said} {more}".strip())


async def finished(
    registry: Registry, api: RequestsApi, request_id: int, raw: bytes, wait_s: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hand in the body and wait until it succeeded: (what the master says of it, its checked result).

    Raises RequestError for everything else, ChainError.
    """
    await api.post(request_id, raw)
    answer = await api.wait(request_id, wait_s)
    status, result = answer.get("status"), await checked_result(registry, answer)
    if status == "succeeded" and result is not None:
        return {key: value for key, value in answer.items() if key != "result"}, result
    error = answer.get("error")
    why = str(error.get("message", "")) if isinstance(error, dict) else ""
    if status not in OVER:
        why = f"It isn't over after {wait_s:g} s; asking for the same again goes on waiting."
    raise RequestError(f"Request {request_id}: found status {status}, wanted succeeded. {why}")


async def checked_result(registry: Registry, answer: dict[str, Any]) -> dict[str, Any] | None:
    """The result in the master's `answer`, None while there is none on-chain.

    Raises ResultMismatch when the chain has another hash, RequestError when it can't be found there.
    """
    if answer.get("status") not in ("succeeded", "failed"):
        return None
    result, checkpoint, number = answer.get("result"), answer.get("checkpoint"), answer.get("request_id")
    if not isinstance(result, str) or not isinstance(checkpoint, int) or not isinstance(number, int):
        raise RequestError("The master says that the request is completed, and shows no result.")
    wanted = await hash_on_chain(registry, number, checkpoint)
    found = payload_hash(result.encode("utf-8", "surrogatepass"))
    if found != wanted:
        raise ResultMismatch(
            f"The master's result of request {number} has SHA-256 {found.hex()}, the chain says "
            f"{wanted.hex()}. Don't use it: somebody changed it after it was completed."
        )
    parsed: dict[str, Any] = json.loads(result)
    return parsed


async def hash_on_chain(registry: Registry, request_id: int, checkpoint: int) -> bytes:
    """The result hash in the event that completed the request in `checkpoint`. Raises RequestError."""
    deployment = registry.deployment
    batches = registry.chain.checkpoints(checkpoint - 1, [deployment.types_id])
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CHAIN_S), contextlib.aclosing(batches):
            async for batch in batches:
                for event in batch.events:
                    found = parse_event(event, deployment)
                    if isinstance(found, RequestCompleted) and found.request_id == request_id:
                        return found.result_hash
                if batch.sequence >= checkpoint:
                    break
    raise ResultMismatch(
        f"Checkpoint {checkpoint}, which the master names, doesn't complete request {request_id}. Wanted its "
        "K8sAPIRequestCompletedEvent there: look for it with another endpoint before you use the result."
    )
