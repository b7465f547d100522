"""`POST /api/v1/snapshot`: a sealed snapshot now, for the holder of the registry's OperatorCap.

Before an enclave is stopped for another image nobody can log in to it and stop it gently: this is the way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from k3s_daas.logs import get_logger
from k3s_daas.openapi import Answer, Operation
from k3s_daas.operator import HEADER, SNAPSHOT_PATH, OperatorBody, signer
from k3s_daas_master.authenticate import check_timestamp
from k3s_daas_master.bodies import bad_request, read_raw
from k3s_daas_master.errors import ApiError
from k3s_daas_master.schemas import SnapshotAnswer, errors

if TYPE_CHECKING:
    from k3s_daas_master.state import State

_log = get_logger("k3s_daas_master.snapshot")
_SIGNATURE = {
    "name": HEADER,
    "in": "header",
    "required": True,
    "description": "Base64 of the operator's signature as a Sui personal message (flag, signature, public "
    f"key) over `k3s-daas-operator-v1 POST {SNAPSHOT_PATH}`, a newline and the body's bytes",
    "schema": {"type": "string"},
}


def operations(state: State) -> list[Operation]:
    """The one operation."""

    async def seal(request: Request) -> Response:
        raw = await read_raw(request)
        address = _operator(state, request.headers.get(HEADER, ""), raw)
        try:
            body = OperatorBody.model_validate_json(raw)
        except ValidationError:
            raise bad_request("another body", "registry_id and timestamp_ms, and nothing else") from None
        if body.registry_id != state.config.registry_id:
            raise bad_request(f"registry_id {body.registry_id}", f"{state.config.registry_id}, this master's")
        check_timestamp(state.store, state.clock, "snapshot", address, body.timestamp_ms)
        _log.info("snapshot asked for", operator=address)
        made = await state.sealer.now()
        assert made.made is not None
        answer = SnapshotAnswer(
            counter=made.made.counter, hash=made.made.hash, copied_ms=made.copied_ms, bytes=made.bytes
        )
        headers = {"cache-control": "no-store"}
        return Response(answer.model_dump_json(), headers=headers, media_type="application/json")

    return [
        Operation(
            "POST",
            SNAPSHOT_PATH,
            seal,
            "Have a sealed snapshot of the master's state made now, and anchored on-chain",
            {
                200: Answer("It is anchored", SnapshotAnswer),
                **errors(
                    "bad_request",
                    "body_too_large",
                    "wrong_content_type",
                    "signature_invalid",
                    "not_operator",
                    "clock_skew",
                    "timestamp_replayed",
                    "rate_limited",
                    "not_ready",
                ),
            },
            body=OperatorBody,
            parameters=(_SIGNATURE,),
        )
    ]


def _operator(state: State, header: str, raw: bytes) -> str:
    """The address that signed `raw`, if it operates the registry now. Raises ApiError."""
    address = signer(SNAPSHOT_PATH, raw, header)
    if address is None:
        raise ApiError(
            "signature_invalid",
            "The request isn't signed.",
            f"no {HEADER} header" if not header else "a signature that doesn't hold",
            f"{HEADER}: base64 of a personal message's signature over the body",
            "Ask with the module sealed_snapshot.",
        )
    if state.operators.stale():
        raise ApiError(
            "not_ready",
            "The master doesn't know who operates the registry.",
            "a holder of the OperatorCap that was read long ago, or never",
            "one that was read within the last minute",
            "Try again in a few seconds; if it lasts, check the master's Sui endpoints.",
        )
    if not state.operators.includes(address):
        raise ApiError(
            "not_operator",
            "This wallet doesn't operate the registry.",
            f"a signature of {address}",
            "one of the holder of the registry's OperatorCap",
            "Use the wallet that holds it; a master without operator_cap_id takes nobody for an operator.",
        )
    return address
