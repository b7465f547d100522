"""A store that lies: only the snapshot that the chain anchors is taken, and the error says what was there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from s3_double import S3Double

from k3s_daas_master.sealed.choose import choose
from k3s_daas_master.sealed.errors import Kind, SealedError
from k3s_daas_master.sealed.keys import LocalKeys
from k3s_daas_master.sealed.snapshot import NO_HASH, Identity, digest, seal
from k3s_daas_master.sealed.store import DirectoryStore, Store, name_of

OURS = Identity("localnet", "4c78adac", "0x" + "bb" * 32, "simulated")


class Place:
    """A store with snapshots 1 to 3, each on the one before. `folder` is the directory's alone."""

    def __init__(self, folder: Path, bucket: S3Double | None = None) -> None:
        self.bucket = bucket
        self.folder = folder / "store"
        self.folder.mkdir()
        self.store: Store = DirectoryStore(self.folder) if bucket is None else bucket.store()
        LocalKeys.create(folder / "sealing.key")
        self.keys = LocalKeys(folder / "sealing.key")
        self.sealed: dict[int, bytes] = {}
        previous = NO_HASH
        for counter in (1, 2, 3):
            self.sealed[counter] = self.seal(counter, previous)
            previous = digest(self.sealed[counter])
            self.store.write(self.name(counter), self.sealed[counter])

    def seal(self, counter: int, previous: bytes = NO_HASH, identity: Identity = OURS) -> bytes:
        content = f"state {counter}".encode()
        return seal(content, identity, counter=counter, previous=previous, created_ms=0, keys=self.keys)

    def name(self, counter: int) -> str:
        return name_of(counter, digest(self.sealed[counter]))

    def put(self, counter: int, content: bytes) -> None:
        """Under the name of the anchored one."""
        self.put_by_name(self.name(counter), content)

    def put_by_name(self, name: str, content: bytes) -> None:
        """As only who has the store can, not its user."""
        if self.bucket is None:
            (self.folder / name).write_bytes(content)
        else:
            self.bucket.objects[f"sealed/one/{name}"] = content

    def choose(self, counter: int = 3) -> bytes:
        return choose(self.store, OURS, self.keys, counter, digest(self.sealed[counter])).content

    def refused(self, kind: Kind, words: str) -> None:
        with pytest.raises(SealedError, match=words) as caught:
            self.choose()
        assert caught.value.kind == kind, caught.value
        assert "abandon_snapshots" in str(caught.value) or kind == "foreign"


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, S3Double() if request.param == "s3" else None)


@pytest.fixture
def directory(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_anchored_one_is_taken(place: Place) -> None:
    assert place.choose() == b"state 3"


def test_a_newer_one_that_nobody_anchored_is_not(place: Place) -> None:
    """A master died between writing it and anchoring it."""
    assert place.choose(2) == b"state 2"


def test_an_older_store(place: Place) -> None:
    place.store.remove(place.name(3))
    place.refused("older", r"Found snapshots up to number 2 only; wanted number 3, hash \w{16}…")


def test_an_older_one_under_the_newest_ones_name(place: Place) -> None:
    place.put(3, place.sealed[2])
    place.refused("older", "sealed as number 2; wanted number 3")


def test_a_fork(place: Place) -> None:
    place.store.remove(place.name(3))
    other = place.seal(3)
    place.store.write(name_of(3, digest(other)), other)
    place.refused("forked", "number 3 with the hashes")


def test_a_fork_under_the_anchored_ones_name(place: Place) -> None:
    place.put(3, place.seal(3))
    place.refused("forked", "whole, sealed as number 3")


def test_another_clusters_under_its_name(place: Place) -> None:
    place.put(3, place.seal(3, identity=replace(OURS, registry_id="0x" + "cc" * 32)))
    place.refused("foreign", "Found a snapshot of registry 0xcc.*wanted registry 0xbb")


@pytest.mark.parametrize("size", [0, 1, 40, 200, -1])
def test_a_truncated_one(place: Place, size: int) -> None:
    place.put(3, place.sealed[3][:size])
    place.refused("damaged", "wanted number 3")


def test_a_longer_one(place: Place) -> None:
    place.put(3, place.sealed[3] + b"\0")
    place.refused("damaged", "wanted number 3")


def test_flipped_bits(place: Place) -> None:
    whole = place.sealed[3]
    for at in range(0, len(whole), 7):
        place.put(3, whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with pytest.raises(SealedError) as caught:
            place.choose()
        assert caught.value.kind in ("damaged", "foreign", "version")


def test_an_empty_store(place: Place) -> None:
    for counter in (1, 2, 3):
        place.store.remove(place.name(counter))
    place.put_by_name("notes", b"of somebody else's")
    place.refused("missing", "Found no snapshot; wanted number 3")


def test_only_unanchored_ones(place: Place) -> None:
    for counter in (1, 2, 3):
        place.store.remove(place.name(counter))
    later = place.seal(4)
    place.store.write(name_of(4, digest(later)), later)
    place.refused("missing", "only later ones, which nobody anchored")


class TestDirectory:
    def test_no_folder_is_said(self, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path / "none")
        for act in (store.names, lambda: store.write("a", b"")):
            with pytest.raises(SealedError, match="No such file or directory; wanted a directory") as caught:
                act()
            assert caught.value.kind == "store"

    def test_a_link_and_a_pipe_are_not_followed(self, directory: Place) -> None:
        place = directory
        target = place.folder / place.name(3)
        target.rename(place.folder / "elsewhere")
        target.symlink_to("elsewhere")
        with pytest.raises(SealedError):
            place.choose()
        target.unlink()
        os.mkfifo(target)
        with pytest.raises(SealedError, match="not a regular file"):
            place.choose()

    def test_half_a_write_is_no_snapshot_and_goes_with_the_next(self, directory: Place) -> None:
        place = directory
        (place.folder / ".draft-killed").write_bytes(b"half")
        assert len(place.store.names()) == 3
        place.store.write(place.name(3), place.sealed[3])
        assert sorted(path.name for path in place.folder.iterdir()) == place.store.names()
        assert (place.folder / place.name(3)).stat().st_mode & 0o777 == 0o600
