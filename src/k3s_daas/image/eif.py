"""The file that a Nitro enclave starts from (EIF, version 4), and what the hypervisor measures of it.

Header (548 bytes), then sections, each with a header of 12 bytes: kernel, command line, metadata, ramdisks.
All numbers are big-endian. The CRC-32 at the header's end is over everything but itself.

    PCR0 = SHA-384(48 zeros ‖ SHA-384(kernel ‖ command line ‖ all ramdisks))
    PCR1 = the same of kernel, command line and the first ramdisk
    PCR2 = the same of the other ramdisks
    PCR8 = the same of the signing certificate's DER, in a signed file

Metadata, and with it the build's time, is in no PCR. Written from aws-nitro-enclaves-image-format 0.5
(src/defs/mod.rs, src/utils/mod.rs, src/utils/eif_reader.rs), and held against eif_build 0.2.1.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from k3s_daas.image.errors import ImageError

MAGIC = b".eif"
VERSION = 4
ARM64 = 0x1
_MAX_SECTIONS = 32
_HEADER = struct.Struct(f">4sHHQQHH{_MAX_SECTIONS}Q{_MAX_SECTIONS}QII")
_SECTION = struct.Struct(">HHQ")
_DEFAULT_MEMORY, _DEFAULT_CPUS = 1 << 30, 2
_CHUNK = 1 << 20
# A metadata or signature section that is read whole.
_MAX_SMALL = 1 << 20


class Kind(IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


@dataclass(frozen=True)
class Measurements:
    """PCRs of an image, 48 bytes each. `pcr8` is None without signature."""

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes | None = None

    def as_hex(self) -> dict[str, str]:
        """By the names that `nitro-cli` gives them, PCR8 only where there is one."""
        named = {"PCR0": self.pcr0, "PCR1": self.pcr1, "PCR2": self.pcr2, "PCR8": self.pcr8}
        return {name: value.hex() for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Section:
    """Where a section's content is: `offset` and `size` in bytes."""

    kind: Kind
    offset: int
    size: int


@dataclass(frozen=True)
class Image:
    """What a file was found to hold. `arm64` is of the header's flags; `metadata` {} where there is none."""

    arm64: bool
    sections: tuple[Section, ...]
    cmdline: str
    metadata: dict[str, Any]
    measurements: Measurements


class _Registers:
    """Hashes on the way to PCR0 to PCR2."""

    def __init__(self) -> None:
        self._all, self._boot, self._application = hashlib.sha384(), hashlib.sha384(), hashlib.sha384()
        self._ramdisks = 0

    def begin(self, kind: Kind) -> list[Any]:
        """The hashes that a section of this kind goes into."""
        if kind in (Kind.KERNEL, Kind.CMDLINE):
            return [self._all, self._boot]
        if kind is Kind.RAMDISK:
            self._ramdisks += 1
            return [self._all, self._boot if self._ramdisks == 1 else self._application]
        return []

    def measurements(self, certificate: bytes | None) -> Measurements:
        pcr0, pcr1, pcr2 = (extend(one.digest()) for one in (self._all, self._boot, self._application))
        pcr8 = None if certificate is None else extend(hashlib.sha384(certificate).digest())
        return Measurements(pcr0, pcr1, pcr2, pcr8)


def extend(digest: bytes, register: bytes = bytes(48)) -> bytes:
    """What a register holds after it was extended with a digest."""
    return hashlib.sha384(register + digest).digest()


def measure(kernel: Path, cmdline: str, ramdisks: Sequence[Path]) -> Measurements:
    """PCRs of an enclave that starts from these. Raises OSError."""
    registers = _Registers()
    with ExitStack() as stack:
        for kind, content in _contents(stack, kernel, cmdline, ramdisks):
            hashes = registers.begin(kind)
            for chunk in _chunks(content):
                for one in hashes:
                    one.update(chunk)
    return registers.measurements(None)


def _contents(
    stack: ExitStack, kernel: Path, cmdline: str, ramdisks: Sequence[Path]
) -> Iterator[tuple[Kind, BinaryIO | bytes]]:
    yield Kind.KERNEL, stack.enter_context(kernel.open("rb"))
    yield Kind.CMDLINE, cmdline.encode()
    for ramdisk in ramdisks:
        yield Kind.RAMDISK, stack.enter_context(ramdisk.open("rb"))


def _chunks(content: BinaryIO | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    while chunk := content.read(_CHUNK):
        yield chunk


def write(
    path: Path,
    *,
    kernel: Path,
    cmdline: str,
    ramdisks: Sequence[Path],
    metadata: dict[str, Any],
    arm64: bool = False,
) -> Measurements:
    """Write an unsigned image, whole or not at all; returns its PCRs. Raises ImageError and OSError.

    With the metadata that `eif_build` writes, the bytes are that tool's.
    """
    if "\0" in cmdline:
        raise ImageError("Found a NUL in the kernel's command line; wanted text.")
    if not 1 <= len(ramdisks) <= _MAX_SECTIONS - 3:
        raise ImageError(f"Found {len(ramdisks)} ramdisks; wanted 1 to {_MAX_SECTIONS - 3}.")
    described = json.dumps(metadata, separators=(",", ":"), ensure_ascii=False).encode()
    parts: list[tuple[Kind, Path | bytes]] = [
        (Kind.KERNEL, kernel),
        (Kind.CMDLINE, cmdline.encode()),
        (Kind.METADATA, described),
        *((Kind.RAMDISK, ramdisk) for ramdisk in ramdisks),
    ]
    sizes = [len(part) if isinstance(part, bytes) else part.stat().st_size for _, part in parts]
    offsets, at = [], _HEADER.size
    for size in sizes:
        offsets.append(at)
        at += _SECTION.size + size
    padding = [0] * (_MAX_SECTIONS - len(parts))
    header = _HEADER.pack(
        MAGIC, VERSION, ARM64 if arm64 else 0, _DEFAULT_MEMORY, _DEFAULT_CPUS, 0, len(parts),
        *offsets, *padding, *sizes, *padding, 0, 0,
    )  # fmt: skip
    crc, registers = zlib.crc32(header[:-4]), _Registers()
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as output:
        output.write(header)
        for (kind, part), size in zip(parts, sizes, strict=True):
            section, hashes, written = _SECTION.pack(kind, 0, size), registers.begin(kind), 0
            output.write(section)
            crc = zlib.crc32(section, crc)
            with ExitStack() as stack:
                content = part if isinstance(part, bytes) else stack.enter_context(part.open("rb"))
                for chunk in _chunks(content):
                    written += len(chunk)
                    crc = zlib.crc32(chunk, crc)
                    output.write(chunk)
                    for one in hashes:
                        one.update(chunk)
            if written != size:
                raise ImageError(
                    f"{part!r:.200} gave {written} bytes, wanted {size}: it was written to meanwhile."
                )
        output.seek(_HEADER.size - 4)
        output.write(struct.pack(">I", crc))
    temporary.replace(path)
    return registers.measurements(None)


def read(path: Path) -> Image:
    """Read and measure an image, signed or not. Raises ImageError for a file that isn't a sound one.

    A signature is read for its certificate (PCR8) and not verified: the hypervisor does that.
    """
    with path.open("rb") as content:
        return _read(content, path.stat().st_size, str(path))


def _read(content: BinaryIO, total: int, name: str) -> Image:
    def refuse(found: str, wanted: str) -> ImageError:
        return ImageError(
            f"{name} is no sound enclave image: found {found}, wanted {wanted}. Build it again."
        )

    header = content.read(_HEADER.size)
    if len(header) != _HEADER.size:
        raise refuse(f"{len(header)} bytes", f"a header of {_HEADER.size}")
    magic, version, flags, _, _, _, count, *numbers, _, wanted_crc = _HEADER.unpack(header)
    if magic != MAGIC or not 3 <= version <= VERSION:
        raise refuse(f"{magic!r} of version {version}", f"{MAGIC!r} of version 3 or {VERSION}")
    if count > _MAX_SECTIONS:
        raise refuse(f"{count} sections", f"at most {_MAX_SECTIONS}")
    offsets, sizes = numbers[:_MAX_SECTIONS], numbers[_MAX_SECTIONS:]
    crc, registers, at = zlib.crc32(header[:-4]), _Registers(), _HEADER.size
    sections: list[Section] = []
    small: dict[Kind, bytes] = {}
    while at < total:
        section = content.read(_SECTION.size)
        if len(section) != _SECTION.size:
            raise refuse(f"{len(section)} bytes at {at}", f"a section's header of {_SECTION.size}")
        number, _, size = _SECTION.unpack(section)
        place = len(sections)
        if number not in list(Kind) or place >= count or (offsets[place], sizes[place]) != (at, size):
            raise refuse(
                f"section {place} of kind {number} and {size} bytes at {at}", "what the header lists"
            )
        if at + _SECTION.size + size > total:
            raise refuse(f"a section of {size} bytes at {at} in a file of {total}", "all of it")
        kind, hashes = Kind(number), registers.begin(Kind(number))
        crc, left, kept = zlib.crc32(section, crc), size, b""
        if kind in (Kind.CMDLINE, Kind.METADATA, Kind.SIGNATURE) and (size > _MAX_SMALL or kind in small):
            raise refuse(f"a second or large ({size} bytes) section {kind.name}", "one, of 1 MiB at most")
        while left:
            chunk = content.read(min(left, _CHUNK))
            if not chunk:
                raise refuse(f"the end in section {place}", f"{left} bytes more")
            left -= len(chunk)
            crc = zlib.crc32(chunk, crc)
            for one in hashes:
                one.update(chunk)
            if kind in (Kind.CMDLINE, Kind.METADATA, Kind.SIGNATURE):
                kept += chunk
        if kind in (Kind.CMDLINE, Kind.METADATA, Kind.SIGNATURE):
            small[kind] = kept
        sections.append(Section(kind, at + _SECTION.size, size))
        at += _SECTION.size + size
    kinds = [section.kind for section in sections]
    if len(sections) != count or kinds[:2] != [Kind.KERNEL, Kind.CMDLINE] or Kind.RAMDISK not in kinds:
        raise refuse(f"the sections {[kind.name for kind in kinds]}", "kernel, command line, ramdisks")
    if kinds.count(Kind.KERNEL) != 1:
        raise refuse("two kernels", "one")
    if crc != wanted_crc:
        raise refuse(f"the CRC {crc:08x}", f"{wanted_crc:08x} as its header says")
    try:
        cmdline = small[Kind.CMDLINE].decode()
        metadata = json.loads(small.get(Kind.METADATA, b"{}"))
        certificate = _certificate(small[Kind.SIGNATURE]) if Kind.SIGNATURE in small else None
    except (ValueError, LookupError, TypeError) as error:
        raise refuse(
            f"{type(error).__name__}: {error}", "a readable command line, metadata, signature"
        ) from None
    if not isinstance(metadata, dict):
        raise refuse("metadata that is no object", "one")
    measured = registers.measurements(certificate)
    return Image(bool(flags & ARM64), tuple(sections), cmdline, metadata, measured)


def _certificate(signature: bytes) -> bytes:
    """DER of the certificate in a signature section. Raises ValueError, LookupError, TypeError."""
    try:
        (first, *_) = cbor2.loads(signature)
        pem = bytes(first["signing_certificate"])
    except cbor2.CBORDecodeError as error:
        raise ValueError(f"no CBOR: {error}") from None
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
