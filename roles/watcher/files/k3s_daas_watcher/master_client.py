"""HTTP to the master, over TLS that trusts exactly the CA whose hash is on-chain."""

from __future__ import annotations

import json
import ssl
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k3s_daas import logs

from .signing import SIGNATURE_HEADER, HeartbeatKey

MAX_ANSWER_BYTES = 64 * 1024
REGISTER_PATH = "/api/v1/register-worker"
HEARTBEAT_PATH = "/api/v1/nodes/heartbeat"
DRAIN_PATH = "/api/v1/nodes/drain"
TOKEN_HEADER = "X-Seal-Token"  # noqa: S105 - a header's name


class MasterUnreachable(Exception):
    """No answer that could be the master's. The text says why; it never holds a secret."""


class MasterUntrusted(MasterUnreachable):
    """Something answers, but not with a certificate of the CA that is on-chain."""


class MasterRefused(Exception):
    """The master's own error answer; fields as in its body, cut and cleaned."""

    def __init__(self, status: int, code: str, message: str, found: str, wanted: str, fix: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.found = found
        self.wanted = wanted
        self.fix = fix


class Registered(BaseModel):
    """The answer to a registration. Holds secrets: its repr must never be printed."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    node_id: str
    server: str
    token: Annotated[str, Field(repr=False, max_length=512)]
    expires_at_ms: int
    node_password: Annotated[str, Field(repr=False, min_length=16, max_length=256, pattern=r"^[!-~]+$")]
    ca_pem: Annotated[str, Field(max_length=MAX_ANSWER_BYTES)]


class Drained(BaseModel):
    """The answer to one step of a drain: what is left on the node, of which some are named."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    drained: bool
    pods_left: Annotated[int, Field(ge=0)]
    waiting_for: Annotated[list[Annotated[str, Field(max_length=600)]], Field(max_length=100)] = []


class MasterClient:
    """One master at `endpoint` (https://host:port), verified against `ca_pem` and nothing else."""

    def __init__(self, endpoint: str, ca_pem: str, seal_token: str, timeout_s: float = 10.0) -> None:
        if not _is_https_address(endpoint):
            raise MasterUnreachable(
                f"the master's on-chain endpoint {endpoint!r:.100} is no https://host:port"
            )
        self.endpoint = endpoint.rstrip("/")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=ca_pem)
        self._client = httpx.AsyncClient(
            base_url=self.endpoint,
            verify=context,
            timeout=timeout_s,
            # No proxy and no CA file out of the environment may come between us and the pinned CA.
            trust_env=False,
            follow_redirects=False,
            # Uncompressed, so that a few bytes can't unfold into many.
            headers={TOKEN_HEADER: seal_token, "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def register(self, node_id: str, timestamp_ms: int, public_key: str | None = None) -> Registered:
        """Exchange the seal token for a join token. Raises MasterUnreachable, MasterRefused.

        `public_key` (base64) is bound to the worker: from then on its heartbeats must be signed.
        """
        body: dict[str, Any] = {"node_id": node_id, "timestamp_ms": timestamp_ms}
        if public_key is not None:
            body["public_key"] = public_key
        answer = await self._post(REGISTER_PATH, _json(body))
        try:
            return Registered.model_validate(answer)
        except ValidationError as error:
            raise _not_ours(self.endpoint, "the registration", error) from None

    async def drain(self, node_id: str, timestamp_ms: int) -> Drained:
        """One step of emptying this worker's node. Raises MasterUnreachable, MasterRefused."""
        answer = await self._post(DRAIN_PATH, _json({"node_id": node_id, "timestamp_ms": timestamp_ms}))
        try:
            return Drained.model_validate(answer)
        except ValidationError as error:
            raise _not_ours(self.endpoint, "the drain", error) from None

    async def heartbeat(self, body: dict[str, Any], key: HeartbeatKey | None = None) -> str:
        """Send one heartbeat, signed with `key`; returns the on-chain status the master knows.

        Raises MasterUnreachable, MasterRefused.
        """
        raw = _json(body)
        answer = await self._post(HEARTBEAT_PATH, raw, {SIGNATURE_HEADER: key.sign(raw)} if key else {})
        status = answer.get("status")
        if not isinstance(status, str) or len(status) > 32:
            raise MasterUnreachable(f"{self.endpoint} answered a heartbeat without a status")
        return status

    async def _post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        raw = b""
        headers = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with self._client.stream("POST", path, content=body, headers=headers) as response:
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > MAX_ANSWER_BYTES:
                        raise MasterUnreachable(f"{self.endpoint} sent more than {MAX_ANSWER_BYTES} bytes")
                status = response.status_code
                retry_wait = response.headers.get("retry-after")
        except httpx.HTTPError as error:
            raise _unreachable(self.endpoint, error) from None
        try:
            answer = httpx.Response(200, content=raw).json()
        except ValueError:
            answer = None
        if status == httpx.codes.OK and isinstance(answer, dict):
            return answer
        if status == httpx.codes.OK:
            raise MasterUnreachable(f"{self.endpoint} answered 200 without a JSON object")
        raise _refused(status, answer, retry_wait)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _is_https_address(endpoint: str) -> bool:
    """Whether it is https://host[:port] and no more. It comes off the chain, so it may be anything."""
    try:
        parts = urlsplit(endpoint)
        httpx.URL(endpoint)
        # Reading the port is what checks it.
        bare = parts.port is None or parts.port > 0
    except (ValueError, httpx.InvalidURL):
        return False
    bare = bare and not (parts.path.rstrip("/") or parts.query or parts.fragment or parts.username)
    return bare and parts.scheme == "https" and bool(parts.hostname)


def _unreachable(endpoint: str, error: httpx.HTTPError) -> MasterUnreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return MasterUntrusted(
                f"{endpoint} shows a certificate that the on-chain CA didn't sign: {cause.verify_message}"
            )
        cause = cause.__cause__ or cause.__context__
    return MasterUnreachable(f"{endpoint}: {logs.redact(str(error)) or type(error).__name__}")


def _refused(status: int, answer: Any, retry_after: str | None) -> MasterRefused:
    detail = answer.get("error") if isinstance(answer, dict) else None
    fields = detail if isinstance(detail, dict) else {}

    def text(name: str, default: str) -> str:
        value = fields.get(name)
        # Printed on a terminal and logged: no control characters, no secret, no novel.
        shown = value if isinstance(value, str) and value else default
        return logs.redact("".join(c if c.isprintable() else "?" for c in shown))[:400]

    return MasterRefused(
        status,
        text("code", f"http_{status}"),
        text("message", f"the master answered {status}"),
        text("found", f"status {status}"),
        text("wanted", "status 200"),
        text("fix", f"try again in {retry_after} s" if retry_after else "look at the master's journal"),
    )


def _not_ours(endpoint: str, what: str, error: ValidationError) -> MasterUnreachable:
    # Places and kinds only: the values are the secrets.
    problems = "; ".join(
        f"{'.'.join(map(str, p['loc']))}: {p['type']}"
        for p in error.errors(include_url=False, include_input=False)
    )
    return MasterUnreachable(f"{endpoint} answered {what} unlike our master does: {problems[:300]}")
