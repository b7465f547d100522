"""``python -m k3s_daas_localnet nsm``: the emulator of a security module, served at a Unix socket.

It answers the messages of /dev/nsm that a master sends, one per connection. Everything it signs is SIMULATED.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cbor2

from k3s_daas.attestation import SIMULATION

from .nsm import NsmEmulator

_MAX_REQUEST_BYTES = 0x1000
_LIMITS = {"user_data": 512, "nonce": 512, "public_key": 1024}
_PATIENCE_S = 5.0
# A machine's own certificate lives for a day.
_RESTART_MS = 12 * 60 * 60 * 1000
#: PCR 0 to 3 of an image and role that don't exist.
DEFAULT_PCRS = {i: hashlib.sha384(f"{SIMULATION} PCR{i}".encode()).digest() for i in range(4)}


class Module:
    """One emulated security module: CBOR requests in, CBOR answers out. `pcrs` by index, 48 bytes each."""

    def __init__(self, emulator: NsmEmulator, pcrs: Mapping[int, bytes], started_ms: int) -> None:
        self._emulator = emulator
        self._pcrs = dict(pcrs)
        self._started_ms = started_ms

    def answer(self, request: bytes, now_ms: int) -> bytes:
        """The answer to any bytes."""
        try:
            ((name, fields),) = cbor2.loads(request).items()
        except Exception:  # whatever arbitrary bytes make of cbor2, and of what it gives
            return _error("InvalidArgument")
        if name != "Attestation":
            return _error("InvalidOperation")
        if not isinstance(fields, dict) or not set(fields) <= set(_LIMITS):
            return _error("InvalidArgument")
        for field, limit in _LIMITS.items():
            value = fields.get(field)
            if value is not None and (type(value) is not bytes or len(value) > limit):
                return _error("InvalidArgument")
        if now_ms - self._started_ms > _RESTART_MS:
            self._emulator, self._started_ms = self._emulator.restarted(now_ms), now_ms
        document = self._emulator.document(now_ms, pcrs=self._pcrs, **fields)
        return cbor2.dumps({"Attestation": {"document": document}})


def _error(code: str) -> bytes:
    return cbor2.dumps({"Error": code})


@contextlib.asynccontextmanager
async def serving(module: Module, path: Path) -> AsyncIterator[None]:
    """`module` at a new Unix socket that its owner alone may use. OSError when something lives there."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                request = b""
                while len(request) <= _MAX_REQUEST_BYTES and (part := await reader.read(65536)):
                    request += part
                large = len(request) > _MAX_REQUEST_BYTES
                now_ms = time.time_ns() // 1_000_000
                writer.write(_error("InputTooLarge") if large else module.answer(request, now_ms))
                await writer.drain()
        writer.close()

    _remove_dead(path)
    server = await asyncio.start_unix_server(talk, path)
    path.chmod(0o600)
    try:
        async with server:
            yield
    finally:
        path.unlink(missing_ok=True)


def _remove_dead(path: Path) -> None:
    """A socket that nobody listens at any more. OSError when somebody does."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(f"something listens at {path} already: stop it, or take another path")


def main(argv: Sequence[str]) -> int:
    """Serves; returns the exit code: 0 after a signal, 1 when it can't start."""
    options = _parser().parse_args(argv)
    try:
        asyncio.run(_serve(options))
    except (OSError, ValueError) as error:
        print(f"k3s_daas_localnet nsm: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="k3s_daas_localnet nsm",
        description=f"An emulator of a Nitro security module. {SIMULATION}: its documents prove nothing.",
    )
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to answer at")
    parser.add_argument(
        "--state-dir", type=Path, required=True, help="where the root's key and certificate are kept"
    )
    parser.add_argument(
        "--pcr",
        type=_pcr,
        action="append",
        default=[],
        metavar="INDEX=HEX",
        help="a register's 48 bytes; may be repeated (default: made-up ones in 0 to 3)",
    )
    return parser


def _pcr(text: str) -> tuple[int, bytes]:
    index, _, value = text.partition("=")
    try:
        found = int(index), bytes.fromhex(value)
    except ValueError:
        found = -1, b""
    if not 0 <= found[0] < 16 or len(found[1]) != 48:
        raise argparse.ArgumentTypeError(f"found {text[:120]!r}, wanted 0 to 15, =, and 96 hex digits")
    return found


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    now_ms = time.time_ns() // 1_000_000
    emulator = NsmEmulator.load_or_create(options.state_dir, now_ms)
    pcrs = DEFAULT_PCRS | dict(options.pcr)
    async with serving(Module(emulator, pcrs, now_ms), options.socket):
        ready: dict[str, Any] = {
            "event": "listening",
            "attestation": SIMULATION,
            "socket": str(options.socket),
            "root": str(options.state_dir / NsmEmulator.ROOT_FILE),
            "pcrs": {str(index): value.hex() for index, value in sorted(pcrs.items())},
        }
        print(json.dumps(ready), flush=True)
        await stop.wait()
