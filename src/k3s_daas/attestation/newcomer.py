"""An enclave that is not on the chain yet: whose account is it, before anybody gives it gas?

Its document says so, and what image it runs. That is enough for the operator who built the image: the chain
has nothing to add before the enclave has registered itself, and it can't register without gas.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from .document import AttestationError
from .roots import AWS_ROOT, PUBLIC_NETWORKS, Root
from .serving import ServingRefused
from .statements import Statement, split_serving
from .verify import verify


@dataclass(frozen=True)
class Newcomer:
    """What an enclave proved of itself. Hashes, PCRs and `public_key` (the attested one) are bytes."""

    account: str
    pcr0: bytes
    pcr3: bytes
    ca_hash: bytes
    config_hash: bytes
    public_key: bytes
    simulated: bool


def check_newcomer(
    raw: bytes,
    nonce: bytes,
    *,
    network: str,
    chain_id: str,
    package_id: str,
    registry_id: str,
    pcr0: bytes,
    now_ms: int,
    config_hash: bytes | None = None,
    root: Root = AWS_ROOT,
) -> Newcomer:
    """Who answers, when its image is `pcr0` and it serves this registry. Raises ServingRefused.

    `package_id` is the package's first version; `now_ms` the chain's newest checkpoint's time; `config_hash`
    of what its parent was to tell it, where that is known.
    """
    if network in PUBLIC_NETWORKS and (root.simulated or root != AWS_ROOT):
        raise _refused("simulated_root", f"a simulated root of trust on {network}", "AWS's root alone")
    try:
        document = verify(raw, now_ms=now_ms, root=root)
    except AttestationError as error:
        raise _refused(error.code, f"a document that proves nothing ({error})", "one that holds") from error
    if document.nonce is None or not hmac.compare_digest(document.nonce, nonce):
        raise _refused("nonce_mismatch", "an answer to another question", "our nonce in it")
    found = document.pcrs.get(0, b"")
    if not hmac.compare_digest(found, pcr0):
        raise _refused("pcr0_mismatch", f"PCR0 {found.hex() or 'missing'}", f"{pcr0.hex()}, the image's")
    parts = split_serving(document.user_data)
    if parts is None:
        raise _refused("purpose_mismatch", "a document for another purpose", "one made for clients")
    account = "0x" + parts["account"].hex()
    if config_hash is None:
        config_hash = parts["config"]
    wanted = Statement(chain_id, package_id, registry_id, account, parts["ca"], config_hash).parts()
    for name in ("chain", "package", "registry", "config"):
        if not hmac.compare_digest(parts[name], wanted[name]):
            raise _refused(f"{name}_mismatch", f"the {name} {parts[name].hex()}", wanted[name].hex())
    return Newcomer(
        account,
        found,
        document.pcrs.get(3, b""),
        parts["ca"],
        parts["config"],
        document.public_key or b"",
        document.simulated,
    )


def _refused(code: str, found: str, wanted: str) -> ServingRefused:
    fix = "look at what was built, started and configured; give this enclave nothing until it is clear"
    return ServingRefused(code, found, wanted, fix)
