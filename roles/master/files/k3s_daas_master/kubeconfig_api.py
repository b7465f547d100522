"""`GET /api/v1/kubeconfig`: an owner's kubeconfig, for whoever shows that owner's live seal token.

It holds no token: kubectl gets that from `k3s-daas credential` on the owner's own machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from k3s_daas import kubeconfig
from k3s_daas.openapi import Answer, Operation
from k3s_daas_master import description
from k3s_daas_master.errors import ApiError
from k3s_daas_master.owner_auth import REFUSALS, owner_of
from k3s_daas_master.schemas import errors

if TYPE_CHECKING:
    from k3s_daas_master.state import State

PATH = "/api/v1/kubeconfig"


def operations(state: State) -> list[Operation]:
    """The one operation."""

    async def get(request: Request) -> Response:
        owner = owner_of(request, state.index, state.view)
        if not state.ca.pem:
            raise ApiError(
                "not_ready",
                "The master doesn't know the cluster's CA yet.",
                "no answer from k3s so far",
                "a running k3s server",
                "Try again in a few seconds.",
            )
        content = kubeconfig.build(state.config.api_server, state.ca.pem, owner)
        headers = {"content-type": "application/yaml", "cache-control": "no-store"}
        return Response(kubeconfig.text(content), headers=headers)

    return [
        Operation(
            "GET",
            PATH,
            get,
            "An owner's kubeconfig, without any token",
            {200: Answer("For kubectl", "application/yaml"), **errors(*REFUSALS)},
            security=description.OWNER_TOKEN,
        )
    ]
