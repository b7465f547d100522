"""A request's body, read with bounds, and as JSON that can be shown and logged."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from k3s_daas_master.errors import ApiError

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0


async def read_json(request: Request) -> dict[str, Any]:
    """The request's JSON object, never more than MAX_BODY_BYTES of it. Raises ApiError."""
    return json_object(await read_raw(request))


async def read_raw(request: Request) -> bytes:
    """The body as it came, if it is said to be JSON and at most MAX_BODY_BYTES. Raises ApiError."""
    check_content_type(request.headers.get("content-type", ""))
    return await read_bytes(request, MAX_BODY_BYTES)


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body as it came, of at most `limit` bytes and there within BODY_TIMEOUT_S. Raises ApiError."""
    try:
        return await asyncio.wait_for(_read(request, limit), BODY_TIMEOUT_S)
    except TimeoutError:
        raise bad_request(f"no whole body within {BODY_TIMEOUT_S:g} s", "a body sent at once") from None
    except ClientDisconnect:
        raise bad_request("a connection closed before the body's end", "a whole body") from None


def check_content_type(content_type: str) -> None:
    """Raise ApiError unless it says JSON."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            "wrong_content_type",
            "The body must be JSON.",
            f"Content-Type {content_type!r:.80}",
            "Content-Type: application/json",
            "Set the header and send JSON.",
        )


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ApiError."""
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        if b"\\u" in raw:
            # A lone surrogate passes JSON's grammar, but is no text: it could never be shown or logged.
            json.dumps(body, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise bad_request(f"{len(raw)} bytes that aren't JSON", "one JSON object") from None
    if not isinstance(body, dict):
        raise bad_request(f"a JSON {type(body).__name__}", "one JSON object")
    return body


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(f"{declared[:20]} bytes announced", limit)
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit:
            raise too_large(f"more than {limit} bytes sent", limit)
    return raw


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def bad_request(found: str, wanted: str) -> ApiError:
    return ApiError("bad_request", "The request can't be read.", found, wanted, "Correct the request.")


def too_large(found: str, limit: int = MAX_BODY_BYTES) -> ApiError:
    return ApiError(
        "body_too_large",
        "The body is too large.",
        found,
        f"at most {limit} bytes",
        "Send only the documented fields; large data belongs into an image or a volume.",
    )
