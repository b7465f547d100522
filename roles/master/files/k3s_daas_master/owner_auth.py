"""From a request to an owner, for what owners ask of the master's own API.

Whoever holds a token may know what is wrong with it: other than the API server's webhook, which answers for
clusters full of users, this names the cause.
"""

from __future__ import annotations

from starlette.requests import Request

from k3s_daas import seal
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import STALE_MS, ChainView
from k3s_daas_master.index import TokenIndex, TokenView

#: The codes that `owner_of` refuses with.
REFUSALS = (
    "token_malformed",
    "token_unknown",
    "token_revoked",
    "token_expired",
    "worker_not_eligible",
    "rate_limited",
    "not_ready",
)
_MINT = "Make one with playbooks/kubectl.yml. Right after, try again in a few seconds."


def owner_of(request: Request, index: TokenIndex, view: ChainView, *, writing: bool = False) -> str:
    """The owner whose live token `request` carries, as a bearer token or in X-Seal-Token. Raises ApiError.

    As with kubectl: on a stale view of the chain owners only read, on a dark one not even that.
    """
    token = _found(index, _shown(request))
    if not index.loaded or view.dark() or (writing and not view.fresh()):
        age = view.age_ms()
        raise ApiError(
            "not_ready",
            "The master's view of the chain isn't good enough for this.",
            "no view yet" if age is None else f"a view of {age // 1000} s",
            f"at most {STALE_MS // 1000} s to write",
            "Try again in a few seconds; if it lasts, check the master's Sui endpoints and clock.",
        )
    if token is None or token.scope != "owner":
        raise ApiError(
            "token_unknown",
            "This is no owner's token.",
            "a token whose commitment isn't on-chain" if token is None else "a token of scope worker",
            "an owner's seal token of this registry",
            _MINT,
        )
    found, wanted = f"generation {token.generation}", "a live token"
    if token.revoked:
        raise ApiError("token_revoked", "The seal token was revoked.", found, wanted, _MINT)
    if token.expires_at_ms <= view.now_ms():
        raise ApiError("token_expired", "The seal token is expired.", found, wanted, _MINT)
    if not index.owner_is_live(token.owner):
        raise ApiError(
            "worker_not_eligible",
            "The owner has no live worker.",
            "only workers that were slashed or are leaving, or none",
            "at least one live worker",
            "Stake a worker with playbooks/workers.yml.",
        )
    return token.owner


def _shown(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" and value else request.headers.get("x-seal-token")


def _found(index: TokenIndex, token: str | None) -> TokenView | None:
    if not token:
        raise _malformed("no Authorization header of the kind Bearer, no X-Seal-Token")
    try:
        return index.find(seal.parse(token))
    except seal.InvalidSealToken as error:
        raise _malformed(str(error)) from None


def _malformed(found: str) -> ApiError:
    return ApiError(
        "token_malformed",
        "The request carries no owner's seal token.",
        found,
        "seal_ and 43 characters in one of these headers",
        "Send the owner's seal token as it was made; a part may be cut off.",
    )
