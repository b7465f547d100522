"""The API of requests, for their owners: post a body, ask for a status with its result, list one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from k3s_daas.logs import get_logger
from k3s_daas.requests.schema import MAX_BODY_BYTES
from k3s_daas_master.errors import ApiError, shown
from k3s_daas_master.owner_auth import owner_of
from k3s_daas_master.request_rows import Row
from k3s_daas_master.state import State

_BODY_TIMEOUT_S = 10.0
_MAX_ID = 2**53
_log = get_logger("k3s_daas_master.request_http")
# A result is its owner's, and changes until the request is over.
_PRIVATE = {"cache-control": "no-store"}

Handler = Callable[[Request], Awaitable[Response]]


def routes(state: State) -> list[Route]:
    """The routes below /api/v1/requests."""

    def owner(request: Request, *, writing: bool = False) -> str:
        token = request.headers.get("x-seal-token")
        return owner_of(state.index, state.view, token, writing=writing)

    async def post(request: Request) -> Response:
        # Who it is first: a body is read for nobody else.
        who = owner(request, writing=True)
        number = _number(request)
        state.request_intake.of_owner(who, number)
        row = state.request_intake.accept(who, number, await _body(request))
        return JSONResponse(_status(row), status_code=202, headers=_PRIVATE)

    async def get(request: Request) -> Response:
        row = state.request_intake.of_owner(owner(request), _number(request))
        result = None if row.result is None else row.result.decode("utf-8")
        return JSONResponse(_status(row) | {"result": result}, headers=_PRIVATE)

    async def listed(request: Request) -> Response:
        rows = state.request_intake.listed(owner(request))
        return JSONResponse({"requests": [_status(row) for row in rows]}, headers=_PRIVATE)

    def counted(handler: Handler) -> Handler:
        async def call(request: Request) -> Response:
            outcome = "internal"
            try:
                response = await handler(request)
                outcome = "ok"
            except ApiError as error:
                outcome = error.code
                source = request.client.host if request.client else ""
                if not state.refusal_log.take(source):
                    _log.info(
                        "request refused",
                        path=request.url.path[:80],
                        code=error.code,
                        found=shown(error.found),
                        source=source,
                    )
                raise
            finally:
                state.metrics.request_calls.labels(outcome).inc()
            return response

        return call

    return [
        Route("/api/v1/requests", counted(listed), methods=["GET"]),
        Route("/api/v1/requests/{number}", counted(get), methods=["GET"]),
        Route("/api/v1/requests/{number}", counted(post), methods=["POST"]),
    ]


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) < _MAX_ID):
        raise ApiError(
            "bad_request",
            "This is no request's number.",
            f"{text!r:.60}",
            "the request_id that submitting it returned",
            "Correct the path.",
        )
    return int(text)


async def _body(request: Request) -> bytes:
    """The exact bytes of the body, at most MAX_BODY_BYTES. Raises ApiError."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large(f"{declared[:20]} bytes announced")
    try:
        return await asyncio.wait_for(_read(request), _BODY_TIMEOUT_S)
    except (TimeoutError, ClientDisconnect):
        raise ApiError(
            "bad_request",
            "The body didn't come.",
            f"no whole body within {_BODY_TIMEOUT_S:g} s",
            "a body sent at once",
            "Send it again.",
        ) from None


async def _read(request: Request) -> bytes:
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise _too_large(f"more than {MAX_BODY_BYTES} bytes sent")
    return raw


def _too_large(found: str) -> ApiError:
    return ApiError(
        "body_too_large",
        "The body is too large.",
        found,
        f"at most {MAX_BODY_BYTES} bytes",
        "Split the request; large data belongs into an image or a volume.",
    )


def _status(row: Row) -> dict[str, Any]:
    """What its owner sees of a request. Amount in MIST, times in ms; hashes in hex."""
    return {
        "request_id": row.request_id,
        "status": row.state.value,
        "node_id": row.node_id,
        "method": row.method,
        "resource": row.resource,
        "name": row.name,
        "priority": row.priority,
        "deposit_mist": row.deposit_mist,
        "payload_hash": row.payload_hash.hex(),
        "deadline_ms": row.deadline_ms,
        "body_received_ms": row.body_ms,
        "executed_ms": row.executed_ms,
        "ended_ms": row.ended_ms,
        "checkpoint": row.checkpoint,
        "result_hash": row.result_hash.hex() if row.result_hash else None,
        "error": row.error,
    }
