"""What the chain says about the live master's attestation, asked of each endpoint on its own.

Times in ms since 1970. One endpoint can lag, fork or lie: what a client trusts a master by is what all that
answer agree on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from k3s_daas.attestation.serving import LiveMaster, ServingRefused
from k3s_daas.attestation.statements import Statement, chain_digest
from k3s_daas.registry.agreed import EndpointsDisagree
from k3s_daas.registry.client import Registry
from k3s_daas.registry.mastery import Image, allowed_images
from k3s_daas.registry.model import Deployment, Master

#: How far apart the endpoints' newest checkpoints may be, in ms.
MAX_SPREAD_MS = 60_000


@dataclass(frozen=True)
class Basis:
    """One endpoint's word. `time_ms` is its newest checkpoint's."""

    chain_id: str
    master: Master | None
    images: frozenset[Image]
    time_ms: int


async def read_basis(registry: Registry) -> Basis:
    """Raises what `k3s_daas.chain` raises."""
    chain = registry.chain
    # The time last: it is to be no older than what was read.
    master, images = await asyncio.gather(registry.master(), allowed_images(registry))
    _, time_ms = await chain.latest_checkpoint()
    return Basis(chain.chain_id, master, images, time_ms)


def agree(bases: Sequence[Basis]) -> Basis:
    """What all of at least one say, at the newest of their times. Raises EndpointsDisagree."""
    first = bases[0]
    for other in bases[1:]:
        if (other.chain_id, other.master, other.images) != (first.chain_id, first.master, first.images):
            raise EndpointsDisagree(
                "Endpoints disagree on the live master or on the images that may attest. Wanted: one answer. "
                "One of them lags or lies; nothing is trusted until they agree."
            )
    times = [basis.time_ms for basis in bases]
    if max(times) - min(times) > MAX_SPREAD_MS:
        raise EndpointsDisagree(
            f"Endpoints' newest checkpoints are {max(times) - min(times)} ms apart, wanted at most "
            f"{MAX_SPREAD_MS}. One of them lags or lies; nothing is trusted until they agree."
        )
    return Basis(first.chain_id, first.master, first.images, max(times))


def live_master(network: str, deployment: Deployment, basis: Basis) -> LiveMaster:
    """What the master's document is held against. Raises ServingRefused while there is none."""
    master = basis.master
    if master is None or not master.ca_hash:
        raise ServingRefused(
            "master_not_attested",
            "no master on-chain, or one that hasn't announced itself",
            "a live master that is attested",
            "wait until the master has registered and announced itself",
        )
    _check_binding(basis.chain_id, master)
    statement = Statement(
        basis.chain_id,
        deployment.types_id,
        deployment.registry_id,
        master.account,
        master.ca_hash,
        master.binding.config_hash,
    )
    return LiveMaster(
        network=network,
        statement=statement,
        public_key=master.public_key,
        pcr0=master.pcr0,
        pcr3=master.pcr3,
        expires_at_ms=master.attestation_expires_at_ms,
        images=frozenset((image.pcr0, image.pcr3) for image in basis.images),
    )


def _check_binding(chain_id: str, master: Master) -> None:
    """What the contract keeps of the registered document, and can't check."""
    found, wanted = master.binding.chain_id, chain_digest(chain_id)
    if master.attestation_expires_at_ms and found != wanted:
        raise ServingRefused(
            "chain_mismatch",
            f"a live master that follows the chain {found.hex()}",
            f"{wanted.hex()}, this one",
            "its parent shows it a fork of the chain; trust it with nothing, and start it on the real one",
        )
    found, wanted = master.binding.ca_hash, master.ca_hash
    if master.attestation_expires_at_ms and found != wanted:
        raise ServingRefused(
            "ca_mismatch",
            f"a live master that announced a CA with the hash {wanted.hex()}",
            f"{found.hex()}, which is attested on-chain",
            "it has a new CA and announces it in a moment; ask again",
        )
