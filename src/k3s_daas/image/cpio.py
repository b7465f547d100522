"""The archive that the kernel unpacks at its start: cpio, form `newc`, written the same for the same tree.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

from __future__ import annotations

import functools
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from k3s_daas.image.entries import Entry
from k3s_daas.image.errors import ImageError

_MAGIC = b"070701"
_END = "TRAILER!!!"
_CHUNK = 1 << 20
_HEADER_BYTES = 110
# The same everywhere: a level is a promise of one zlib, so the record names its version too.
_LEVEL = 6


class Readable(Protocol):
    """A file, or what decompresses one."""

    def read(self, size: int, /) -> bytes: ...


def write(entries: Iterable[Entry], output: BinaryIO, epoch: int) -> None:
    """Write entries in the order of their paths' bytes, no time newer than `epoch` (s).

    Inode numbers are places in that order; every file is one of its own. Raises ImageError for a file that is
    not as long as it said.
    """
    ordered = sorted(entries, key=lambda entry: _name(entry.path))
    for number, entry in enumerate(ordered, start=1):
        _one(output, entry.newest(epoch), number)
    _header(output, Entry(_END, 0), 0, 1)
    output.flush()


def compress(entries: Iterable[Entry], path: Path, epoch: int) -> None:
    """The archive in `path`, compressed with gzip; it appears whole or not at all. Raises ImageError."""
    temporary = path.with_name(f"{path.name}.new")
    with (
        temporary.open("wb") as output,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=output, mtime=0) as compressed,
        io.BufferedWriter(compressed, _CHUNK) as buffered,
    ):
        write(entries, buffered, epoch)
    temporary.replace(path)


def read(content: Readable) -> Iterator[Entry]:
    """The entries of an uncompressed archive. Raises ImageError for anything else."""
    while True:
        header = _exactly(content, _HEADER_BYTES)
        if header[:6] != _MAGIC:
            raise ImageError(f"Found {header[:6]!r} where a cpio entry begins; wanted {_MAGIC!r} (newc).")
        try:
            fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER_BYTES, 8)]
        except ValueError:
            raise ImageError(f"Found {header!r} as a cpio header; wanted 13 hexadecimal numbers.") from None
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, name_size, _ = fields
        name = _exactly(content, name_size)
        _exactly(content, -(_HEADER_BYTES + name_size) % 4)
        if not name.endswith(b"\0"):
            raise ImageError(f"Found a cpio name without its end: {name[:80]!r}.")
        data = _exactly(content, size)
        _exactly(content, -size % 4)
        path = name[:-1].decode("utf-8", "surrogateescape")
        if path == _END:
            return
        yield Entry(path, mode, uid, gid, mtime, size, functools.partial(io.BytesIO, data), (major, minor))


def _one(output: BinaryIO, entry: Entry, number: int) -> None:
    _header(output, entry, number, 1)
    written = 0
    with entry.content() as content:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            output.write(chunk)
    if written != entry.size:
        raise ImageError(
            f"{entry.path} gave {written} bytes, wanted the {entry.size} it had before: something writes to "
            "it while it is read. Run this again."
        )
    output.write(bytes(-written % 4))


def _header(output: BinaryIO, entry: Entry, number: int, links: int) -> None:
    name = _name(entry.path) + b"\0"
    fields = (
        number, entry.mode, entry.uid, entry.gid, links, entry.mtime, entry.size, 0, 0, *entry.device,
        len(name), 0,
    )  # fmt: skip
    if any(not 0 <= field < 2**32 for field in fields):
        raise ImageError(f"{entry.path} has a number that cpio can't hold (32 bits each): {fields}.")
    header = _MAGIC + b"".join(b"%08x" % field for field in fields) + name
    output.write(header + bytes(-len(header) % 4))


def _name(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _exactly(content: Readable, size: int) -> bytes:
    found = content.read(size)
    if len(found) != size:
        raise ImageError(f"The cpio archive ends after {len(found)} bytes of {size}; wanted the rest.")
    return found
