"""What a master puts into `user_data` of its attestation documents: who it is, and for which purpose.

Each purpose has a prefix of its own, so that a document made for one never serves another; what comes after
it is the same, 32 bytes each:

    chain id ‖ package ‖ registry id ‖ account ‖ CA hash ‖ configuration's hash

A registration (`k3s-daas-master-v1`) is read by the contract, which fixes this form, checks package and
registry, and keeps the rest in the master's record. A contract doesn't know its chain's id: object ids come
from digests of transactions, so that a fork of a chain has the same registry. Clients hold the record's
against the chain that they read it from. What is served to them (`k3s-daas-serving-v1`) says the same once
more, over their nonce.

The chain id is the digest of the network's first checkpoint; the package is its first version, which the
registry's type names; the CA hash is the announced one (`k3s_daas.join.ca_hash`); the configuration's hash is
`k3s_daas.attestation.configuration.config_hash`.
"""

from __future__ import annotations

from dataclasses import dataclass

import base58

REGISTRATION_PREFIX = b"k3s-daas-master-v1"
SERVING_PREFIX = b"k3s-daas-serving-v1"
_NAMES = ("chain", "package", "registry", "account", "ca", "config")
_PART_BYTES = 32


@dataclass(frozen=True)
class Statement:
    """A statement's parts: ids as `0x` and 64 hex digits, hashes of 32 bytes.

    :ivar chain_id: base58 digest of the network's first checkpoint.
    :ivar package_id: the package's first version.
    """

    chain_id: str
    package_id: str
    registry_id: str
    account: str
    ca_hash: bytes
    config_hash: bytes

    def parts(self) -> dict[str, bytes]:
        """Its parts in their order, 32 bytes each. Raises ValueError for what can't be one."""
        values = (
            chain_digest(self.chain_id),
            _id(self.package_id),
            _id(self.registry_id),
            _id(self.account),
            self.ca_hash,
            self.config_hash,
        )
        found = dict(zip(_NAMES, values, strict=True))
        for name, value in found.items():
            if len(value) != _PART_BYTES:
                raise ValueError(f"found {name} of {len(value)} bytes in a statement, wanted {_PART_BYTES}")
        return found


def registration(statement: Statement) -> bytes:
    """`user_data` of the document that `nautilus::register_master` takes: 210 bytes. Raises ValueError."""
    return REGISTRATION_PREFIX + b"".join(statement.parts().values())


def serving(statement: Statement) -> bytes:
    """`user_data` of the document that a client gets: 211 bytes. Raises ValueError."""
    return SERVING_PREFIX + b"".join(statement.parts().values())


def split_serving(user_data: bytes | None) -> dict[str, bytes] | None:
    """The parts of a serving statement by name, as `Statement.parts` gives them; None when it is none."""
    data = user_data or b""
    if not data.startswith(SERVING_PREFIX) or len(data) != len(SERVING_PREFIX) + len(_NAMES) * _PART_BYTES:
        return None
    rest = data[len(SERVING_PREFIX) :]
    return {name: rest[i * _PART_BYTES : (i + 1) * _PART_BYTES] for i, name in enumerate(_NAMES)}


def chain_digest(chain_id: str) -> bytes:
    """A chain id's bytes. Raises ValueError."""
    return base58.b58decode(chain_id)


def _id(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError(f"found {text[:80]!r} as an id, wanted 0x and 64 hex digits")
    return bytes.fromhex(text[2:])
