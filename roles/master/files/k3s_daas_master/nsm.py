"""The Nitro security module, which signs what this enclave is: attestation documents on request.

Inside an enclave it is a device, `/dev/nsm`, asked by one ioctl that carries a CBOR request and takes a CBOR
answer. Where the enclave is simulated, the same messages go over a Unix socket: the request, the end of
writing, the answer, the end. Everything here blocks, for some ms.

Source: aws-nitro-enclaves-nsm-api (src/driver, src/api) and Linux' include/uapi/linux/nsm.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import cbor2

DEVICE = Path("/dev/nsm")
#: _IOWR(0x0A, 0, struct nsm_raw), which has two iovecs: address and length of request and of answer.
IOCTL_RAW = 0xC0200A00
_RAW = struct.Struct("=QQQQ")
MAX_REQUEST_BYTES = 0x1000
MAX_ANSWER_BYTES = 0x3000
_SOCKET_TIMEOUT_S = 5.0

Exchange = Callable[[bytes], bytes]


class NsmError(Exception):
    """No document. The message says what was found and what to do."""


class NsmUnavailable(NsmError):
    """There is no security module to ask, or it doesn't answer."""


class NsmRefused(NsmError):
    """It answered with an error.

    :ivar code: its own word, like InvalidArgument.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"The security module refused: {code}. Wanted an attestation document.")
        self.code = code


class NsmMalformed(NsmError):
    """What it answered can't be read."""


class SecurityModule:
    """One security module, reached by `exchange`: a CBOR request in, its CBOR answer out."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def attest(self, *, user_data: bytes, nonce: bytes | None, public_key: bytes) -> bytes:
        """A signed document that says these three. Raises NsmError.

        At most 512, 512 and 1024 bytes; of the nonce alone a caller may have a say.
        """
        fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        request = cbor2.dumps({"Attestation": fields})
        if len(request) > MAX_REQUEST_BYTES:
            raise NsmRefused("InputTooLarge")
        document = _answer(self._exchange(request), "Attestation").get("document")
        if type(document) is not bytes or not document:
            raise NsmMalformed("The security module's answer holds no document. Wanted one, as bytes.")
        return document


def device(path: Path = DEVICE) -> SecurityModule:
    """The enclave's own security module."""

    def exchange(request: bytes) -> bytes:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NsmUnavailable(
                f"Security module {path}: {error.strerror}. Wanted the device of a Nitro enclave: this runs "
                "outside of one, or as a user that may not open it."
            ) from None
        try:
            return _by_ioctl(handle, request)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise NsmRefused("InputTooLarge") from None
            raise NsmUnavailable(
                f"Security module {path}: {error.strerror}. Wanted an answer to ioctl {IOCTL_RAW:#x}; a "
                "driver may want CAP_SYS_ADMIN for it, as Linux' header says."
            ) from None
        finally:
            os.close(handle)

    return SecurityModule(exchange)


def simulated(path: Path) -> SecurityModule:
    """What answers at a Unix socket in a security module's place. It proves nothing."""

    def exchange(request: bytes) -> bytes:
        answer = b""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_SOCKET_TIMEOUT_S)
                channel.connect(str(path))
                channel.sendall(request)
                channel.shutdown(socket.SHUT_WR)
                while len(answer) <= MAX_ANSWER_BYTES and (part := channel.recv(65536)):
                    answer += part
        except OSError as error:
            raise NsmUnavailable(
                f"SIMULATED security module {path}: {error.strerror or error}. Wanted an emulator that "
                "listens there."
            ) from None
        if len(answer) > MAX_ANSWER_BYTES:
            raise NsmMalformed(
                f"The SIMULATED security module sent more than {MAX_ANSWER_BYTES} bytes, wanted an answer."
            )
        return answer

    return SecurityModule(exchange)


def of(tee_mode: str, emulated: Path | None) -> SecurityModule | None:
    """What a master of this mode proves itself by; None when it is simulated without an emulator's socket."""
    if tee_mode == "nitro":
        return device()
    return None if emulated is None else simulated(emulated)


def _by_ioctl(handle: int, request: bytes) -> bytes:
    question = ctypes.create_string_buffer(request, len(request))
    room = ctypes.create_string_buffer(MAX_ANSWER_BYTES)
    message = bytearray(
        _RAW.pack(ctypes.addressof(question), len(request), ctypes.addressof(room), MAX_ANSWER_BYTES)
    )
    ioctl(handle, IOCTL_RAW, message, True)
    # The driver puts the answer's length in the place of the room's.
    length = _RAW.unpack(message)[3]
    if length > MAX_ANSWER_BYTES:
        raise NsmMalformed(f"The security module says {length} bytes, wanted at most {MAX_ANSWER_BYTES}.")
    return room.raw[:length]


def _answer(raw: bytes, wanted: str) -> dict[Any, Any]:
    try:
        answer = cbor2.loads(raw)
    except Exception as error:  # cbor2's errors on arbitrary bytes have no common base
        raise NsmMalformed(
            f"The security module's answer of {len(raw)} bytes is no CBOR ({error})."
        ) from None
    if type(answer) is not dict or len(answer) != 1:
        raise NsmMalformed(f"The security module answered {answer!r:.80}, wanted a map of one: {wanted}.")
    if "Error" in answer:
        raise NsmRefused(str(answer["Error"])[:80])
    found = answer.get(wanted)
    if type(found) is not dict:
        raise NsmMalformed(f"The security module answered {answer!r:.80}, wanted {wanted}.")
    return found
