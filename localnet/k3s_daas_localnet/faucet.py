"""The faucet: HTTP in the shape of Sui's own, ``POST /v2/gas``.

Only what it needs of HTTP/1.1 is here; every connection serves one request.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .ledger import encoding
from .ledger.encoding import base58, hex_address
from .ledger.errors import Refused
from .ledger.ledger import Ledger

DEFAULT_AMOUNT_MIST = 10 * 10**9
_MAX_HEAD_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024
_TIMEOUT_S = 10.0
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
}


class _BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Faucet:
    """Gives away SUI over HTTP.

    >>> faucet = Faucet(ledger)
    >>> port = await faucet.start("127.0.0.1", 0)
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and gives the port. :raises OSError: the address is taken or not this machine's."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                try:
                    status, answer = 200, self._answer(*await _read(reader))
                except _BadRequest as error:
                    status, answer = error.status, _failure(str(error))
                except Refused as error:
                    status, answer = 400, _failure(str(error))
                body = json.dumps(answer).encode()
                head = (
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away, or is none
        finally:
            writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        if path != "/v2/gas":
            raise _BadRequest(404, f"found {path}, wanted /v2/gas")
        if method != "POST":
            raise _BadRequest(405, f"found {method}, wanted POST")
        try:
            request = json.loads(body)["FixedAmountRequest"]
            recipient = encoding.address(request["recipient"])
            amount = request.get("amount", DEFAULT_AMOUNT_MIST)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _BadRequest(
                400, f'wanted {{"FixedAmountRequest": {{"recipient": "0x…"}}}}: {error}'
            ) from error
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount < 1 << 64:
            raise _BadRequest(400, f"amount is a positive whole number of MIST, found {amount!r}")
        coin, digest = self._ledger.faucet(recipient, amount)
        sent = {"amount": amount, "id": hex_address(coin.object_id), "transferTxDigest": base58(digest)}
        return {"status": "Success", "coins_sent": [sent]}


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    """Method, path and body of a request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, _, rest = head[0].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    headers = {
        name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:])
    }
    length = headers.get("content-length", "0" if method == "GET" else "")
    if not length.isdecimal():
        raise _BadRequest(411, "a Content-Length is wanted")
    if int(length) > _MAX_BODY_BYTES:
        raise _BadRequest(413, f"found a body of {length} bytes, at most {_MAX_BODY_BYTES} are read")
    return method, path, await reader.readexactly(int(length))


def _failure(message: str) -> dict[str, Any]:
    return {"status": {"Failure": {"Internal": message}}, "coins_sent": None}
