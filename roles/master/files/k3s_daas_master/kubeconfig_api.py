"""`GET /api/v1/kubeconfig`: an owner's kubeconfig, for whoever shows that owner's live seal token.

It holds no token: kubectl gets that from `k3s-daas credential` on the owner's own machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from k3s_daas import kubeconfig, seal
from k3s_daas.openapi import Answer, Operation
from k3s_daas_master import description
from k3s_daas_master.errors import ApiError
from k3s_daas_master.schemas import errors

if TYPE_CHECKING:
    from k3s_daas_master.state import State

PATH = "/api/v1/kubeconfig"
_MINT = "Run playbooks/kubectl.yml, which makes one."
_REFUSALS = (
    "token_malformed",
    "token_unknown",
    "token_revoked",
    "token_expired",
    "worker_not_eligible",
    "rate_limited",
    "not_ready",
)


def operations(state: State) -> list[Operation]:
    """The one operation."""

    async def get(request: Request) -> Response:
        owner = owner_of(state, _token(request))
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
            {200: Answer("For kubectl", "application/yaml"), **errors(*_REFUSALS)},
            security=description.OWNER_TOKEN,
        )
    ]


def owner_of(state: State, token: str | None) -> str:
    """The owner whose live owner-scope token this is. Raises ApiError; no answer tells a token's part."""
    if not state.index.loaded or state.view.dark():
        raise ApiError(
            "not_ready",
            "The master's view of the chain is too old to tell who you are.",
            f"problem: {state.follower.problem}",
            "a fresh view",
            "Try again when the master follows the chain again.",
        )
    if not token:
        raise ApiError(
            "token_malformed",
            "The request carries no seal token.",
            "no Authorization header of the kind Bearer, no X-Seal-Token",
            "an owner's seal token in one of them",
            "Send it in the header.",
        )
    try:
        view = state.index.find(seal.parse(token))
    except seal.InvalidSealToken as error:
        raise ApiError(
            "token_malformed",
            "The seal token hasn't the shape of one.",
            str(error),
            "the seal token as it was made",
            "Compare it with its file; it may be cut off.",
        ) from None
    if view is None or view.scope != "owner":
        raise ApiError(
            "token_unknown",
            "This is no owner's token.",
            "a token of scope worker" if view else "a token whose commitment isn't on-chain",
            "an owner's seal token of this registry",
            _MINT,
        )
    if view.revoked:
        raise ApiError(
            "token_revoked",
            "The seal token was revoked.",
            f"generation {view.generation}",
            "a live token",
            _MINT,
        )
    if view.expires_at_ms <= state.view.now_ms():
        raise ApiError(
            "token_expired",
            "The seal token is expired.",
            f"generation {view.generation}",
            "a live token",
            _MINT,
        )
    if not state.index.owner_is_live(view.owner):
        raise ApiError(
            "worker_not_eligible",
            "The owner has no live worker.",
            "only workers that were slashed or are leaving, or none",
            "at least one live worker",
            "Stake a worker with playbooks/workers.yml.",
        )
    return view.owner


def _token(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" and value else request.headers.get("x-seal-token")
