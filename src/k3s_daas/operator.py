"""What an operator asks of a master over its API, signed by the wallet that holds the registry's OperatorCap.

A signature is that of a Sui personal message, so it can never pass for a transaction; the path, the registry
and a time that must rise are in what is signed, so it is good for one thing, once.
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k3s_daas.chain.keys import Key, signer_of

SNAPSHOT_PATH = "/api/v1/snapshot"
HEADER = "X-Operator-Signature"
_MAX_ANSWER_BYTES = 16_384


class NotDone(Exception):
    """The master didn't do it. The message says why; there is no secret it could hold.

    :ivar answered: whether the master refused; False when nobody answered, and it may be done or not.
    """

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class OperatorBody(BaseModel):
    """What is signed: for which registry, and when, by the operator's clock."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    registry_id: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    timestamp_ms: int = Field(ge=0, le=2**53)


class Sealed(BaseModel):
    """The snapshot that was made: its number, its file's SHA-256 (hex) and size.

    What was done until `copied_ms` is in it.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    counter: int
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    copied_ms: int
    bytes: int


@dataclass(frozen=True)
class Place:
    """Where the master answers (https://host:port), and the CA that it must show."""

    endpoint: str
    ca_pem: bytes


def _statement(path: str, body: bytes) -> bytes:
    return f"k3s-daas-operator-v1 POST {path}\n".encode() + body


def sign(key: Key, path: str, body: bytes) -> str:
    """The header's value for `body`, posted to `path`."""
    return base64.b64encode(key.sign_message(_statement(path, body))).decode("ascii")


def signer(path: str, body: bytes, header: str) -> str | None:
    """The address that signed `body` for `path`; None when the header doesn't hold."""
    try:
        signature = base64.b64decode(header, validate=True)
    except ValueError:
        return None
    return signer_of(_statement(path, body), signature)


async def ask_snapshot(
    place: Place, key: Key, registry_id: str, now_ms: int, timeout_s: float = 150.0
) -> Sealed:
    """Have the master at `place` make a snapshot now, and wait until it is anchored. Raises NotDone."""
    body = OperatorBody(registry_id=registry_id, timestamp_ms=now_ms).model_dump_json().encode()
    headers = {HEADER: sign(key, SNAPSHOT_PATH, body), "Content-Type": "application/json"}
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=place.ca_pem.decode("ascii"))
        raw = b""
        async with (
            httpx.AsyncClient(
                base_url=place.endpoint,
                verify=context,
                timeout=httpx.Timeout(timeout_s, connect=10),
                trust_env=False,
            ) as client,
            client.stream("POST", SNAPSHOT_PATH, content=body, headers=headers) as response,
        ):
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > _MAX_ANSWER_BYTES:
                    raise NotDone(f"{place.endpoint} sent more than {_MAX_ANSWER_BYTES} bytes", answered=True)
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as error:
        raise NotDone(f"{place.endpoint}: {error or type(error).__name__}", answered=False) from None
    if status != httpx.codes.OK:
        raise NotDone(f"{place.endpoint} answered {status}: {_refusal(raw)}", answered=True)
    try:
        return Sealed.model_validate_json(raw)
    except ValidationError:
        raise NotDone(f"{place.endpoint} answered without a snapshot", answered=True) from None


def _refusal(raw: bytes) -> str:
    """It comes from whoever answers there, and goes to a terminal."""
    try:
        error = json.loads(raw)["error"]
        text = f"{error['message']} Found {error['found']}, wanted {error['wanted']}. {error['fix']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        return "no reason given"
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:800]
