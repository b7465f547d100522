"""The security module's client: the ioctl with bytes written by hand, the socket against the emulator."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k3s_daas.attestation import simulation_root, verify
from k3s_daas_localnet import nsm_serve
from k3s_daas_localnet.nsm import NsmEmulator
from k3s_daas_master import nsm
from k3s_daas_master.nsm import NsmMalformed, NsmRefused, NsmUnavailable

# CBOR by hand, as serde writes the enums of aws-nitro-enclaves-nsm-api: a map of one, fields in their order.
REQUEST = bytes.fromhex(
    "a1 6b 4174746573746174696f6e"  # {"Attestation":
    "a3 69 757365725f64617461 42 0102"  # {"user_data": h'0102',
    "65 6e6f6e6365 43 0a0b0c"  # "nonce": h'0a0b0c',
    "6a 7075626c69635f6b6579 41 ff"  # "public_key": h'ff'}}
)
ANSWER = bytes.fromhex("a1 6b 4174746573746174696f6e a1 68 646f63756d656e74 44 deadbeef")
REFUSAL = bytes.fromhex("a1 65 4572726f72 6f 496e76616c6964417267756d656e74")  # {"Error": "InvalidArgument"}


class FakeDriver:
    """A FAKE of the kernel's side of one ioctl: reads the request where the message points, writes there."""

    def __init__(self, answer: bytes, *, error: int | None = None, says: int | None = None) -> None:
        self.answer, self.error, self.says = answer, error, says
        self.requests: list[bytes] = []

    def __call__(self, handle: int, number: int, message: bytearray, mutate: bool) -> int:
        os.fstat(handle)
        # _IOC(read | write, 0x0A, 0, 32), see asm-generic/ioctl.h.
        assert number == 3 << 30 | 32 << 16 | 0x0A << 8 | 0
        assert mutate
        assert len(message) == 32
        at, length, room_at, room = struct.unpack("=QQQQ", message)
        assert room == 0x3000
        self.requests.append(ctypes.string_at(at, length))
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        ctypes.memmove(room_at, self.answer, len(self.answer))
        said = len(self.answer) if self.says is None else self.says
        struct.pack_into("=Q", message, 24, said)
        return 0


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "nsm"
    path.touch()
    return path


def ask(module: nsm.SecurityModule) -> bytes:
    return module.attest(user_data=b"\1\2", nonce=b"\x0a\x0b\x0c", public_key=b"\xff")


def drive(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> FakeDriver:
    monkeypatch.setattr(nsm, "ioctl", driver)
    return driver


def test_the_ioctl(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    driver = drive(monkeypatch, FakeDriver(ANSWER))
    assert ask(nsm.device(device)) == bytes.fromhex("deadbeef")
    assert driver.requests == [REQUEST]


def test_the_largest_answer(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    document = bytes(0x3000 - 26)
    head = bytes.fromhex("a1 6b 4174746573746174696f6e a1 68 646f63756d656e74 59")
    answer = head + struct.pack(">H", len(document)) + document
    drive(monkeypatch, FakeDriver(answer))
    assert len(answer) == 0x3000
    assert ask(nsm.device(device)) == document


def test_without_a_nonce_there_is_null(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    driver = drive(monkeypatch, FakeDriver(ANSWER))
    nsm.device(device).attest(user_data=b"", nonce=None, public_key=b"")
    assert b"\x65nonce\xf6" in driver.requests[0]


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (REFUSAL, NsmRefused, "InvalidArgument"),
        (b"", NsmMalformed, "no CBOR"),
        (b"\xff", NsmMalformed, "no CBOR"),
        (ANSWER[:-1], NsmMalformed, "no CBOR"),
        (b"\x80", NsmMalformed, "a map of one"),
        (b"\xa0", NsmMalformed, "a map of one"),
        (b"\x6bDescribeNSM", NsmMalformed, "a map of one"),
        (bytes.fromhex("a1 6b 4174746573746174696f6e 01"), NsmMalformed, "wanted Attestation"),
        (bytes.fromhex("a1 69 47657452616e646f6d a0"), NsmMalformed, "wanted Attestation"),
        (bytes.fromhex("a1 6b 4174746573746174696f6e a0"), NsmMalformed, "no document"),
        (bytes.fromhex("a1 6b 4174746573746174696f6e a1 68 646f63756d656e74 40"), NsmMalformed, "no docu"),
        (bytes.fromhex("a1 6b 4174746573746174696f6e a1 68 646f63756d656e74 61 78"), NsmMalformed, "no doc"),
    ],
)
def test_answers_that_are_none(
    monkeypatch: pytest.MonkeyPatch, device: Path, answer: bytes, error: type[Exception], match: str
) -> None:
    drive(monkeypatch, FakeDriver(answer))
    with pytest.raises(error, match=match):
        ask(nsm.device(device))


def test_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    for code, error, match in (
        (errno.EMSGSIZE, NsmRefused, "InputTooLarge"),
        (errno.EACCES, NsmUnavailable, "CAP_SYS_ADMIN"),
        (errno.ENOTTY, NsmUnavailable, "Inappropriate ioctl"),
    ):
        drive(monkeypatch, FakeDriver(b"", error=code))
        with pytest.raises(error, match=match):
            ask(nsm.device(device))
    drive(monkeypatch, FakeDriver(ANSWER, says=0x3001))
    with pytest.raises(NsmMalformed, match="12289 bytes"):
        ask(nsm.device(device))


def test_no_device_and_a_file_that_is_none(tmp_path: Path, device: Path) -> None:
    with pytest.raises(NsmUnavailable, match="No such file"):
        ask(nsm.device(tmp_path / "absent"))
    with pytest.raises(NsmUnavailable, match="ioctl"):  # the real ioctl, on a plain file
        ask(nsm.device(device))
    assert Path("/dev/nsm") == nsm.DEVICE


def test_too_much_is_not_even_asked(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    driver = drive(monkeypatch, FakeDriver(ANSWER))
    with pytest.raises(NsmRefused) as caught:
        nsm.device(device).attest(user_data=bytes(4096), nonce=None, public_key=b"")
    assert caught.value.code == "InputTooLarge"
    assert driver.requests == []


async def test_the_socket_of_the_emulator(tmp_path: Path) -> None:
    import asyncio
    import time

    now_ms = time.time_ns() // 1_000_000
    emulator = NsmEmulator.load_or_create(tmp_path / "state", now_ms)
    path = tmp_path / "nsm.sock"
    module = nsm_serve.Module(emulator, nsm_serve.DEFAULT_PCRS, now_ms)
    client = nsm.simulated(path)
    with pytest.raises(NsmUnavailable, match="SIMULATED"):
        await asyncio.to_thread(ask, client)
    async with nsm_serve.serving(module, path):
        assert path.stat().st_mode & 0o777 == 0o600
        raw = await asyncio.to_thread(ask, client)
        document = verify(
            raw,
            now_ms=time.time_ns() // 1_000_000,
            root=simulation_root((tmp_path / "state" / NsmEmulator.ROOT_FILE).read_bytes(), "localnet"),
        )
        assert (document.user_data, document.nonce, document.public_key) == (b"\1\2", b"\n\x0b\x0c", b"\xff")
        assert document.simulated
        assert document.pcr(0) == nsm_serve.DEFAULT_PCRS[0]
        with pytest.raises(NsmRefused, match="InvalidArgument"):
            await asyncio.to_thread(client.attest, user_data=bytes(513), nonce=None, public_key=b"")
        with pytest.raises(OSError, match="listens at"):
            async with nsm_serve.serving(module, path):
                pass
    assert not path.exists()


def test_an_emulator_that_died_leaves_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "nsm.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NsmUnavailable, match="refused"):
        ask(nsm.simulated(path))
    nsm_serve._remove_dead(path)
    assert not path.exists()


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Something at the socket that is no security module."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            channel, _ = server.accept()
            with channel, contextlib.suppress(OSError):
                channel.recv(4096)
                channel.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


def test_something_else_at_the_socket(tmp_path: Path) -> None:
    for number, (answer, match) in enumerate(((b"", "no CBOR"), (bytes(20_000), "more than 12288"))):
        path = tmp_path / f"{number}.sock"
        with answering(path, answer), pytest.raises(NsmMalformed, match=match):
            ask(nsm.simulated(path))


def test_what_the_emulator_refuses(tmp_path: Path) -> None:
    import cbor2

    module = nsm_serve.Module(NsmEmulator(0), {}, 0)
    fields: dict[str, Any] = {"user_data": None, "nonce": None, "public_key": None}
    for request, code in (
        (b"", "InvalidArgument"),
        (cbor2.dumps("DescribeNSM"), "InvalidArgument"),
        (cbor2.dumps({"GetRandom": {}}), "InvalidOperation"),
        (cbor2.dumps({"Attestation": 1}), "InvalidArgument"),
        (cbor2.dumps({"Attestation": fields | {"pcrs": {}}}), "InvalidArgument"),
        (cbor2.dumps({"Attestation": fields | {"nonce": "text"}}), "InvalidArgument"),
        (cbor2.dumps({"Attestation": fields | {"nonce": bytes(513)}}), "InvalidArgument"),
    ):
        assert cbor2.loads(module.answer(request, 0)) == {"Error": code}


def test_an_emulator_outlives_its_certificates() -> None:
    day = 24 * 60 * 60 * 1000
    emulator = NsmEmulator(0)
    module = nsm_serve.Module(emulator, nsm_serve.DEFAULT_PCRS, 0)
    client = nsm.SecurityModule(lambda request: module.answer(request, 3 * day))
    verify(ask(client), now_ms=3 * day, root=simulation_root(emulator.root_pem, "localnet"))
