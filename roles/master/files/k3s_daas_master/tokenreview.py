"""The API server's TokenReview webhook: which Kubernetes user holds this bearer token?

Only owners' tokens name a user. Every other token, whatever is wrong with it, gets the same answer, so that
nobody learns from it whether a token exists, is a worker's or has expired. Nothing here asks the chain.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from k3s_daas import seal, tenancy
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.operators import Operators

API_VERSION = "authentication.k8s.io/v1"


class _Spec(msgspec.Struct):
    token: str


class _Review(msgspec.Struct):
    """What we read of a TokenReview; what else the API server puts in is let through."""

    apiVersion: Literal["authentication.k8s.io/v1"]
    kind: Literal["TokenReview"]
    spec: _Spec


class User(msgspec.Struct, frozen=True):
    """A Kubernetes user; `uid` names the token in audit logs."""

    username: str
    uid: str
    groups: list[str]


class _Status(msgspec.Struct, omit_defaults=True):
    authenticated: bool
    user: User | None = None


class _Answer(msgspec.Struct):
    status: _Status
    apiVersion: str = API_VERSION
    kind: str = "TokenReview"


_decode = msgspec.json.Decoder(_Review).decode
_encode = msgspec.json.Encoder().encode
_REFUSED = _encode(_Answer(_Status(False)))


class TokenReviewer:
    """Answers from the index alone."""

    def __init__(self, index: TokenIndex, view: ChainView, operators: Operators) -> None:
        self._index = index
        self._view = view
        self._operators = operators

    def review(self, body: bytes) -> tuple[bool, bytes]:
        """(authenticated, the TokenReview to answer with). Raises ApiError for what isn't a TokenReview."""
        try:
            token = _decode(body).spec.token
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(
                "bad_request",
                "This isn't a TokenReview.",
                f"{len(body)} bytes: {error}",
                f"a TokenReview of {API_VERSION} with spec.token",
                "Start the API server with authentication-token-webhook-version=v1.",
            ) from None
        user = self._user_of(token)
        return (False, _REFUSED) if user is None else (True, _encode(_Answer(_Status(True, user))))

    def _user_of(self, token: str) -> User | None:
        try:
            view = self._index.find(token)
        except seal.InvalidSealToken:
            return None
        if view is None or view.scope != "owner" or view.revoked or self._view.dark():
            return None
        if view.expires_at_ms <= self._view.now_ms():
            return None
        # A review can't see what is asked for, so a stale view takes the right to write away altogether.
        groups = tenancy.groups_of(
            view.owner,
            stale=not self._view.fresh(),
            live=self._index.owner_is_live(view.owner),
            operator=self._operators.includes(view.owner),
            operator_stale=self._operators.stale(),
        )
        # The commitment is public, so a part of it may stand in logs.
        return User(view.owner, view.commitment.hex()[:32], groups) if groups else None
