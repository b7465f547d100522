"""The API server's TokenReview webhook: which Kubernetes user holds this bearer token?

Only owners' tokens name a user. Every other token, whatever is wrong with it, gets the same answer, so that
nobody learns from it whether a token exists, is a worker's or has expired.
"""

from __future__ import annotations

from typing import Any

from k3s_daas import seal, tenancy
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex, TokenView

API_VERSION = "authentication.k8s.io/v1"


class TokenReviewer:
    """Answers from the index alone."""

    def __init__(self, index: TokenIndex, view: ChainView) -> None:
        self._index = index
        self._view = view

    def review(self, body: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """(authenticated, the TokenReview to answer with). Raises ApiError for what isn't a TokenReview."""
        spec = body.get("spec")
        token = spec.get("token") if isinstance(spec, dict) else None
        if (
            body.get("apiVersion") != API_VERSION
            or body.get("kind") != "TokenReview"
            or not isinstance(token, str)
        ):
            raise ApiError(
                "bad_request",
                "This isn't a TokenReview.",
                f"apiVersion {body.get('apiVersion')!r:.60}, kind {body.get('kind')!r:.60}",
                f"a TokenReview of {API_VERSION} with spec.token",
                "Start the API server with authentication-token-webhook-version=v1.",
            )
        owner = self._owner_of(token)
        status: dict[str, Any] = {"authenticated": False}
        if owner is not None:
            status = {
                "authenticated": True,
                "user": {
                    "username": owner.owner,
                    # Names the token in audit logs; the commitment is public.
                    "uid": owner.commitment.hex()[:32],
                    "groups": self._groups_of(owner.owner),
                },
            }
        return owner is not None, {"apiVersion": API_VERSION, "kind": "TokenReview", "status": status}

    def _groups_of(self, owner: str) -> list[str]:
        stale = not self._view.fresh()
        return tenancy.groups_of(owner, stale=stale, operator=owner == self._index.operator)

    def _owner_of(self, token: str) -> TokenView | None:
        try:
            view = self._index.find(token)
        except seal.InvalidSealToken:
            return None
        if view is None or view.scope != "owner" or view.revoked or self._view.dark():
            return None
        if view.expires_at_ms <= self._view.now_ms() or not self._index.owner_is_live(view.owner):
            return None
        return view
