"""`GET /api/v1/findings`: what the slashing policy found, and the evidence for anybody to judge."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from k3s_daas_master.state import State


def routes(state: State) -> list[Route]:
    async def findings(_: Request) -> Response:
        return JSONResponse(state.policy.shown())

    async def evidence(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        known = re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
        path = state.policy.evidence_path(sha256)
        if not known or not path.is_file():
            raise HTTPException(404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    return [
        Route("/api/v1/findings", findings),
        Route("/api/v1/findings/{sha256}/evidence", evidence),
    ]
