"""`GET /api/v1/findings`: what the slashing policy found, and the evidence for anybody to judge."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from k3s_daas.openapi import Answer, Operation
from k3s_daas_master.admission import limit_reads
from k3s_daas_master.schemas import FindingsAnswer, errors
from k3s_daas_master.state import State

_SHA256 = {
    "name": "sha256",
    "in": "path",
    "required": True,
    "description": "The evidence's, as the finding has it",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}


def operations(state: State) -> list[Operation]:
    """The findings and their evidence."""

    async def findings(request: Request) -> Response:
        limit_reads(request, state)
        return JSONResponse(state.policy.shown())

    async def evidence(request: Request) -> Response:
        limit_reads(request, state)
        sha256 = request.path_params["sha256"]
        if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
            raise HTTPException(404)
        path = state.policy.evidence_path(sha256)
        if not path.is_file():
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    return [
        Operation(
            "GET",
            "/api/v1/findings",
            findings,
            "Offences that the master found",
            {200: Answer("The findings", FindingsAnswer), **errors("rate_limited")},
        ),
        Operation(
            "GET",
            "/api/v1/findings/{sha256}/evidence",
            evidence,
            "What proves a finding",
            {
                200: Answer("The evidence whose hash is on-chain", "application/octet-stream"),
                **errors("not_found", "rate_limited"),
            },
            parameters=(_SHA256,),
        ),
    ]
