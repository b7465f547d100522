"""What a master puts into `user_data` of its attestation documents: who it is, and for which purpose.

Each purpose has a prefix of its own, so that a document made for one never serves another. A registration is
read by the contract, which fixes its form:

    k3s-daas-master-v1 ‖ registry id (32) ‖ account (32)

It names no chain. Object ids come from digests of transactions, so the same registry on two chains means that
one of them is a fork of the other. An enclave that was shown a fork could be registered on the real chain by
whoever carries the document over; the account stays the enclave's own, so nobody else acts with it, but that
master believes another history. So what it serves to clients says on which chain it is:

    k3s-daas-serving-v1 ‖ chain id (32) ‖ package (32) ‖ registry id (32) ‖ account (32) ‖ CA hash (32)

The chain id is the digest of the network's first checkpoint; the package is its first version, which the
registry's type names; the CA hash is the announced one (`k3s_daas.join.ca_hash`).
"""

from __future__ import annotations

from dataclasses import dataclass

import base58

REGISTRATION_PREFIX = b"k3s-daas-master-v1"
SERVING_PREFIX = b"k3s-daas-serving-v1"
_PART_BYTES = 32


@dataclass(frozen=True)
class Serving:
    """A serving statement's parts: ids as `0x` and 64 hex digits, `ca_hash` 32 bytes.

    :ivar chain_id: base58 digest of the network's first checkpoint.
    :ivar package_id: the package's first version.
    """

    chain_id: str
    package_id: str
    registry_id: str
    account: str
    ca_hash: bytes

    def parts(self) -> dict[str, bytes]:
        """Its parts in their order, 32 bytes each. Raises ValueError for what can't be one."""
        found = {
            "chain": _chain(self.chain_id),
            "package": _id(self.package_id),
            "registry": _id(self.registry_id),
            "account": _id(self.account),
            "ca": self.ca_hash,
        }
        for name, value in found.items():
            if len(value) != _PART_BYTES:
                raise ValueError(f"found {name} of {len(value)} bytes in a statement, wanted {_PART_BYTES}")
        return found


def registration(registry_id: str, account: str) -> bytes:
    """`user_data` of the document that `nautilus::register_master` takes. Raises ValueError."""
    parts = _id(registry_id), _id(account)
    if any(len(part) != _PART_BYTES for part in parts):
        raise ValueError(f"found ids of {[len(part) for part in parts]} bytes, wanted {_PART_BYTES} each")
    return REGISTRATION_PREFIX + b"".join(parts)


def serving(statement: Serving) -> bytes:
    """`user_data` of the document that a client gets: 179 bytes. Raises ValueError."""
    return SERVING_PREFIX + b"".join(statement.parts().values())


def split_serving(user_data: bytes | None) -> dict[str, bytes] | None:
    """The parts of a serving statement by name, as `Serving.parts` gives them; None when it is none."""
    names = ("chain", "package", "registry", "account", "ca")
    data = user_data or b""
    if not data.startswith(SERVING_PREFIX) or len(data) != len(SERVING_PREFIX) + len(names) * _PART_BYTES:
        return None
    rest = data[len(SERVING_PREFIX) :]
    return {name: rest[i * _PART_BYTES : (i + 1) * _PART_BYTES] for i, name in enumerate(names)}


def _id(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError(f"found {text[:80]!r} as an id, wanted 0x and 64 hex digits")
    return bytes.fromhex(text[2:])


def _chain(text: str) -> bytes:
    return base58.b58decode(text)
