"""The status page at `/` and the JSON it asks for. Static files of this package, nothing from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from k3s_daas.openapi import Answer, Operation
from k3s_daas_master.admission import limit_reads
from k3s_daas_master.overview import overview
from k3s_daas_master.schemas import Overview, errors
from k3s_daas_master.state import State

# What the page shows comes off a chain and from workers, where anybody may write: nothing but our own files
# runs, and the browser itself refuses to parse text as HTML (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Asked again each time: after an upgrade page and script belong together.
    "cache-control": "no-cache",
}
_FILES = {
    "/": ("index.html", "text/html"),
    "/status/status.css": ("status.css", "text/css"),
    "/status/status.js": ("status.js", "text/javascript"),
    "/status/figures.js": ("figures.js", "text/javascript"),
    "/status/icon.svg": ("icon.svg", "image/svg+xml"),
}


def operations(state: State) -> list[Operation]:
    """The page, its files, and /api/v1/overview."""

    async def overview_(request: Request) -> Response:
        limit_reads(request, state)
        body = overview(state).model_dump_json()
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    return [
        *(_file(path, name, media_type) for path, (name, media_type) in _FILES.items()),
        Operation(
            "GET",
            "/api/v1/overview",
            overview_,
            "Everything that the status page shows",
            {200: Answer("This master at a glance", Overview), **errors("rate_limited")},
        ),
    ]


def _file(path: str, name: str, media_type: str) -> Operation:
    content = (resources.files("k3s_daas_master") / "page" / name).read_bytes()
    method: Literal["GET"] = "GET"

    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Operation(method, path, serve, f"The status page: {name}", {200: Answer("The file", media_type)})
