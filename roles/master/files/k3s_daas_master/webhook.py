"""The webhooks' own HTTP server, on loopback: tens of thousands of checks a second, from the master's index.

Every bearer token, and what every node asks for, comes here unless the API server has the answer in its
cache, so these two paths have a server of their own (granian: HTTP in Rust, in threads of its own; our
handler runs in the master's event loop, beside what keeps the index) and a handler without a framework. Who
may ask is whoever reaches loopback, which is the API server: there is one source, and no limit per source
would tell a guest's flood from everybody else's kubectl.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder
from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope
from granian.server.embed import Server as Granian
from prometheus_client import Counter

from k3s_daas.logs import get_logger
from k3s_daas_master.bodies import BODY_TIMEOUT_S, MAX_BODY_BYTES, bad_request, check_content_type, too_large
from k3s_daas_master.errors import ApiError
from k3s_daas_master.nodeaccess import NodeAccess
from k3s_daas_master.tokenreview import TokenReviewer

PATH = "/token-review"
ACCESS_PATH = "/node-access"
# More than this of a body that is too large isn't even read to be thrown away. Less is, so that its sender
# gets to read the refusal: the API server asks again when a connection breaks.
_MAX_DISCARDED_BYTES = 8 * 1024 * 1024
_MAX_CONNECTIONS = 1024
# A kept connection is closed after this time too; the API server's client gives up after 90 s by itself.
_HEADER_TIMEOUT_MS = 45_000
_LOOK_EVERY_S = 1.0
_JSON = [("content-type", "application/json")]
_log = get_logger("k3s_daas_master.webhook")
# Body → (outcome, answer), and what counts each outcome.
_Check = tuple[Callable[[bytes], tuple[bool, bytes]], Counter, Counter]


class Webhook:
    """The RSGI application: TokenReviews and SubjectAccessReviews in, the same out, and nothing else."""

    def __init__(
        self, reviewer: TokenReviewer, reviews: Counter, access: NodeAccess, accesses: Counter
    ) -> None:
        self._reviews = {PATH: reviews, ACCESS_PATH: accesses}
        # Outcomes are looked up once: prometheus' own lookup takes as long as a check.
        self._checks: dict[str, _Check] = {
            PATH: (reviewer.review, reviews.labels("authenticated"), reviews.labels("refused")),
            ACCESS_PATH: (access.review, accesses.labels("denied"), accesses.labels("no_opinion")),
        }
        self._reading: dict[asyncio.Task[Any], float] = {}

    async def __call__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request; never raises."""
        try:
            check, yes, no = self._check(scope)
            if scope.method != "POST":
                raise _nothing_here("method_not_allowed", scope)
            headers = scope.headers
            check_content_type(headers.get("content-type", ""))
            body = await self._body(protocol, headers.get("content-length"))
            outcome, answer = check(body)
            (yes if outcome else no).inc()
            protocol.response_bytes(200, _JSON, answer)
        except ApiError as error:
            self._reviews.get(scope.path, self._reviews[PATH]).labels(error.code).inc()
            _refuse(protocol, error, {"allow": "POST"} if error.code == "method_not_allowed" else {})
        except Exception:
            self._reviews[scope.path].labels("internal").inc()
            # The traceback goes to the log; the caller learns nothing about our insides.
            _log.exception("review broke", path=scope.path)
            _refuse(protocol, ApiError("internal", "The master made a mistake."), {})

    def _check(self, scope: Scope) -> _Check:
        found = self._checks.get(scope.path)
        if found is None:
            raise _nothing_here("not_found", scope)
        return found

    async def _body(self, protocol: HTTPProtocol, declared: str | None) -> bytes:
        """The request's body, never more than MAX_BODY_BYTES of it. Raises ApiError."""
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = time.monotonic()
        try:
            # The server has checked that it is a number, and gives out no more than that.
            if declared is not None and int(declared) <= MAX_BODY_BYTES:
                whole: bytes = await protocol()
                return whole
            return await _chunks(protocol)
        except asyncio.CancelledError:
            raise bad_request(f"no whole body within {BODY_TIMEOUT_S:g} s", "a body sent at once") from None
        except (ProtocolClosed, ProtocolError):
            raise bad_request("a connection closed before the body's end", "a whole body") from None
        finally:
            del self._reading[task]

    async def give_up_on_slow(self, after_s: float = BODY_TIMEOUT_S) -> None:
        """Refuse requests whose body takes longer than that, until cancelled; then refuse all there are.

        One look a second at all of them: a timer for each would cost a sixth of a check.
        """
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                self._cancel_reading(time.monotonic() - after_s)
        finally:
            self._cancel_reading(float("inf"))

    def _cancel_reading(self, since_before: float) -> None:
        for task, since in list(self._reading.items()):
            if since > since_before:
                break
            task.cancel()


def _refuse(protocol: HTTPProtocol, error: ApiError, headers: Mapping[str, str]) -> None:
    protocol.response_bytes(error.status, [*_JSON, *headers.items()], msgspec.json.encode(error.body()))


async def _chunks(protocol: HTTPProtocol) -> bytes:
    kept, read = b"", 0
    async for chunk in protocol:
        read += len(chunk)
        if read <= MAX_BODY_BYTES:
            kept += chunk
        elif read > _MAX_DISCARDED_BYTES:
            break
    if read > MAX_BODY_BYTES:
        raise too_large(f"more than {MAX_BODY_BYTES} bytes sent")
    return kept


def _nothing_here(code: str, scope: Scope) -> ApiError:
    return ApiError(
        code,
        "There is nothing here by that name and method.",
        f"{scope.method} {scope.path}",
        f"POST {PATH} or {ACCESS_PATH}",
        "Correct the URL in the API server's webhook configuration.",
    )


class WebhookServer:
    """Serves a Webhook on a bound socket."""

    def __init__(self, app: Webhook, bound: socket.socket) -> None:
        self._app = app
        self._server = _Server(app, bound)
        self._guard: asyncio.Task[None] | None = None
        #: Set once connections are taken.
        self.up = self._server.up

    async def serve(self) -> None:
        """Serve until `stop`, and then until what is under way is answered; a slow request holds that up."""
        self._guard = asyncio.create_task(self._app.give_up_on_slow())
        try:
            await self._server.serve()
        finally:
            self._guard.cancel()

    def stop(self) -> None:
        """Take no more requests; one whose body hasn't come yet is refused."""
        if self._guard is not None:
            self._guard.cancel()
        self._server.stop()


class _Server(Granian):  # type: ignore[misc]
    """granian on a socket that is already bound, without its logs.

    granian binds by itself and with SO_REUSEPORT: a second process of our user could take half of the checks,
    and a port in use would show only when the service is about to run. That one step is replaced.
    """

    def __init__(self, app: Webhook, bound: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            # Also what limits the connections at one time.
            backlog=_MAX_CONNECTIONS,
            runtime_blocking_threads=1,
            http1_settings=HTTP1Settings(
                header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=2 * MAX_BODY_BYTES
            ),
            # Only granian's own logger is touched; otherwise it would close the handlers of everybody's.
            log_dictconfig={"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}},
            log_enabled=False,
        )
        self._bound = bound
        self.up = asyncio.Event()

    def _init_shared_socket(self) -> None:
        self._bound.listen(self.backlog)
        # granian closes what it is given.
        self._shd = SocketHolder(os.dup(self._bound.fileno()), False, self.backlog)

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        super().startup(spawn_target, target_loader)
        self.up.set()
