"""HTTP beside the RPC: the faucet in the shape of Sui's own (``POST /v2/gas``), and controls for tests.

The controls (``/admin/…``) move the clock and take the network back to snapshots. They answer only to this
machine and its private networks (bridges to test hosts), and only to JSON, which a page in a browser can't
send elsewhere without being allowed to.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .http import HttpProtocols
from .ledger import encoding
from .ledger.encoding import base58, hex_address
from .ledger.errors import NotFound, Refused
from .ledger.ledger import Ledger
from .ledger.store import Snapshot

DEFAULT_AMOUNT_MIST = 10 * 10**9
_MAX_BODY_BYTES = 64 * 1024
_TIMEOUT_S = 10.0
_MAX_ADVANCE_MS = 100 * 365 * 24 * 3600 * 1000


class Faucet:
    """Serves a ledger's faucet and controls.

    >>> faucet = Faucet(ledger)
    >>> port = await faucet.start("127.0.0.1", 0)
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        routes = [
            Route("/v2/gas", self._gas, methods=["POST"]),
            Route("/admin/clock", _control(self._clock), methods=["GET"]),
            Route("/admin/clock/advance", _control(self._advance), methods=["POST"]),
            Route("/admin/snapshots", _control(self._snapshots), methods=["GET"]),
            Route("/admin/snapshots/{name}", _control(self._save), methods=["PUT"]),
            Route("/admin/snapshots/{name}", _control(self._delete), methods=["DELETE"]),
            Route("/admin/snapshots/{name}/restore", _control(self._restore), methods=["POST"]),
        ]
        application = Starlette(routes=routes, exception_handlers={HTTPException: _failed})
        self._http = HttpProtocols(application)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and gives the port. :raises OSError: the address is taken or not this machine's."""
        self._server = await asyncio.get_running_loop().create_server(self._http.new, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._http.stop()
            self._server = None

    # --- the faucet

    async def _gas(self, request: Request) -> Response:
        body = await _body(request)
        try:
            wanted = json.loads(body)["FixedAmountRequest"]
            recipient = encoding.address(wanted["recipient"])
            amount = wanted.get("amount", DEFAULT_AMOUNT_MIST)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            shape = '{"FixedAmountRequest": {"recipient": "0x…"}}'
            raise HTTPException(400, f"wanted {shape}: {error}") from error
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount < 1 << 64:
            raise HTTPException(400, f"amount is a positive whole number of MIST, found {amount!r}")
        try:
            coin, digest = self._ledger.faucet(recipient, amount)
        except Refused as error:
            raise HTTPException(400, str(error)) from error
        sent = {"amount": amount, "id": hex_address(coin.object_id), "transferTxDigest": base58(digest)}
        return JSONResponse({"status": "Success", "coins_sent": [sent]})

    # --- the controls

    async def _clock(self, request: Request) -> Any:
        clock = self._ledger.clock
        return {"now_ms": clock.now_ms(), "ahead_ms": clock.ahead_ms}

    async def _advance(self, request: Request) -> Any:
        try:
            by_ms = json.loads(await _body(request))["by_ms"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HTTPException(400, f'wanted {{"by_ms": 60000}}: {error}') from error
        if not isinstance(by_ms, int) or isinstance(by_ms, bool) or not 0 <= by_ms <= _MAX_ADVANCE_MS:
            raise HTTPException(400, f"by_ms is a whole number from 0 to {_MAX_ADVANCE_MS}, found {by_ms!r}")
        self._ledger.clock.advance(by_ms)
        # Followers see the new time at once, and what waits for it can go on.
        self._ledger.seal_empty_checkpoint()
        return await self._clock(request)

    async def _snapshots(self, request: Request) -> Any:
        return {"snapshots": [_shown(snapshot) for snapshot in self._ledger.snapshots()]}

    async def _save(self, request: Request) -> Any:
        return _shown(self._ledger.save(request.path_params["name"]))

    async def _delete(self, request: Request) -> Any:
        self._ledger.delete_snapshot(request.path_params["name"])
        return {}

    async def _restore(self, request: Request) -> Any:
        return _shown(self._ledger.restore(request.path_params["name"]))


def _control(answer: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """Guards a control and turns what it gives into JSON."""

    @functools.wraps(answer)
    async def serve(request: Request) -> Response:
        if request.client is None or not _is_near(request.client.host):
            raise HTTPException(403, "the controls answer only to this machine and its private networks")
        if request.method != "GET" and request.headers.get("content-type", "") != "application/json":
            raise HTTPException(415, "wanted the header Content-Type: application/json")
        try:
            return JSONResponse(await answer(request))
        except NotFound as error:
            raise HTTPException(404, str(error)) from error
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    return serve


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_unspecified)


async def _body(request: Request) -> bytes:
    if "content-length" not in request.headers:
        raise HTTPException(411, "a Content-Length is wanted")
    if (length := int(request.headers["content-length"])) > _MAX_BODY_BYTES:
        raise HTTPException(413, f"found a body of {length} bytes, at most {_MAX_BODY_BYTES} are read")
    async with asyncio.timeout(_TIMEOUT_S):
        return await request.body()


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    return {"name": snapshot.name, "checkpoint": snapshot.checkpoint, "clock_ahead_ms": snapshot.clock_ms}


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    failure = {"status": {"Failure": {"Internal": str(error.detail)}}, "coins_sent": None}
    shown = {"error": str(error.detail)} if request.url.path.startswith("/admin/") else failure
    return JSONResponse(shown, error.status_code, headers=error.headers)
