"""The API's own description: an OpenAPI document of everything that is served."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from k3s_daas import openapi
from k3s_daas.openapi import Answer, Operation

PATH = "/api/v1/openapi.json"
SEAL_TOKEN = "sealToken"  # noqa: S105  a scheme's name
OWNER_TOKEN = "ownerToken"  # noqa: S105  another's
_DESCRIPTION = (
    "The K3s-DaaS master's API for workers, owners, operators, probes and browsers. Amounts are MIST, times "
    "ms since 1970. Every refusal has one shape: a code, what was found, what was wanted, and what to do."
)


class Description(BaseModel):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


def operation(operations: Sequence[Operation]) -> Operation:
    """The operation that serves the description of `operations` and of itself."""

    async def describe(_: Request) -> Response:
        return JSONResponse(document)

    described = Operation(
        "GET",
        PATH,
        describe,
        "This description",
        {200: Answer("An OpenAPI 3.1 document", Description)},
    )
    document = openapi.document(
        "K3s-DaaS master",
        version("k3s-daas"),
        _DESCRIPTION,
        [*operations, described],
        {
            SEAL_TOKEN: openapi.header_key("X-Seal-Token", "A worker's seal token: seal_ and 43 characters"),
            OWNER_TOKEN: openapi.header_key("X-Seal-Token", "An owner's seal token: seal_ and 43 characters"),
        },
    )
    return described
