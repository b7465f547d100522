"""The API for workers, owners, operators and browsers, over TLS; the API server's webhook is in `webhook`."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from k3s_daas import openapi
from k3s_daas.logs import get_logger
from k3s_daas.openapi import Answer, Operation
from k3s_daas.registry import check_node_id
from k3s_daas_master import (
    attestation_http,
    description,
    findings_http,
    kubeconfig_api,
    request_http,
    snapshot_http,
    statuspage,
    workers,
)
from k3s_daas_master.admission import limit_reads, limit_registrations
from k3s_daas_master.bodies import bad_request, json_object, read_json, read_raw
from k3s_daas_master.counted import counted
from k3s_daas_master.errors import ApiError
from k3s_daas_master.gate import Gate
from k3s_daas_master.heartbeats import Reported
from k3s_daas_master.metrics import CONTENT_TYPE
from k3s_daas_master.schemas import (
    DrainAnswer,
    HeartbeatAnswer,
    ReadyAnswer,
    RegisterAnswer,
    WorkersAnswer,
    errors,
)
from k3s_daas_master.signatures import parse_public_key
from k3s_daas_master.state import State
from k3s_daas_master.traffic import TrafficMiddleware

_MAX_U64 = 2**64 - 1
_log = get_logger("k3s_daas_master.http")

# What can go wrong with any request of a worker, and with a registration or a heartbeat besides.
_OF_A_WORKER = (
    "bad_request",
    "body_too_large",
    "wrong_content_type",
    "token_malformed",
    "token_unknown",
    "token_revoked",
    "node_mismatch",
    "worker_slashed",
    "worker_not_eligible",
    "clock_skew",
    "timestamp_replayed",
    "rate_limited",
    "not_ready",
)
_OF_A_REGISTRATION = ("token_expired",)
_OF_A_HEARTBEAT = ("signature_invalid",)
_SIGNATURE = {
    "name": "X-Worker-Signature",
    "in": "header",
    "required": False,
    "description": "Base64 of the Ed25519 signature over the body's bytes, by the key that was registered",
    "schema": {"type": "string"},
}

_Model = TypeVar("_Model", bound="_Body")

# What a worker reports of itself is shown to others: plain names, numbers that JSON has, short text.
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
_Figure = (
    Annotated[int, Field(ge=-(2**63), le=_MAX_U64)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[str, Field(max_length=64)]
)


class _Body(BaseModel):
    # Unknown keys are let through: an older master serves a newer watcher.
    model_config = ConfigDict(strict=True, extra="ignore")

    node_id: Annotated[
        str,
        AfterValidator(check_node_id),
        WithJsonSchema({"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
    ]
    timestamp_ms: Annotated[int, Field(ge=0, le=2**53)]


class RegisterBody(_Body):
    """register-worker; `timestamp_ms` is the worker's clock, `public_key` base64 of 32 bytes (Ed25519)."""

    public_key: (
        Annotated[str, Field(max_length=64, json_schema_extra={"pattern": "^[A-Za-z0-9+/]{43}=$"})] | None
    ) = None


class DrainBody(_Body):
    """A worker's wish to have its node emptied; `timestamp_ms` as in a heartbeat."""


class HeartbeatBody(_Body):
    """A heartbeat. What isn't name, time or certificate is for display only."""

    stake_status: Annotated[str, Field(max_length=32)] = ""
    stake_mist: Annotated[int, Field(ge=0, le=_MAX_U64)] | None = None
    running_pods: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    resource_usage: Annotated[dict[_Key, _Figure | None], Field(max_length=32)] = {}
    certificates: Annotated[
        list[_Sha256],
        Field(
            max_length=4,
            description="SHA-256 of the node's own; see docs/nodes.md",
        ),
    ] = []


def api_app(state: State) -> Starlette:
    """The API for workers, owners, operators, probes and browsers."""
    operations = [
        *_operations(state),
        *attestation_http.operations(state),
        *request_http.operations(state),
        *findings_http.operations(state),
        *kubeconfig_api.operations(state),
        *snapshot_http.operations(state),
        *statuspage.operations(state),
    ]
    return _app(openapi.routes([*operations, description.operation(operations)]), state)


def _operations(state: State) -> list[Operation]:
    async def register(request: Request) -> Response:
        limit_registrations(request, state)
        state.attester.check_joining()
        state.sealer.check_joining()
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
            _token(request), body.node_id, body.timestamp_ms, reported, raw, signature, body.certificates
        )
        if status in ("pending", "offline"):
            state.fleet.wake()
        return JSONResponse({"status": status})

    async def drain(request: Request) -> Response:
        body = _validated(DrainBody, await read_json(request))
        return JSONResponse(await state.drainer.drain(_token(request), body.node_id, body.timestamp_ms))

    async def workers_(request: Request) -> Response:
        limit_reads(request, state)
        return Response(workers.answer(state).model_dump_json(), media_type="application/json")

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reasons = state.not_ready()
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons, "alerts": state.alerts()},
            status_code=503 if reasons else 200,
        )

    async def metrics(request: Request) -> Response:
        limit_reads(request, state)
        return Response(state.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return [
        Operation(
            "POST",
            "/api/v1/register-worker",
            counted(register, state.metrics.registrations, state),
            "Exchange a worker's seal token for a bootstrap token and its node's password",
            {200: Answer("What to join with", RegisterAnswer), **errors(*_OF_A_WORKER, *_OF_A_REGISTRATION)},
            body=RegisterBody,
            security=description.SEAL_TOKEN,
        ),
        Operation(
            "POST",
            "/api/v1/nodes/heartbeat",
            counted(heartbeat, state.metrics.heartbeats, state),
            "Say that a worker is alive",
            {200: Answer("Its status on-chain", HeartbeatAnswer), **errors(*_OF_A_WORKER, *_OF_A_HEARTBEAT)},
            body=HeartbeatBody,
            parameters=(_SIGNATURE,),
            security=description.SEAL_TOKEN,
        ),
        Operation(
            "POST",
            "/api/v1/nodes/drain",
            counted(drain, state.metrics.drains, state),
            "Cordon and empty a worker's node, because its owner wants to leave",
            {200: Answer("How far it got; ask again until drained", DrainAnswer), **errors(*_OF_A_WORKER)},
            body=DrainBody,
            security=description.SEAL_TOKEN,
        ),
        Operation(
            "GET",
            "/api/v1/workers",
            workers_,
            "Every worker of the registry, and the pool in figures",
            {200: Answer("The registry as this master sees it", WorkersAnswer), **errors("rate_limited")},
        ),
        Operation(
            "GET", "/healthz", healthz, "Whether the process lives", {200: Answer("It does", "text/plain")}
        ),
        Operation(
            "GET",
            "/readyz",
            readyz,
            "Whether this master can do all of its work",
            {200: Answer("It can", ReadyAnswer), 503: Answer("It can't, and why", ReadyAnswer)},
        ),
        Operation(
            "GET",
            "/metrics",
            metrics,
            "Metrics for Prometheus",
            {200: Answer("Text format 0.0.4", "text/plain"), **errors("rate_limited")},
        ),
    ]


def _app(routes: list[Route], state: State) -> Starlette:
    paths: dict[object, str] = {route.endpoint: route.path for route in routes}
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(TrafficMiddleware, traffic=state.metrics.traffic, paths=paths),
            Middleware(Gate, state=state),
        ],
        exception_handlers={
            ApiError: _refused,
            HTTPException: _http_error,
            sqlite3.Error: _state_unwritable,
            Exception: _broken,
        },
    )


def _token(request: Request) -> str | None:
    return request.headers.get("x-seal-token")


def _validated(model: type[_Model], body: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise bad_request(
            f"{where}: {first['msg'].removeprefix('Value error, ')}",
            "node_id (an RFC 1123 label), timestamp_ms (whole number), and what the API's description names",
        ) from None


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
