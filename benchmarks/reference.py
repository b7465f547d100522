"""The smallest TokenReview webhook, a yardstick for what ours costs: raw ASGI, one dictionary, no checks.

    REFERENCE_TOKENS=FILE granian --interface asgi --no-access-log reference:app

FILE has one known token a line. Whatever it is sent is taken for a TokenReview; who is known never changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

_known = {
    hashlib.sha256(token.encode()).digest(): number
    for number, token in enumerate(Path(os.environ["REFERENCE_TOKENS"]).read_text().split())
}
_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    message = await receive()
    token = _decode(message["body"])["spec"]["token"].encode()
    user = _known.get(hashlib.sha256(token).digest())
    body = _encode(
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "status": {
                "authenticated": user is not None,
                "user": {"username": "0x2c3dc44f", "uid": str(user), "groups": ["k3s-daas:owners"]},
            },
        }
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
