"""Before anything else of a request: unknown seal tokens, and posts without one, are rationed per source.

A holder of a token that the chain knows is let through however much comes from its address, so a flood from
behind the same NAT costs it nothing. A flood is refused before its body is read, parsed or logged.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from k3s_daas import seal
from k3s_daas.logs import get_logger
from k3s_daas_master.errors import ApiError
from k3s_daas_master.ratelimit import source_of
from k3s_daas_master.state import State

_log = get_logger("k3s_daas_master.gate")


class Gate:
    """ASGI middleware for the public API. Answers 429 (`rate_limited`) to strangers with no tries left."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_strange(scope, self._state):
            await self._app(scope, receive, send)
            return
        source = source_of(scope["client"])
        wait_s = self._state.stranger_limiter.take(source)
        self._state.metrics.strangers.labels("refused" if wait_s else "heard").inc()
        if not wait_s:
            await self._app(scope, receive, send)
            return
        if not self._state.refusal_log.take(source):
            _log.info("request refused", path=scope["path"], code="rate_limited", source=source)
        await self._refusal(wait_s)(scope, receive, send)

    def _refusal(self, wait_s: float) -> JSONResponse:
        config = self._state.config
        error = ApiError(
            "rate_limited",
            "Too many requests with an unknown seal token from this address.",
            f"more than {config.unknown_token_burst} at once",
            f"{config.unknown_token_per_s:g} a second, or a token that the registry knows",
            f"Wait {wait_s:.1f} s, and compare the token with the one that was minted.",
        )
        # What follows of this request isn't read.
        headers = {"retry-after": "5", "connection": "close"}
        return JSONResponse(error.body(), status_code=error.status, headers=headers)


def is_strange(scope: Scope, state: State) -> bool:
    """Whether a request carries an unknown seal token, or is a post without one."""
    if not state.index.loaded:
        # Nobody is known yet; everybody hears that the master isn't ready.
        return False
    token = Headers(scope=scope).get("x-seal-token")
    if token is None:
        return bool(scope["method"] not in ("GET", "HEAD"))
    try:
        return state.index.find(seal.parse(token)) is None
    except seal.InvalidSealToken:
        return True
