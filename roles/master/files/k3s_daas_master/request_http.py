"""The API of requests, for their owners: post a body, ask for a status with its result, list one's own."""

from __future__ import annotations

from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from k3s_daas.openapi import Answer, Handler, Operation
from k3s_daas.requests.schema import MAX_BODY_BYTES, Envelope
from k3s_daas_master import description
from k3s_daas_master.bodies import read_bytes
from k3s_daas_master.counted import counted
from k3s_daas_master.errors import ApiError
from k3s_daas_master.owner_auth import REFUSALS, owner_of
from k3s_daas_master.request_rows import Row
from k3s_daas_master.schemas import RequestAnswer, RequestList, RequestResult, Shape, errors
from k3s_daas_master.state import State

_PATH = "/api/v1/requests"
_PATH_OF_ONE = f"{_PATH}/{{number}}"
_MAX_ID = 2**53
_NUMBER = {
    "name": "number",
    "in": "path",
    "required": True,
    "description": "The request_id that submitting it returned",
    "schema": {"type": "integer", "minimum": 0, "maximum": _MAX_ID - 1},
}
_OF_ONE = ("bad_request", "request_unknown")
_OF_A_BODY = (
    "body_too_large",
    "owner_not_eligible",
    "payload_mismatch",
    "request_refused",
    "request_over",
    "request_expired",
)


def operations(state: State) -> list[Operation]:
    """The operations below /api/v1/requests."""

    def owner(request: Request, *, writing: bool = False) -> str:
        return owner_of(request, state.index, state.view, writing=writing)

    async def post(request: Request) -> Response:
        # Who it is first: a body is read for nobody else.
        who = owner(request, writing=True)
        number = _number(request)
        state.request_intake.of_owner(who, number)
        row = state.request_intake.accept(who, number, await read_bytes(request, MAX_BODY_BYTES))
        return _answer(_status(row), 202)

    async def get(request: Request) -> Response:
        row = state.request_intake.of_owner(owner(request), _number(request))
        result = None if row.result is None else row.result.decode("utf-8")
        return _answer(RequestResult(**_status(row).model_dump(), result=result))

    async def listed(request: Request) -> Response:
        rows = state.request_intake.listed(owner(request))
        return _answer(RequestList(requests=[_status(row) for row in rows]))

    def operation(
        method: Literal["GET", "POST"],
        path: str,
        handler: Handler,
        summary: str,
        answers: dict[int, Answer],
        **more: Any,
    ) -> Operation:
        handler = counted(handler, state.metrics.request_calls, state)
        return Operation(method, path, handler, summary, answers, security=description.OWNER_TOKEN, **more)

    return [
        operation(
            "GET",
            _PATH,
            listed,
            "The owner's newest requests",
            {200: Answer("Without their results", RequestList), **errors(*REFUSALS)},
        ),
        operation(
            "GET",
            _PATH_OF_ONE,
            get,
            "What became of a request",
            {
                200: Answer("With its result, once there", RequestResult),
                **errors(*REFUSALS, *_OF_ONE),
            },
            parameters=(_NUMBER,),
        ),
        operation(
            "POST",
            _PATH_OF_ONE,
            post,
            "Hand in the body of a request that was submitted on-chain",
            {202: Answer("Taken", RequestAnswer), **errors(*REFUSALS, *_OF_ONE, *_OF_A_BODY)},
            parameters=(_NUMBER,),
            body=Envelope,
        ),
    ]


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) < _MAX_ID):
        raise ApiError(
            "bad_request",
            "This is no request's number.",
            f"{text!r:.60}",
            "the request_id that submitting it returned",
            "Correct the path.",
        )
    return int(text)


def _status(row: Row) -> RequestAnswer:
    return RequestAnswer(
        request_id=row.request_id,
        status=row.state.value,
        node_id=row.node_id,
        method=row.method,
        resource=row.resource,
        name=row.name,
        priority=row.priority,
        deposit_mist=row.deposit_mist,
        payload_hash=row.payload_hash.hex(),
        deadline_ms=row.deadline_ms,
        body_received_ms=row.body_ms,
        executed_ms=row.executed_ms,
        ended_ms=row.ended_ms,
        checkpoint=row.checkpoint,
        result_hash=row.result_hash.hex() if row.result_hash else None,
        error=row.error,
    )


def _answer(content: Shape, status: int = 200) -> Response:
    # A result is its owner's, and changes until the request is over.
    headers = {"cache-control": "no-store"}
    return Response(content.model_dump_json(), status, headers, media_type="application/json")
