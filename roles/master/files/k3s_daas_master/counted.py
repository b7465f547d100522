"""A handler whose outcomes are counted, and whose refusals are logged as far as a flood allows."""

from __future__ import annotations

import functools

from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from k3s_daas.logs import get_logger
from k3s_daas.openapi import Handler
from k3s_daas_master.errors import ApiError, shown
from k3s_daas_master.ratelimit import source_of
from k3s_daas_master.state import State

_log = get_logger("k3s_daas_master.http")


def counted(handler: Handler, counter: Counter, state: State) -> Handler:
    """`handler`, with "ok", an error's code or "internal" counted by `counter`."""

    @functools.wraps(handler)
    async def call(request: Request) -> Response:
        outcome = "internal"
        try:
            response = await handler(request)
            outcome = "ok"
        except ApiError as error:
            outcome = error.code
            if not state.refusal_log.take(source_of(request.client)):
                _log.info(
                    "request refused",
                    path=shown(request.url.path),
                    code=error.code,
                    found=shown(error.found),
                    source=source_of(request.client),
                )
            raise
        finally:
            counter.labels(outcome).inc()
        return response

    return call
