"""One sealed snapshot: one file, AES-256-GCM with a data key of its own.

    MAGIC ‖ length of the header (4 bytes, big-endian) ‖ header (JSON) ‖ ciphertext and tag

Everything before the ciphertext is authenticated with it: whose state it is (cluster, network, mode), in
which form (config version), which one of its line (counter and the hash of the one before) and when. The hash
of the whole file is what the chain anchors.

The header comes from a place that lies: nothing in it is believed before the tag has proved it, but it is
read first to say what was found.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import zlib
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.keys import KEY_BYTES, Keys, Provider

MAGIC = b"k3s-daas sealed state\n"
#: What is inside, and in which form: raised with every change that an older release couldn't read.
CONFIG_VERSION = 1
HASH_BYTES = 32
#: `previous` of a snapshot that goes on from none.
NO_HASH = bytes(HASH_BYTES)
#: The largest snapshot, and the largest content, in bytes. Both are held in memory.
MAX_BYTES = 512 * 1024 * 1024
_LENGTH_BYTES = 4
_MAX_HEADER = 16 * 1024
_NONCE_BYTES = 12
_TAG_BYTES = 16
_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Identity:
    """Whose state it is. `chain_id` is the network's, `registry_id` 0x and 64 hex digits."""

    network: str
    chain_id: str
    registry_id: str
    tee_mode: Literal["simulated", "nitro"]

    def __str__(self) -> str:
        return f"registry {self.registry_id} on {self.network} ({self.chain_id}), tee_mode {self.tee_mode}"


class Header(BaseModel):
    """What a snapshot says of itself. `created_ms` is the moment its datastore was copied at, in ms."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    network: Annotated[str, Field(max_length=32)]
    chain_id: Annotated[str, Field(max_length=64)]
    registry_id: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
    tee_mode: Literal["simulated", "nitro"]
    config_version: Annotated[int, Field(ge=1, lt=2**31)]
    counter: Annotated[int, Field(ge=1, lt=2**63)]
    previous: _Hex32
    created_ms: Annotated[int, Field(ge=0, lt=2**63)]
    provider: Provider
    wrapped_key: Annotated[str, Field(max_length=8192)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")]

    @property
    def identity(self) -> Identity:
        return Identity(self.network, self.chain_id, self.registry_id, self.tee_mode)


def digest(sealed: bytes) -> bytes:
    """What the chain anchors: SHA-256 of the whole file."""
    return hashlib.sha256(sealed).digest()


def seal(
    content: bytes, identity: Identity, *, counter: int, previous: bytes, created_ms: int, keys: Keys
) -> bytes:
    """A sealed snapshot of `content`. `previous` is the hash of the one before (32 bytes), or NO_HASH.

    Raises SealedError.
    """
    if len(content) > MAX_BYTES:
        raise SealedError(
            "store",
            f"{len(content)} bytes of state",
            f"at most {MAX_BYTES}",
            "Clear the cluster of what it needn't keep (events, old Secrets), or use another datastore.",
        )
    key = keys.new_key(_context(identity, counter))
    nonce = secrets.token_bytes(_NONCE_BYTES)
    header = Header(
        network=identity.network,
        chain_id=identity.chain_id,
        registry_id=identity.registry_id,
        tee_mode=identity.tee_mode,
        config_version=CONFIG_VERSION,
        counter=counter,
        previous=previous.hex(),
        created_ms=created_ms,
        provider=keys.provider,
        wrapped_key=base64.b64encode(key.wrapped).decode(),
        nonce=nonce.hex(),
    )
    said = header.model_dump_json().encode()
    front = MAGIC + len(said).to_bytes(_LENGTH_BYTES, "big") + said
    return front + AESGCM(key.plain).encrypt(nonce, zlib.compress(content, 1), front)


def read_header(sealed: bytes) -> Header:
    """What it says of itself; nothing of it is proved. Raises SealedError of kind `damaged` or `version`."""
    header, _ = _split(sealed)
    return header


def unseal(sealed: bytes, identity: Identity, keys: Keys) -> tuple[Header, bytes]:
    """(what it is, its content) of a snapshot of this identity. Raises SealedError."""
    header, front = _split(sealed)
    if header.identity != identity:
        raise SealedError(
            "foreign",
            f"a snapshot of {header.identity}",
            str(identity),
            "Take the store of this cluster, or the configuration of the other one. Nothing was changed.",
        )
    if header.provider != keys.provider:
        raise SealedError(
            "key",
            f"a snapshot whose key {header.provider} wrapped",
            f"one of {keys.provider}",
            "Configure the provider that it was sealed with.",
        )
    try:
        wrapped = base64.b64decode(header.wrapped_key, validate=True)
    except binascii.Error:
        raise _damaged("a wrapped key that is no base64") from None
    plain = keys.open_key(wrapped, _context(identity, header.counter))
    try:
        if len(plain) != KEY_BYTES:
            raise _damaged(f"a data key of {len(plain)} bytes")
        packed = AESGCM(plain).decrypt(bytes.fromhex(header.nonce), sealed[len(front) :], front)
    except InvalidTag:
        raise _damaged("a snapshot that isn't what was sealed") from None
    return header, _unpack(packed)


def _context(identity: Identity, counter: int) -> dict[str, str]:
    """What the data key is given out for. KMS writes it into its log."""
    return {
        "k3s-daas": "sealed-state",
        "chain": identity.chain_id,
        "registry": identity.registry_id,
        "tee": identity.tee_mode,
        "counter": str(counter),
    }


def _split(sealed: bytes) -> tuple[Header, bytes]:
    """(header, all that stands before the ciphertext)."""
    start = len(MAGIC) + _LENGTH_BYTES
    if not sealed.startswith(MAGIC) or len(sealed) < start:
        raise _damaged(f"{len(sealed)} bytes that don't begin as a sealed snapshot")
    length = int.from_bytes(sealed[len(MAGIC) : start], "big")
    if length > _MAX_HEADER or len(sealed) < start + length + _TAG_BYTES:
        raise _damaged(f"a header of {length} bytes in a file of {len(sealed)}")
    try:
        header = Header.model_validate_json(sealed[start : start + length])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(f"a header with {where or 'a form'} that isn't right ({first['msg']})") from None
    if header.config_version != CONFIG_VERSION:
        raise SealedError(
            "version",
            f"a snapshot of config version {header.config_version}",
            str(CONFIG_VERSION),
            "Restore with the release that made it, then go on to this one.",
        )
    return header, sealed[: start + length]


def _unpack(packed: bytes) -> bytes:
    """Authenticated, so it is ours; the limit holds all the same."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, MAX_BYTES)
    except zlib.error:
        raise _damaged("content that can't be unpacked") from None
    if not unpacker.eof:
        raise _damaged(f"content of more than {MAX_BYTES} bytes")
    return content


def _damaged(found: str) -> SealedError:
    return SealedError(
        "damaged", found, "a sealed snapshot, whole", "Bring the file back from another copy of the store."
    )
