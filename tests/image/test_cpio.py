"""The archive that the kernel unpacks: the same bytes for the same tree, read back as it was written."""

import gzip
import io
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas.image import cpio, entries
from k3s_daas.image.entries import Entry
from k3s_daas.image.errors import ImageError

EPOCH = 1_700_000_000
Plain = tuple[str, int, int, int, int, bytes, tuple[int, int]]


def plain(entry: Entry) -> Plain:
    return (
        entry.path, entry.mode, entry.uid, entry.gid, entry.mtime, entry.content().read(), entry.device
    )  # fmt: skip


def written(tree: list[Entry], epoch: int = EPOCH) -> bytes:
    output = io.BytesIO()
    cpio.write(tree, output, epoch)
    return output.getvalue()


def made(path: str, kind: int, numbers: tuple[int, int, int], data: bytes) -> Entry:
    mode, owner, mtime = numbers
    content = data if kind in (stat.S_IFREG, stat.S_IFLNK) else b""
    device = (4, 64) if kind == stat.S_IFCHR else (0, 0)
    return Entry(
        path, kind | mode, owner, owner + 1, mtime, len(content), lambda: io.BytesIO(content), device
    )


kinds = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR])
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda path: path != "TRAILER!!!"
)
numbers = st.tuples(st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 1))
trees = st.lists(
    st.builds(made, paths, kinds, numbers, st.binary(max_size=50)), max_size=8, unique_by=lambda e: e.path
)


class TestWriting:
    @given(tree=trees)
    @settings(max_examples=100, deadline=None)
    def test_what_is_read_is_what_was_written_in_order_and_no_newer(self, tree: list[Entry]) -> None:
        wanted = [plain(entry.newest(EPOCH)) for entry in sorted(tree, key=lambda e: e.path.encode())]
        assert [plain(entry) for entry in cpio.read(io.BytesIO(written(tree)))] == wanted

    @given(tree=trees, seed=st.randoms())
    @settings(max_examples=50, deadline=None)
    def test_the_order_that_it_is_told_in_makes_no_difference(self, tree: list[Entry], seed: object) -> None:
        other = list(tree)
        seed.shuffle(other)  # type: ignore[attr-defined]
        assert written(other) == written(tree)

    def test_folders_come_before_what_is_in_them(self) -> None:
        tree: entries.Tree = {}
        entries.put(tree, entries.text("a/b/c", "x"), entries.text("a-b", "y"))
        order = [entry.path for entry in cpio.read(io.BytesIO(written(list(tree.values()))))]
        assert order.index("a") < order.index("a/b") < order.index("a/b/c")

    def test_the_form_is_the_kernels(self) -> None:
        data = written([entries.text("ab", "xyz", 0o640, (7, 8))])
        assert data[:6] == b"070701"
        assert data[14:22] == b"000081a0"  # S_IFREG | 0640
        assert data[110:113] == b"ab\0"
        assert data[116:119] == b"xyz"  # header and name, then content: each filled up to 4 bytes
        assert len(data) % 4 == 0

    def test_compressed_it_is_the_same_twice(self, tmp_path: Path) -> None:
        tree = [entries.text("a", "x" * 5000), entries.link("b", "a")]
        for name in ("one", "two"):
            cpio.compress(tree, tmp_path / name, EPOCH)
        one = (tmp_path / "one").read_bytes()
        assert one == (tmp_path / "two").read_bytes()
        assert gzip.decompress(one) == written(tree)
        assert one[4:8] == bytes(4)  # no time of the build

    def test_a_file_that_changes_while_it_is_read_is_refused(self) -> None:
        entry = Entry("a", stat.S_IFREG | 0o644, size=3, content=lambda: io.BytesIO(b"four"))
        with pytest.raises(ImageError, match="gave 4 bytes, wanted the 3"):
            written([entry])

    def test_a_number_that_has_no_room_is_refused(self) -> None:
        with pytest.raises(ImageError, match="32 bits"):
            written([Entry("a", stat.S_IFREG, uid=2**32)])


class TestReading:
    @given(data=st.binary(max_size=400))
    @settings(max_examples=100, deadline=None)
    def test_arbitrary_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(ImageError):
            list(cpio.read(io.BytesIO(data)))

    def test_a_shorter_archive_is_refused(self) -> None:
        data = written([entries.text("a", "content")])
        end = data.rindex(b"TRAILER!!!")
        for size in range(end + 11):
            with pytest.raises(ImageError):
                list(cpio.read(io.BytesIO(data[:size])))


def tar(path: Path, *members: tuple[str, bytes, str, bytes]) -> Path:
    """(name, type, link's target, content) of each."""
    with tarfile.open(path, "w") as archive:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            member.uid, member.gid, member.mode, member.mtime = 5, 6, 0o751, 100
            archive.addfile(member, io.BytesIO(content))
    return path


class TestTrees:
    def test_every_kind_comes_out_of_a_tar(self, tmp_path: Path) -> None:
        file = tar(
            tmp_path / "t.tar",
            ("./", tarfile.DIRTYPE, "", b""),
            ("./usr", tarfile.DIRTYPE, "", b""),
            ("./usr/a", tarfile.REGTYPE, "", b"content"),
            ("./usr/b", tarfile.LNKTYPE, "./usr/a", b""),
            ("./lib", tarfile.SYMTYPE, "usr/lib", b""),
            ("./dev/null", tarfile.CHRTYPE, "", b""),
        )
        tree = entries.from_tar(file)
        assert set(tree) == {"usr", "usr/a", "usr/b", "lib", "dev/null"}
        assert plain(tree["usr/a"]) == ("usr/a", stat.S_IFREG | 0o751, 5, 6, 100, b"content", (0, 0))
        assert plain(tree["usr/b"]) == ("usr/b", stat.S_IFREG | 0o751, 5, 6, 100, b"content", (0, 0))
        assert tree["lib"].content().read() == b"usr/lib"
        assert stat.S_ISCHR(tree["dev/null"].mode)

    def test_what_cannot_be_in_an_image_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="tar type"):
            entries.from_tar(tar(tmp_path / "t.tar", ("fifo", tarfile.FIFOTYPE, "", b"")))

    def test_no_tar_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "t.tar").write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(ImageError, match=r"t\.tar can't be read"):
            entries.from_tar(tmp_path / "t.tar")

    def test_what_is_put_goes_through_the_links_of_its_folders(self) -> None:
        tree = {"usr": entries.folder("usr"), "lib": entries.link("lib", "usr/lib")}
        entries.put(tree, entries.text("lib/systemd/x", "1"))
        assert "usr/lib/systemd/x" in tree
        assert "usr/lib/systemd" in tree  # its folders are there, too
        assert "lib/systemd/x" not in tree

    def test_a_link_that_leads_upwards_is_refused(self) -> None:
        with pytest.raises(ImageError, match="leads to"):
            entries.put({"a": entries.link("a", "../b")}, entries.text("a/x", "1"))
