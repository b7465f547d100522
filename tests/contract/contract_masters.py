"""The contracts' rules about masters and versions, written down a second time; see contract_model."""

from __future__ import annotations

from dataclasses import dataclass, field

from k3s_daas.chain import bcs

DAY_MS = 86_400_000
MAX_AGE_MS = 300_000
Image = tuple[bytes, bytes]
#: What an attestation says of the chain's id, the CA's hash and the configuration's.
Binding = tuple[bytes, bytes, bytes]


def user_data(
    package: str, registry: str, account: str, chain_id: bytes, ca_hash: bytes, config_hash: bytes
) -> bytes:
    """What a document has to say to register `account`; ids as `0x` and hex, hashes of 32 bytes."""
    ids = b"".join(map(bcs.address, (package, registry, account)))
    return b"k3s-daas-master-v1" + chain_id + ids + ca_hash + config_hash


@dataclass
class Master:
    epoch: int
    account: str
    image: Image = (b"", b"")
    key: bytes = b""
    attested_ms: int = 0
    expires_ms: int = 0
    binding: Binding = (b"", b"", b"")

    @property
    def attested(self) -> bool:
        return self.expires_ms > 0


@dataclass
class Masters:
    version: int = 1
    live: Master | None = None
    epoch: int = 0
    required: bool = False
    images: set[Image] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)
    # The newest snapshot's number and hash, which outlive every master.
    anchored: tuple[int, bytes] | None = None

    def refusal(self, epoch: int, now_ms: int) -> str | None:
        """Why the MasterCap of this epoch may not act."""
        if self.live is None or self.live.epoch != epoch:
            return "EMasterSuperseded"
        return "EAttestationExpired" if self.live.attested and now_ms >= self.live.expires_ms else None

    def migrate(self, version: int) -> str | None:
        if self.version >= version:
            return "ENotUpgrade"
        self.version = version
        return None

    def appoint(self, account: str) -> str | None:
        if self.required:
            return "EAttestationRequired"
        self._install(account)
        return None

    def _install(self, account: str) -> Master:
        self.epoch += 1
        self.live = Master(self.epoch, account)
        return self.live

    def anchor(self, counter: int, previous: bytes, hash_: bytes) -> str | None:
        last, last_hash = self.anchored or (0, b"")
        if len(hash_) != 32:
            return "EInvalidSnapshotHash"
        if counter != last + 1:
            return "ENotTheNextSnapshot"
        if previous != last_hash:
            return "EOtherPreviousSnapshot"
        self.anchored = counter, hash_
        return None

    def abandon(self) -> str | None:
        if self.anchored is None or not self.anchored[1]:
            return "ENothingToAbandon"
        self.anchored = self.anchored[0], b""
        return None

    def require(self) -> None:
        if not self.required and self.live is not None and not self.live.attested:
            self.live = None
        self.required = True

    def allow(self, image: Image) -> None:
        self.images.add(image)

    def disallow(self, image: Image) -> None:
        self.images.discard(image)
        if self.live is not None and self.live.image == image:
            self.live = None

    def register(
        self,
        account: str,
        image: Image,
        key: bytes,
        attested_ms: int,
        now_ms: int,
        binding: Binding | None,
    ) -> str | None:
        """`binding` is None for a document that names another registry or package."""
        if not all(map(any, image)):
            return "EInvalidPcr"
        if image not in self.images:
            return "EImageNotAllowed"
        if now_ms > attested_ms + MAX_AGE_MS:
            return "EAttestationNotFresh"
        if len(key) != 32:
            return "EInvalidPublicKey"
        if binding is None:
            return "EUnexpectedUserData"
        live = self.live
        if live is not None and (live.account, live.key) == (account, key):
            if attested_ms <= live.attested_ms:
                return "EPublicKeyUsed"
        elif key in self.keys:
            return "EPublicKeyUsed"
        else:
            live = self._install(account)
        self.keys.add(key)
        live.image, live.key, live.attested_ms = image, key, attested_ms
        live.expires_ms = min(attested_ms, now_ms) + DAY_MS
        live.binding = binding
        return None
