"""Seal tokens: the secret a worker or an owner shows to the master.

A seal token is `seal_` and 43 characters of unpadded base64url: 32 bytes of the operating system's
randomness. Only its commitment, the sha256 of the token's ASCII text, ever leaves its holder for the chain,
so nothing on-chain gives it away. With 256 bits of entropy a plain hash is enough: there is nothing to guess,
so no salt and no slow hash are needed.

`library/seal_commitment.py` makes the same format with the standard library alone, on a worker's own Python.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

PREFIX = "seal_"
ENTROPY_BYTES = 32
TOKEN_LENGTH = len(PREFIX) + 43

_BODY = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# 43 characters hold 258 bits: the last two of them are 0.
_TOKEN = re.compile(PREFIX + r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)


class InvalidSealToken(ValueError):
    """The text isn't a seal token. The message tells its length and shape, never its characters."""


def make() -> str:
    """Return a new seal token with 256 bits of entropy."""
    return PREFIX + _encode(secrets.token_bytes(ENTROPY_BYTES))


def parse(text: str) -> str:
    """Return the seal token in `text`, without surrounding whitespace (a file's last newline).

    Raises InvalidSealToken for anything but the one canonical spelling: a token that could be written in two
    ways would have two commitments.
    """
    token = text.strip()
    if _TOKEN.fullmatch(token):
        return token
    wanted = f"wanted: {TOKEN_LENGTH} characters, '{PREFIX}' and 43 of A-Z a-z 0-9 - _"
    if not token:
        raise InvalidSealToken(f"seal token is empty; {wanted}. Give the file that `seal_commitment` wrote.")
    if len(token) != TOKEN_LENGTH:
        raise InvalidSealToken(f"seal token has {len(token)} characters; {wanted}. It may be cut off.")
    if not token.startswith(PREFIX):
        raise InvalidSealToken(f"seal token doesn't begin with '{PREFIX}'; {wanted}.")
    body = token[len(PREFIX) :]
    if not _BODY.fullmatch(body):
        raise InvalidSealToken(f"seal token has characters outside its alphabet; {wanted}.")
    raise InvalidSealToken("seal token's last character carries stray bits; it isn't one we made.")


def commitment(token: str) -> bytes:
    """Return the 32 bytes that stand for `token` on-chain: sha256 over its ASCII text.

    Raises InvalidSealToken when `token` isn't exactly a seal token.
    """
    if parse(token) != token:
        raise InvalidSealToken("seal token has whitespace around it; pass it through parse() first.")
    return hashlib.sha256(token.encode("ascii")).digest()


def equal(a: str | bytes, b: str | bytes) -> bool:
    """Compare two tokens or two commitments in constant time."""
    return hmac.compare_digest(_bytes(a), _bytes(b))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _bytes(value: str | bytes) -> bytes:
    # compare_digest refuses non-ASCII text; a visitor's header may hold anything.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
