"""From a header's text to an owner, for what owners ask of the master's own API."""

from __future__ import annotations

from k3s_daas import seal
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.index import TokenIndex


def owner_of(index: TokenIndex, view: ChainView, header: str | None, *, writing: bool) -> str:
    """The owner whose live token `header` is. Raises ApiError.

    As with kubectl: on a stale view of the chain owners only read, on a dark one not even that. Whatever is
    wrong with a token, the answer is the same, except that it has no token's shape.
    """
    if not header:
        raise _malformed("no X-Seal-Token header")
    try:
        token = index.find(seal.parse(header))
    except seal.InvalidSealToken as error:
        raise _malformed(str(error)) from None
    if not index.loaded or view.dark() or (writing and not view.fresh()):
        age = view.age_ms()
        raise ApiError(
            "not_ready",
            "The master's view of the chain isn't good enough for this.",
            "no view yet" if age is None else f"a view of {age // 1000} s",
            f"at most {STALE_MS // 1000} s to write",
            "Try again in a few seconds; if it lasts, check the master's Sui endpoints and clock.",
        )
    if (
        token is None
        or token.scope != "owner"
        or token.revoked
        or token.expires_at_ms <= view.now_ms()
        or not index.owner_is_live(token.owner)
    ):
        raise ApiError(
            "token_unknown",
            "This is no owner's seal token that is good now.",
            "a token that is unknown, revoked, expired, a worker's or of an owner without a worker",
            "a current token of scope owner",
            "Make one with the sui_seal_token module (scope owner). Right after, try again in a few seconds.",
        )
    return token.owner


def _malformed(found: str) -> ApiError:
    return ApiError(
        "token_malformed",
        "The request carries no owner's seal token.",
        found,
        "X-Seal-Token: seal_ and 43 characters",
        "Send the owner's seal token in the header.",
    )
