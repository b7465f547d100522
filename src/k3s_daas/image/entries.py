"""Files of a tree, as an archive holds them: from a tar, or made here.

Nothing is unpacked on this machine.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from k3s_daas.image.errors import ImageError


def _nothing() -> BinaryIO:
    return io.BytesIO()


@dataclass(frozen=True)
class Entry:
    """One file, folder, link or device.

    :ivar path: below the root, without a slash in front.
    :ivar mode: kind and permissions, as `st_mode`.
    :ivar mtime: s since the epoch.
    :ivar content: opens what is in it: `size` bytes; a link's target for a link.
    :ivar device: major and minor number.
    """

    path: str
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    content: Callable[[], BinaryIO] = _nothing
    device: tuple[int, int] = (0, 0)

    def newest(self, epoch: int) -> Entry:
        """The same, no newer than `epoch` (s)."""
        return self if self.mtime <= epoch else dataclasses.replace(self, mtime=epoch)


Tree = dict[str, Entry]


def folder(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry(path, stat.S_IFDIR | mode, *owner)


def text(path: str, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    return Entry(path, stat.S_IFREG | mode, *owner, size=len(data), content=lambda: io.BytesIO(data))


def copy(path: str, source: Path, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry(
        path, stat.S_IFREG | mode, *owner, size=source.stat().st_size, content=lambda: source.open("rb")
    )


def link(path: str, target: str) -> Entry:
    data = target.encode()
    return Entry(path, stat.S_IFLNK | 0o777, size=len(data), content=lambda: io.BytesIO(data))


def character_device(path: str, mode: int, device: tuple[int, int]) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, device=device)


def put(tree: Tree, *entries: Entry) -> None:
    """Put entries into a tree in the place of what is there, through the links that lead to their folders.

    What is made here has no time of its own: its mtime is 0.
    """
    for entry in entries:
        path = _real(tree, entry.path)
        parent = path.rpartition("/")[0]
        while parent and parent not in tree:
            tree[parent] = folder(parent)
            parent = parent.rpartition("/")[0]
        tree[path] = dataclasses.replace(entry, path=path)


def _real(tree: Tree, path: str) -> str:
    """`path` with the links of its folders followed: Debian's /lib is usr/lib."""
    found: list[str] = []
    for part in path.split("/")[:-1]:
        found.append(part)
        known = tree.get("/".join(found))
        if known is not None and stat.S_ISLNK(known.mode):
            target = known.content().read().decode()
            if ".." in target.split("/"):
                raise ImageError(f"The link {known.path} leads to {target}; wanted one without '..'.")
            found = target.strip("/").split("/") if target.startswith("/") else [*found[:-1], target]
    return "/".join([*found, path.rpartition("/")[2]])


def from_tar(file: Path) -> Tree:
    """Every member of an uncompressed tar, by path; hard links become files of their own.

    Raises ImageError.
    """
    tree: Tree = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                path = member.name.removeprefix("./").strip("/")
                if path and path != ".":
                    tree[path] = _member(file, member, path, tree)
    except (tarfile.TarError, OSError) as error:
        raise ImageError(
            f"The archive {file} can't be read: {error}. Remove it and run this again."
        ) from None
    return tree


def _member(file: Path, member: tarfile.TarInfo, path: str, tree: Mapping[str, Entry]) -> Entry:
    common: dict[str, Any] = {"uid": member.uid, "gid": member.gid, "mtime": int(member.mtime)}
    if member.isdir():
        return Entry(path, stat.S_IFDIR | member.mode, **common)
    if member.issym():
        return dataclasses.replace(link(path, member.linkname), **common)
    if member.islnk():
        return dataclasses.replace(tree[member.linkname.removeprefix("./").strip("/")], path=path)
    if member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        return Entry(path, kind | member.mode, **common, device=(member.devmajor, member.devminor))
    if not member.isfile():
        raise ImageError(f"Found {path} of tar type {member.type!r} in {file}; wanted files, links, devices.")
    offset, size = member.offset_data, member.size

    def content() -> BinaryIO:
        with file.open("rb") as source:
            source.seek(offset)
            return io.BytesIO(source.read(size))

    return Entry(path, stat.S_IFREG | member.mode, **common, size=size, content=content)


def environment(wheelhouse: Path) -> Iterator[tuple[str, bytes, int]]:
    """(path, content, permissions) of a wheelhouse's files: two tars in one. Raises ImageError."""
    try:
        with (
            gzip.open(wheelhouse) as compressed,
            tarfile.open(fileobj=compressed, mode="r|", ignore_zeros=True) as archive,
        ):
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content.read(), member.mode
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ImageError(
            f"The wheelhouse {wheelhouse} can't be read: {error}. Remove it, run again."
        ) from None
