"""All that a client has to check before it trusts a master: what the chain says, then what the enclave says.

    nonce = new_nonce()                               # the only thing the client chooses
    document = check_serving(raw, nonce, live, now_ms=…)

The master's document comes through its parent, which may put anything in its place. Each lie is a
`ServingRefused` with a code of its own.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from .document import AttestationDocument, AttestationError
from .roots import AWS_ROOT, PUBLIC_NETWORKS, Root
from .statements import Statement, split_serving
from .verify import verify

NONCE_BYTES = 32
# What the security module takes (AWS: 512), in bytes.
MAX_NONCE_BYTES = 512


class ServingRefused(AttestationError):
    """The master isn't to be trusted with anything. Says what was found, what was wanted, and what to do.

    :ivar code: one word for the kind of lie (`CODES`).
    """

    def __init__(self, code: str, found: str, wanted: str, fix: str) -> None:
        super().__init__(f"found {found}, wanted {wanted}: {fix}", code=code)
        self.found, self.wanted, self.fix = found, wanted, fix


@dataclass(frozen=True)
class LiveMaster:
    """The live master as the chain has it; build it from what all endpoints that answered agree on.

    :ivar statement: what its document has to say, with the CA hash that it announced, and the hash of the
        configuration that it registered with.
    :ivar public_key: the attested key, Ed25519, 32 bytes; empty without an attestation.
    :ivar pcr0: measurement of its image, 48 bytes. :ivar pcr3: that of the parent's IAM role.
    :ivar expires_at_ms: when its attestation on-chain ends, ms since 1970; 0 without one.
    :ivar images: (PCR0, PCR3) of all that the operator allows now.
    """

    network: str
    statement: Statement
    public_key: bytes
    pcr0: bytes
    pcr3: bytes
    expires_at_ms: int
    images: frozenset[tuple[bytes, bytes]]


def new_nonce() -> bytes:
    """32 random bytes, to be used once."""
    return secrets.token_bytes(NONCE_BYTES)


def check_on_chain(live: LiveMaster, now_ms: int) -> None:
    """What can be refused before anybody is asked. `now_ms` as in `check_serving`. Raises ServingRefused."""
    if not (live.expires_at_ms and live.public_key and live.pcr0 and live.pcr3):
        raise ServingRefused(
            "master_not_attested",
            f"a live master ({live.statement.account}) that no attestation gave",
            "one that registered an attestation on-chain",
            "let the enclave register itself, or wait until it has",
        )
    if now_ms >= live.expires_at_ms:
        raise ServingRefused(
            "attestation_expired",
            f"an on-chain attestation that ended {now_ms - live.expires_at_ms} ms ago",
            "one that holds now",
            "the master renews it by itself: look at its gas and its journal",
        )
    if (live.pcr0, live.pcr3) not in live.images:
        raise ServingRefused(
            "image_not_allowed",
            f"a live master of image {live.pcr0.hex()} under IAM role {live.pcr3.hex()}",
            "an image that is still on the operator's list",
            "an operator took it off the list; wait for a master of an allowed image",
        )


def check_serving(
    raw: bytes, nonce: bytes, live: LiveMaster, *, now_ms: int, root: Root = AWS_ROOT
) -> AttestationDocument:
    """The document, when it proves that who sent it is the live master on the chain. Pure.

    :param nonce: what was asked with, at least 32 random bytes that were never used before.
    :param now_ms: the present by the chain's newest checkpoint, ms since 1970: neither the parent's clock nor
        this host's.
    :param root: `AWS_ROOT`, or what `simulation_root` gave; that one never on a public network.

    Raises ServingRefused.
    """
    if len(nonce) < NONCE_BYTES:
        raise ValueError(f"found a nonce of {len(nonce)} bytes, wanted at least {NONCE_BYTES}")
    if live.network in PUBLIC_NETWORKS and (root.simulated or root != AWS_ROOT):
        raise ServingRefused(
            "simulated_root",
            f"a simulated root of trust on {live.network}",
            "AWS's root alone",
            "take the simulation root out of the configuration",
        )
    check_on_chain(live, now_ms)
    try:
        document = verify(raw, now_ms=now_ms, root=root)
    except AttestationError as error:
        raise ServingRefused(
            error.code, f"a document that proves nothing ({error})", "one that holds", _FIX
        ) from error
    if document.nonce is None or not hmac.compare_digest(document.nonce, nonce):
        raise ServingRefused(
            "nonce_mismatch",
            "an answer to another question (an old one played again)",
            "our nonce in it",
            _FIX,
        )
    _check_image(document, live)
    _check_statement(document, live)
    if document.public_key is None or not hmac.compare_digest(document.public_key, live.public_key):
        found = (document.public_key or b"").hex() or "none"
        raise ServingRefused(
            "key_mismatch",
            f"public key {found}",
            f"{live.public_key.hex()}, which is attested on-chain",
            "another enclave answers there; " + _FIX,
        )
    return document


def _check_image(document: AttestationDocument, live: LiveMaster) -> None:
    for index, wanted in ((0, live.pcr0), (3, live.pcr3)):
        found = document.pcrs.get(index, b"")
        if not hmac.compare_digest(found, wanted):
            raise ServingRefused(
                f"pcr{index}_mismatch",
                f"PCR{index} {found.hex() or 'missing'}",
                f"{wanted.hex()}, the live master's on-chain",
                ("another image" if index == 0 else "a parent with another IAM role")
                + " answers there; "
                + _FIX,
            )


def _check_statement(document: AttestationDocument, live: LiveMaster) -> None:
    found = split_serving(document.user_data)
    if found is None:
        raise ServingRefused(
            "purpose_mismatch",
            f"a statement that begins {(document.user_data or b'')[:24]!r}",
            "one made for clients",
            "a document for another purpose was sent; " + _FIX,
        )
    for name, wanted in live.statement.parts().items():
        if not hmac.compare_digest(found[name], wanted):
            raise ServingRefused(
                f"{name}_mismatch",
                f"{_NAMES[name]} {found[name].hex()}",
                wanted.hex() + ", as the chain has it",
                _FIX,
            )


_FIX = (
    "somebody stands between, or the master was replaced a moment ago; ask again, and trust it with nothing"
)
_NAMES = {
    "chain": "a master on the chain",
    "package": "a master of package",
    "registry": "a master of registry",
    "account": "a master with account",
    "ca": "a master whose CA has the hash",
    "config": "a master that was given a configuration with the hash",
}
#: Every kind of lie that is told apart.
CODES = frozenset(
    (
        "master_not_attested",
        "attestation_expired",
        "image_not_allowed",
        "simulated_root",
        "document_malformed",
        "document_untrusted",
        "document_debug",
        "document_not_fresh",
        "nonce_mismatch",
        "pcr0_mismatch",
        "pcr3_mismatch",
        "purpose_mismatch",
        "key_mismatch",
        *(f"{name}_mismatch" for name in _NAMES),
    )
)
