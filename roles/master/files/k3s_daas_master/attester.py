"""How this master proves itself: on-chain, again and again before its attestation ends, and to each client.

The key in its documents is made where the master runs and kept beside its state: a service that starts anew
renews the attestation, an enclave that starts anew has a new key and becomes the next master. Once another
master has taken over, this one doesn't take over again by itself: two would replace each other for ever.

Without a security module (`tee_mode: simulated`) there is nothing to prove and nothing is sent.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from k3s_daas.attestation.statements import Statement, chain_digest, registration, serving
from k3s_daas.chain import ChainError, Receipt
from k3s_daas.logs import get_logger
from k3s_daas.registry import Binding, Deployment, Master
from k3s_daas_master.clock import Clock
from k3s_daas_master.errors import ApiError
from k3s_daas_master.freshness import ChainView
from k3s_daas_master.index import TokenIndex
from k3s_daas_master.nodepasswords import load_key
from k3s_daas_master.nsm import NsmError, SecurityModule
from k3s_daas_master.registration import ClusterCa

_log = get_logger("k3s_daas_master.attester")

#: An attestation holds for 24 hours; it is renewed when this much is left.
RENEW_MS = 12 * 3_600_000
#: When less is left, somebody has to look.
ALARM_MS = 6 * 3_600_000
_LOOK_S = 5.0
#: After a try the next one waits so long; after failures twice as long each time, at most the second.
PAUSE_S, LONGEST_PAUSE_S = 15.0, 300.0
#: Clients whose documents are being made, or wait for that.
_MAX_WAITING = 32


class RegistersMaster(Protocol):
    async def register_master(self, document: bytes) -> Receipt:
        """Register an attestation. Raises ChainError."""


class Attester:
    """`required`: nobody joins before the chain holds this master's own attestation.

    `address` is its wallet's, `chain_id` the digest of the network's first checkpoint, `config_hash` of what
    it was told of its cluster. Raises StateError when the key can't be kept.
    """

    def __init__(
        self,
        *,
        module: SecurityModule | None,
        required: bool,
        index: TokenIndex,
        view: ChainView,
        registry: RegistersMaster,
        chain_id: str,
        deployment: Deployment,
        address: str,
        config_hash: bytes,
        ca: ClusterCa,
        key_file: Path,
        clock: Clock,
    ) -> None:
        self._module = module
        self.required = required
        self._index = index
        self._view = view
        self._registry = registry
        self._chain_id = chain_id
        self._deployment = deployment
        self._address = address
        self._config_hash = config_hash
        self._ca = ca
        self._clock = clock
        self._public_key = b"" if module is None else _public_key(key_file)
        self._asking = asyncio.Lock()
        self._waiting = 0
        self._was_live = False
        self._failures = 0
        self._resume = 0.0
        #: Why the last try failed; None when it didn't.
        self.problem: str | None = None
        #: Which master stands in this one's place, by the word of the endpoint that is followed; else None.
        self.replaced: str | None = None

    # -- what others ask ----------------------------------------------------------------------------------

    def expires_at_ms(self) -> int | None:
        """When this master's own attestation on-chain ends; None while there is none."""
        master = self._index.master
        return master.attestation_expires_at_ms if master is not None and self.is_ours(master) else None

    def is_ours(self, master: Master) -> bool:
        """Whether this is what the chain says after an attestation of this very master, live or ended."""
        return (
            master.account == self._address
            and master.public_key == self._public_key
            and master.attestation_expires_at_ms > 0
            and bool(self._public_key)
        )

    def live(self) -> bool:
        """Whether the chain holds an attestation of this very master that hasn't ended."""
        expires = self.expires_at_ms()
        return expires is not None and self._view.now_ms() < expires

    def not_ready(self) -> str | None:
        """Why nobody may join yet; None when they may."""
        if not self.required or self.live():
            return None
        return self.problem or "the chain holds no attestation of this master yet"

    def alert(self) -> str | None:
        """What somebody should look at."""
        expires = self.expires_at_ms()
        if self._module is None or self.problem is None:
            return None
        if expires is not None and expires - self._view.now_ms() > ALARM_MS:
            return None  # there is time, and it is tried again
        return f"attestation: {self.problem}"

    def check_joining(self) -> None:
        """Raises ApiError while nobody may join."""
        if (reason := self.not_ready()) is not None:
            raise ApiError(
                "not_ready",
                "The master hasn't proved on-chain what it runs.",
                reason,
                "a live attestation of this master on-chain",
                "Try again in a minute; if it lasts, look at the master's gas and journal.",
            )

    async def document(self, nonce: bytes) -> bytes:
        """An attestation document for a client; the nonce is all that is the client's. Raises ApiError."""
        if self._module is None:
            raise ApiError(
                "not_attested",
                "SIMULATED: this master has no security module, and nothing proves what it runs.",
                "tee_mode simulated",
                "a master with tee_mode nitro",
                "Trust it with nothing of value.",
            )
        if not self._ca.hash:
            raise _not_ready("no CA of the k3s server yet")
        if self._waiting >= _MAX_WAITING:
            raise _not_ready(f"{self._waiting} clients that wait for a document")
        self._waiting += 1
        try:
            return await self._attest(self._module, serving(self._statement()), nonce)
        except NsmError as error:
            _log.error("no attestation document", error=str(error))
            raise _not_ready("a security module that gives no document") from None
        finally:
            self._waiting -= 1

    # -- registering --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the attestation on-chain. Never ends."""
        while True:
            if self._module is not None:
                await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """One look at the chain; registers when it is time. Never raises."""
        if self._module is None or self._clock.monotonic() < self._resume or not self._needed():
            return
        try:
            document = await self._attest(self._module, registration(self._statement()), None)
            receipt = await self._registry.register_master(document)
        except (ChainError, NsmError) as error:
            self._failed(str(error))
            _log.error("attestation not registered", retry_s=self._pause_s(), error=str(error))
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")
            _log.exception("registering the attestation broke", retry_s=self._pause_s())
        else:
            self.problem, self._failures, self._was_live = None, 0, True
            # Until its event has come back to us.
            self._resume = self._clock.monotonic() + PAUSE_S
            _log.info("attestation registered", digest=receipt.digest)

    def _needed(self) -> bool:
        if not (self._index.loaded and self._index.settled and self._view.fresh() and self._ca.hash):
            return False
        master, expires = self._index.master, self.expires_at_ms()
        if expires is not None:
            self._was_live, self.replaced = True, None
            assert master is not None
            if expires - self._view.now_ms() <= RENEW_MS or master.binding != self._binding():
                return True
            # Also when nobody could say whether the last try arrived.
            self.problem, self._failures = None, 0
            return False
        if self._was_live and master is not None:
            self.problem = self.replaced = (
                f"another master, {master.account} (epoch {master.epoch}), has taken over. Nobody joins here "
                "any more; start this enclave anew if it is to be the master again"
            )
            return False
        return True

    def _statement(self) -> Statement:
        return Statement(
            self._chain_id,
            self._deployment.types_id,
            self._deployment.registry_id,
            self._address,
            self._ca.hash,
            self._config_hash,
        )

    def _binding(self) -> Binding:
        """What the chain keeps of it, with the CA and the configuration of now."""
        return Binding(chain_digest(self._chain_id), self._ca.hash, self._config_hash)

    async def _attest(self, module: SecurityModule, statement: bytes, nonce: bytes | None) -> bytes:
        # One at a time, as the device takes them; each blocks for some ms.
        async with self._asking:
            return await asyncio.to_thread(
                module.attest, user_data=statement, nonce=nonce, public_key=self._public_key
            )

    def _failed(self, why: str) -> None:
        self.problem = why
        self._failures += 1
        self._resume = self._clock.monotonic() + self._pause_s()

    def _pause_s(self) -> float:
        return min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(self._failures - 1, 10))


def _public_key(path: Path) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(load_key(path)).public_key().public_bytes_raw()


def _not_ready(found: str) -> ApiError:
    return ApiError(
        "not_ready",
        "The master can't prove itself just now.",
        found,
        "a document of its security module",
        "Try again in a few seconds; if it lasts, look at the master's journal.",
    )
