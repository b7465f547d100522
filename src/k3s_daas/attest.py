"""Asking a master to prove itself: over TLS of the CA whose hash is on-chain, with a nonce and no secret."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from pathlib import Path

import httpx

from k3s_daas.attestation import AWS_ROOT, MAX_DOCUMENT_BYTES, Root, simulation_root

PATH = "/api/v1/attestation"
_MAX_ANSWER_BYTES = 2 * MAX_DOCUMENT_BYTES


class NoAnswer(Exception):
    """The master gave no document. The message says why; there is no secret it could hold.

    :ivar status: HTTP status of a refusal, None when there was no answer at all.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class InvalidRoot(Exception):
    """The configured simulation root can't be used; the message says what to do."""


def trusted_root(network: str, simulation_root_file: Path | None) -> Root:
    """AWS's root, or that of an emulator on a network where nothing is at stake. Raises InvalidRoot."""
    if simulation_root_file is None:
        return AWS_ROOT
    try:
        return simulation_root(simulation_root_file.read_bytes(), network)
    except (OSError, ValueError) as error:
        raise InvalidRoot(f"simulation root {simulation_root_file}: {error}") from None


async def fetch_document(endpoint: str, ca_pem: bytes | None, nonce: bytes, timeout_s: float = 10.0) -> bytes:
    """The document that the master at `endpoint` (https://host:port) answers to `nonce`. Raises NoAnswer.

    Nothing in it is checked. Neither proxies nor CAs of the environment are used. `ca_pem` is None before the
    CA is known: then the document, which is signed, is all there is to go by.
    """
    if not endpoint.startswith("https://"):
        raise NoAnswer(f"the master's on-chain endpoint {endpoint!r:.100} is no https://host:port")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_pem is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context.load_verify_locations(cadata=ca_pem.decode("ascii"))
        raw = b""
        async with (
            httpx.AsyncClient(
                base_url=endpoint,
                verify=context,
                timeout=timeout_s,
                trust_env=False,
                follow_redirects=False,
                headers={"Accept-Encoding": "identity"},
            ) as client,
            client.stream("GET", PATH, params={"nonce": nonce.hex()}) as response,
        ):
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > _MAX_ANSWER_BYTES:
                    raise NoAnswer(f"{endpoint} sent more than {_MAX_ANSWER_BYTES} bytes, wanted a document")
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, ValueError) as error:
        raise NoAnswer(f"{endpoint}: {error or type(error).__name__}") from None
    if status != httpx.codes.OK:
        raise NoAnswer(f"{endpoint} answered {status} ({_code(raw)}), wanted a document", status)
    try:
        return base64.b64decode(json.loads(raw)["document"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise NoAnswer(f"{endpoint} answered without a document") from None


def _code(raw: bytes) -> str:
    try:
        code = json.loads(raw)["error"]["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "no reason given"
    # It comes from whoever answers there, and goes to a terminal.
    return code if isinstance(code, str) and code.isidentifier() and len(code) <= 40 else "unknown reason"
