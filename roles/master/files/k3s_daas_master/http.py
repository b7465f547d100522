"""The API for workers and operators, over TLS; the API server's webhook is in `webhook`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from prometheus_client import Counter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas.logs import get_logger
from k3s_daas.registry import InvalidNodeId, check_node_id
from k3s_daas_master import findings_http, kubeconfig_api, request_http
from k3s_daas_master.errors import ApiError, shown
from k3s_daas_master.gate import Gate
from k3s_daas_master.heartbeats import Reported
from k3s_daas_master.metrics import CONTENT_TYPE
from k3s_daas_master.ratelimit import source_of
from k3s_daas_master.signatures import parse_public_key
from k3s_daas_master.state import State

MAX_BODY_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
_MAX_U64 = 2**64 - 1
_log = get_logger("k3s_daas_master.http")

Handler = Callable[[Request], Awaitable[Response]]
_Model = TypeVar("_Model", bound="_Body")


class _Body(BaseModel):
    # Unknown keys are let through: an older master serves a newer watcher.
    model_config = ConfigDict(strict=True, extra="ignore")

    node_id: str
    timestamp_ms: Annotated[int, Field(ge=0, le=2**53)]


class RegisterBody(_Body):
    """register-worker; `timestamp_ms` is the worker's clock, `public_key` base64 of 32 bytes (Ed25519)."""

    public_key: Annotated[str, Field(max_length=64)] | None = None


class DrainBody(_Body):
    """A worker's wish to have its node emptied; `timestamp_ms` as in a heartbeat."""


class HeartbeatBody(_Body):
    """A heartbeat. Everything but name and time is for display only."""

    stake_status: Annotated[str, Field(max_length=32)] = ""
    stake_mist: Annotated[int, Field(ge=0, le=_MAX_U64)] | None = None
    running_pods: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    resource_usage: Annotated[
        dict[str, float | int | Annotated[str, Field(max_length=64)] | None], Field(max_length=32)
    ] = {}


def api_app(state: State) -> Starlette:
    """The API for workers, operators and probes."""

    async def register(request: Request) -> Response:
        wait = state.limiter.take(source_of(request.client))
        if wait:
            raise ApiError(
                "rate_limited",
                "Too many registrations from this address.",
                f"more than {state.config.registration_burst} at once",
                f"{state.config.registration_per_s:g} a second",
                f"Wait {wait:.1f} s.",
            )
        body = _validated(RegisterBody, await read_json(request))
        try:
            key = None if body.public_key is None else parse_public_key(body.public_key)
        except ValueError:
            raise bad_request("public_key that isn't one", "base64 of an Ed25519 key's 32 bytes") from None
        answer = await state.registrar.register(_token(request), body.node_id, body.timestamp_ms, key)
        # It holds secrets: no cache may keep it.
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    async def heartbeat(request: Request) -> Response:
        raw = await read_raw(request)
        body = _validated(HeartbeatBody, json_object(raw))
        reported = Reported(body.stake_status, body.stake_mist, body.running_pods, body.resource_usage)
        signature = request.headers.get("x-worker-signature")
        status = state.heartbeats.beat(
            _token(request), body.node_id, body.timestamp_ms, reported, raw, signature
        )
        if status in ("pending", "offline"):
            state.fleet.wake()
        return JSONResponse({"status": status})

    async def drain(request: Request) -> Response:
        body = _validated(DrainBody, await read_json(request))
        return JSONResponse(await state.drainer.drain(_token(request), body.node_id, body.timestamp_ms))

    async def workers(_: Request) -> Response:
        return JSONResponse(state.workers())

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reasons = state.not_ready()
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons, "alerts": state.alerts()},
            status_code=503 if reasons else 200,
        )

    async def metrics(_: Request) -> Response:
        return Response(state.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return Starlette(
        middleware=[Middleware(Gate, state=state)],
        routes=[
            Route(
                "/api/v1/register-worker",
                _counted(register, state.metrics.registrations, state),
                methods=["POST"],
            ),
            Route(
                "/api/v1/nodes/heartbeat",
                _counted(heartbeat, state.metrics.heartbeats, state),
                methods=["POST"],
            ),
            *request_http.routes(state),
            Route("/api/v1/nodes/drain", _counted(drain, state.metrics.drains, state), methods=["POST"]),
            Route("/api/v1/workers", workers),
            *findings_http.routes(state),
            *kubeconfig_api.routes(state),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={
            ApiError: _refused,
            HTTPException: _http_error,
            sqlite3.Error: _state_unwritable,
            Exception: _broken,
        },
    )


def _counted(handler: Handler, counter: Counter, state: State) -> Handler:
    async def counted(request: Request) -> Response:
        outcome = "internal"
        try:
            response = await handler(request)
            outcome = "ok"
        except ApiError as error:
            outcome = error.code
            if not state.refusal_log.take(source_of(request.client)):
                _log.info(
                    "request refused",
                    path=request.url.path,
                    code=error.code,
                    found=shown(error.found),
                    source=source_of(request.client),
                )
            raise
        finally:
            counter.labels(outcome).inc()
        return response

    return counted


def _token(request: Request) -> str | None:
    return request.headers.get("x-seal-token")


async def read_json(request: Request) -> dict[str, Any]:
    """The request's JSON object, never more than MAX_BODY_BYTES of it. Raises ApiError."""
    return json_object(await read_raw(request))


async def read_raw(request: Request) -> bytes:
    """The request's body as it came, if it is said to be JSON and not too long. Raises ApiError."""
    check_content_type(request.headers.get("content-type", ""))
    try:
        return await asyncio.wait_for(_read(request), BODY_TIMEOUT_S)
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
    except (ValueError, RecursionError):
        raise bad_request(f"{len(raw)} bytes that aren't JSON", "one JSON object") from None
    if not isinstance(body, dict):
        raise bad_request(f"a JSON {type(body).__name__}", "one JSON object")
    return body


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large(f"{declared} bytes announced")
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise too_large(f"more than {MAX_BODY_BYTES} bytes sent")
    return raw


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _validated(model: type[_Model], body: dict[str, Any]) -> _Model:
    try:
        checked = model.model_validate(body)
        check_node_id(checked.node_id)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_request(
            f"{where}: {first['msg']}", "node_id (text) and timestamp_ms (whole number)"
        ) from None
    except InvalidNodeId as error:
        raise bad_request(str(error), "an RFC 1123 label as node_id") from None
    return checked


def bad_request(found: str, wanted: str) -> ApiError:
    return ApiError("bad_request", "The request can't be read.", found, wanted, "Correct the request.")


def too_large(found: str) -> ApiError:
    return ApiError(
        "body_too_large",
        "The body is too large.",
        found,
        f"at most {MAX_BODY_BYTES} bytes",
        "Send only the documented fields.",
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"retry-after": "5"} if error.code in ("rate_limited", "not_ready") else {}
    if error.code == "body_too_large":
        headers["connection"] = "close"
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    found = f"{request.method} {request.url.path}"
    refusal = ApiError(code, "There is nothing here by that name and method.", found, "a documented path", "")
    return JSONResponse(refusal.body(), status_code=error.status_code, headers=error.headers)


async def _state_unwritable(request: Request, error: Exception) -> Response:
    # What can't be remembered isn't accepted: a timestamp that is forgotten could be replayed.
    _log.error("state can't be written", path=request.url.path, error=str(error))
    refusal = ApiError(
        "not_ready",
        "The master can't write its state.",
        "a state file that can't be written",
        "free space in its state directory",
        "Try again later; check the disk of the master.",
    )
    return await _refused(request, refusal)


async def _broken(request: Request, error: Exception) -> Response:
    # The traceback goes to the log; the caller learns nothing about our insides.
    _log.error("request broke", path=request.url.path, exc_info=error)
    refusal = ApiError("internal", "The master made a mistake.", "", "", "Look into its journal; try again.")
    return JSONResponse(refusal.body(), status_code=500)
