"""The loopback API: what the watcher knows for everybody on the host, commands for who has the seal token."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from k3s_daas import logs, openapi
from k3s_daas.openapi import Answer, Operation

from . import answers, views
from .clock import Clock
from .control import Control
from .errors import Exit, Refusal
from .guard import Denied, Guard
from .master_client import TOKEN_HEADER
from .prometheus import CONTENT_TYPE, Exporter
from .unstake import Unstaker
from .watcher import Watcher

log = logs.get_logger(__name__)

MAX_BODY_BYTES = 1024
BODY_TIMEOUT_S = 5.0
# How long a command waits for root's answer, in steps.
ROOT_WAIT_S, ROOT_POLL_S = 5.0, 0.2

_NO_STORE = {"Cache-Control": "no-store"}
_UNAVAILABLE = {
    Exit.CHAIN_UNREACHABLE,
    Exit.CHAIN_DISAGREES,
    Exit.WRONG_NETWORK,
    Exit.MASTER_NOT_ANNOUNCED,
    Exit.MASTER_UNREACHABLE,
    Exit.CA_MISMATCH,
}
_REFUSED = {
    400: Answer("The body can't be read", answers.Error),
    401: Answer("Not this worker's seal token", answers.Error),
    409: Answer("Another worker is meant, or it can't be done now; the error says why", answers.Error),
    413: Answer(f"More than {MAX_BODY_BYTES} bytes", answers.Error),
    429: Answer("Too many commands", answers.Error),
    503: Answer("The chain, the master or root doesn't answer", answers.Error),
}


class Api:
    """The handlers. `root` is the way to the root oneshot."""

    def __init__(
        self, watcher: Watcher, clock: Clock, guard: Guard, root: Control, unstaker: Unstaker
    ) -> None:
        self._watcher = watcher
        self._clock = clock
        self._guard = guard
        self._root = root
        self._unstaker = unstaker
        self._exporter = Exporter(watcher)

    def operations(self) -> list[Operation]:
        """All that is served, and what the OpenAPI document says of it."""
        return [
            Operation(
                "GET",
                "/health",
                self.health,
                "How the worker is",
                {
                    200: Answer("All is well", answers.Health),
                    503: Answer("Something is wrong", answers.Health),
                },
            ),
            Operation(
                "GET",
                "/api/v1/staking",
                self.staking,
                "Stake, status, and the seal token's generation and expiry",
                {200: Answer("As last agreed by all endpoints that answered", answers.Staking)},
            ),
            Operation(
                "GET",
                "/api/v1/metrics",
                self.usage,
                "Resource usage and running pods",
                {200: Answer("Figures of now", answers.Usage)},
            ),
            Operation(
                "GET",
                "/api/v1/config",
                self.config,
                "What the watcher was told, without secrets",
                {200: Answer("The configuration", answers.Configuration)},
            ),
            Operation(
                "GET",
                "/metrics",
                self.metrics,
                "For Prometheus",
                {200: Answer("Text format 0.0.4", "text/plain")},
            ),
            Operation(
                "GET",
                "/api/v1/openapi.json",
                self.described,
                "This document",
                {200: Answer("OpenAPI 3.1", "application/json")},
            ),
            Operation(
                "POST",
                "/api/v1/register",
                self.register,
                "Have root run the registration again",
                {
                    200: Answer("Root started it", answers.Registration),
                    202: Answer("Root hasn't answered yet", answers.Registration),
                    **_REFUSED,
                },
                body=answers.Target,
                security="sealToken",
            ),
            Operation(
                "POST",
                "/api/v1/unstake",
                self.unstake,
                "Drain the node; then the transaction for the owner to sign",
                {
                    200: Answer("The node is empty; sign", answers.Unstaked),
                    202: Answer("Pods are left; call again", answers.Draining),
                    **_REFUSED,
                },
                body=answers.Target,
                security="sealToken",
            ),
        ]

    # -- reading -------------------------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        found = views.report(self._watcher, self._clock)
        return _json(found, 200 if found.status == "ok" else 503)

    async def staking(self, _: Request) -> Response:
        return _json(views.staking(self._watcher, self._clock))

    async def usage(self, _: Request) -> Response:
        return _json(views.usage(self._watcher, self._clock))

    async def config(self, _: Request) -> Response:
        return _json(views.configuration(self._watcher.config))

    async def metrics(self, _: Request) -> Response:
        return Response(self._exporter.render(), headers=_NO_STORE | {"Content-Type": CONTENT_TYPE})

    async def described(self, _: Request) -> Response:
        header = openapi.header_key(TOKEN_HEADER, "The worker's seal token")
        about = "The watcher of a worker, on its own host's loopback. Times in ms since 1970, MIST as text."
        document = openapi.document("K3s-DaaS watcher", "1", about, self.operations(), {"sealToken": header})
        return JSONResponse(document)

    # -- commanding ----------------------------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        await self._commanded(request)
        if self._root.pending():
            raise Denied(409, _refusal("busy", "root has a request to carry out", "one under way", "none"))
        try:
            asked = self._root.ask("register", "commanded", self._clock.now_ms())
        except OSError as error:
            why = f"{error.strerror}"
            raise Denied(
                503, _refusal("state_unwritable", "root can't be asked", why, "disk space")
            ) from None
        end = self._clock.monotonic() + ROOT_WAIT_S
        while (answer := self._root.answer(asked)) is None and self._clock.monotonic() < end:
            await self._clock.sleep(ROOT_POLL_S)
        if answer is None:
            detail = "see the journal of k3s-daas-agent-control.service"
            return _json(answers.Registration(status="requested", request_id=asked, detail=detail), 202)
        if answer.result == "failed":
            raise Denied(409, _refusal("refused", "root didn't do it", answer.detail, "a worker in service"))
        return _json(answers.Registration(status="started", request_id=asked, detail=answer.detail))

    async def unstake(self, request: Request) -> Response:
        await self._commanded(request)
        found = await self._unstaker.unstake()
        return _json(found, 200 if isinstance(found, answers.Unstaked) else 202)

    async def _commanded(self, request: Request) -> None:
        """Raises Denied unless the seal token's holder means this worker."""
        self._guard.check(request.headers.get(TOKEN_HEADER))
        target = answers.Target.model_validate_json(await _read(request))
        wanted = self._watcher.config.node_id
        if target.node_id != wanted:
            raise Denied(409, _refusal("other_worker", "this is another worker", target.node_id, wanted))
        log.warning("command taken", path=request.url.path)


def application(api: Api) -> Starlette:
    """The routes of `api`, with every refusal in one shape."""
    return _application(api.operations())


def metrics_application(api: Api) -> Starlette:
    """What an address that others reach answers: the metrics, and nothing that commands."""
    return _application([one for one in api.operations() if one.path == "/metrics"])


def _application(operations: list[Operation]) -> Starlette:
    return Starlette(
        routes=list(openapi.routes(operations)),
        exception_handlers={
            Denied: _denied,
            Refusal: _refused,
            ValidationError: _unreadable,
            HTTPException: _no_such,
            Exception: _broken,
        },
    )


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    raw = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > MAX_BODY_BYTES or (declared.isdigit() and int(declared) > MAX_BODY_BYTES):
                    found = f"more than {MAX_BODY_BYTES} bytes"
                    raise Denied(413, _refusal("body_too_large", "the body is too large", found, "node_id"))
    except TimeoutError:
        found = f"no whole body within {BODY_TIMEOUT_S:g} s"
        raise Denied(400, _refusal("bad_request", "the body can't be read", found, "it at once")) from None
    except ClientDisconnect:
        raise Denied(400, _refusal("bad_request", "the body can't be read", "its end", "all of it")) from None
    return raw


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        body.model_dump_json(), status, headers=_NO_STORE | (headers or {}), media_type="application/json"
    )


def _refusal(code: str, message: str, found: str, wanted: str) -> Refusal:
    return Refusal(code, message, found=found, wanted=wanted, fix="correct the request, or try again later")


def _error(refusal: Refusal, status: int, headers: dict[str, str] | None = None) -> Response:
    problem = answers.Problem(
        code=refusal.code,
        message=refusal.message,
        found=logs.redact(refusal.found)[:500],
        wanted=refusal.wanted,
        fix=refusal.fix,
    )
    return _json(answers.Error(error=problem), status, headers)


async def _denied(_: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if error.status in (400, 413):
        # The rest of the body isn't read.
        headers["Connection"] = "close"
    return _error(error.refusal, error.status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(error, 503 if error.exit_code in _UNAVAILABLE else 409)


async def _unreadable(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors(include_url=False, include_input=False)[0]
    found = f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    return _error(_refusal("bad_request", "the body can't be read", found, '{"node_id": "…"}'), 400)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    found = f"{request.method} {request.url.path}"[:200]
    refusal = _refusal(code, "there is nothing here by that name and method", found, "/api/v1/openapi.json")
    return _error(refusal, error.status_code, dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    # The traceback goes to the journal; the caller learns nothing about our insides.
    log.error("request broke", path=request.url.path, exc_info=error)
    return _error(_refusal("internal", "the watcher made a mistake", "", "none; see its journal"), 500)
