"""The API by which a client has this master prove itself. It chooses a nonce, and nothing else."""

from __future__ import annotations

import base64
import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from k3s_daas.openapi import Answer, Operation
from k3s_daas_master.admission import limit_attestations
from k3s_daas_master.bodies import bad_request
from k3s_daas_master.schemas import AttestationAnswer, errors
from k3s_daas_master.state import State

PATH = "/api/v1/attestation"
_NONCE = re.compile(r"(?:[0-9a-f]{2}){32,64}", re.ASCII)


def operations(state: State) -> list[Operation]:
    """What is served here."""

    async def attest(request: Request) -> Response:
        limit_attestations(request, state)
        nonces = request.query_params.getlist("nonce")
        if len(nonces) != 1 or _NONCE.fullmatch(nonces[0]) is None:
            raise bad_request(
                f"a query with {len(nonces)} nonces, or one of another form",
                "one nonce: 32 to 64 random bytes, used once, in lower-case hex",
            )
        document = await state.attester.document(bytes.fromhex(nonces[0]))
        answer = AttestationAnswer(
            document=base64.b64encode(document).decode("ascii"),
            simulated=state.config.tee_mode == "simulated",
        )
        return JSONResponse(answer.model_dump(), headers={"cache-control": "no-store"})

    return [
        Operation(
            "GET",
            PATH,
            attest,
            "An attestation document by which this master proves itself, for k3s-daas attest and workers",
            {
                200: Answer("A COSE_Sign1 document of the security module", AttestationAnswer),
                **errors("bad_request", "not_attested", "rate_limited", "not_ready"),
            },
            parameters=(
                {
                    "name": "nonce",
                    "in": "query",
                    "required": True,
                    "description": "32 to 64 random bytes, used once, in lower-case hex",
                    "schema": {"type": "string", "pattern": "^([0-9a-f]{2}){32,64}$"},
                },
            ),
        )
    ]
