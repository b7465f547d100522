"""Wallet keys: read from a file, kept in memory, never shown and never handed to a library that saves them.

Ed25519 only, in the two forms Sui's tools write: bech32 `suiprivkey1…` and base64 of flag + seed (as in
`sui.keystore`). Bech32 is BIP-173; the payload is one flag byte and the 32-byte seed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from k3s_daas.chain import bcs
from k3s_daas.chain.errors import InvalidKey

_PREFIX = "suiprivkey"
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_ED25519_FLAG = 0
#: Intent of a transaction: scope 0, version 0, application 0 (Sui).
_TRANSACTION_INTENT = b"\0\0\0"
#: Of a personal message: scope 3. What is signed with it is no transaction.
_MESSAGE_INTENT = b"\3\0\0"
_SIGNATURE_BYTES, _PUBLIC_BYTES = 64, 32


class Key:
    """An Ed25519 wallet key. Its repr and its errors never show it."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise InvalidKey(f"Found a seed of {len(seed)} bytes, wanted 32.")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key().public_bytes_raw()
        self.address = _address(self._public)

    def __repr__(self) -> str:
        return f"Key(address={self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a wallet key is not to be pickled")

    @classmethod
    def generate(cls) -> Key:
        """A new key that exists in memory only."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Key:
        """The key in the file at `path`. InvalidKey when it is missing, readable by others or malformed."""
        try:
            # Not waiting for the other end, should it be a pipe.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InvalidKey(
                f"Wallet key file {path} can't be read ({error.strerror}). Wanted a file with a suiprivkey1… "
                "line, mode 0600, readable by the user that runs this."
            ) from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidKey(f"Wallet key {path} is no regular file, wanted one with mode 0600.")
            if status.st_mode & 0o077:
                raise InvalidKey(
                    f"Wallet key file {path} has mode {stat.S_IMODE(status.st_mode):04o}, wanted 0600: "
                    f"others on this host can read it. Treat the key as exposed, or run: chmod 600 {path}"
                )
            content = os.read(fd, 4096)
        finally:
            os.close(fd)
        try:
            return cls(_parse(content.decode("ascii").strip()))
        except (ValueError, InvalidKey):
            raise InvalidKey(
                f"Wallet key file {path} holds {len(content)} bytes that are no Ed25519 key. Wanted one "
                "line: suiprivkey1… (as `sui keytool export` prints it) or base64 of the flag byte 0 and the "
                "32-byte seed."
            ) from None

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Key:
        """Make a new key and save it at `path` with mode 0600. FileExistsError when something is there.

        The file appears complete or not at all, so a crash never leaves half a key behind.
        """
        seed = secrets.token_bytes(32)
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(_bech32(bytes([_ED25519_FLAG]) + seed).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)  # unlike a rename this never replaces a key that is there
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        return cls(seed)

    def sign_transaction(self, transaction: bytes) -> bytes:
        """Sui's serialized signature (flag, 64 bytes, public key) of the BCS of a TransactionData."""
        message = hashlib.blake2b(_TRANSACTION_INTENT + transaction, digest_size=32).digest()
        return bytes([_ED25519_FLAG]) + self._private.sign(message) + self._public

    def sign_message(self, message: bytes) -> bytes:
        """The same of a personal message, as `sui keytool sign` and wallets make it."""
        return bytes([_ED25519_FLAG]) + self._private.sign(_message_digest(message)) + self._public


def signer_of(message: bytes, signature: bytes) -> str | None:
    """The address whose key signed the personal message; None when the signature doesn't hold."""
    if len(signature) != 1 + _SIGNATURE_BYTES + _PUBLIC_BYTES or signature[0] != _ED25519_FLAG:
        return None
    public = signature[1 + _SIGNATURE_BYTES :]
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature[1 : 1 + _SIGNATURE_BYTES], _message_digest(message))
    except (InvalidSignature, ValueError):
        return None
    return _address(public)


def _address(public: bytes) -> str:
    return "0x" + hashlib.blake2b(bytes([_ED25519_FLAG]) + public, digest_size=32).hexdigest()


def _message_digest(message: bytes) -> bytes:
    """Of its BCS: a vector of bytes."""
    return hashlib.blake2b(_MESSAGE_INTENT + bcs.data(message), digest_size=32).digest()


def _parse(text: str) -> bytes:
    """The seed in either form. Raises ValueError without any part of `text`."""
    if text.startswith(_PREFIX):
        payload = _unbech32(text)
    else:
        try:
            payload = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError("no base64") from None
    if len(payload) != 33 or payload[0] != _ED25519_FLAG:
        raise ValueError("no Ed25519 key")
    return payload[1:]


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return check


def _expand() -> list[int]:
    return [ord(c) >> 5 for c in _PREFIX] + [0] + [ord(c) & 31 for c in _PREFIX]


def _bech32(payload: bytes) -> str:
    number = int.from_bytes(payload, "big") << (-len(payload) * 8 % 5)
    digits = -(-len(payload) * 8 // 5)
    values = [number >> 5 * i & 31 for i in reversed(range(digits))]
    check = _polymod([*_expand(), *values, *[0] * 6]) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return f"{_PREFIX}1{''.join(_CHARSET[value] for value in values)}"


def _unbech32(text: str) -> bytes:
    prefix, _, rest = text.rpartition("1")
    if prefix != _PREFIX or len(rest) < 6 or any(c not in _CHARSET for c in rest):
        raise ValueError("no bech32")
    values = [_CHARSET.index(c) for c in rest]
    if _polymod([*_expand(), *values]) != 1:
        raise ValueError("bad checksum")
    number, bits = 0, 5 * (len(values) - 6)
    for value in values[:-6]:
        number = number << 5 | value
    if bits % 8 >= 5 or number & ((1 << bits % 8) - 1):
        raise ValueError("bad padding")
    return (number >> bits % 8).to_bytes(bits // 8, "big")
