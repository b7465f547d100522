"""The form of a sealed snapshot: what was sealed comes back, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3s_daas_master.sealed import snapshot
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.keys import LocalKeys
from k3s_daas_master.sealed.snapshot import NO_HASH, Identity, digest, read_header, seal, unseal

OURS = Identity("localnet", "4c78adac", "0x" + "bb" * 32, "simulated")
CONTENT = b"the server token and the wallet " * 20


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> LocalKeys:
    path = tmp_path_factory.mktemp("keys") / "sealing.key"
    assert LocalKeys.create(path)
    return LocalKeys(path)


@pytest.fixture(scope="module")
def sealed(keys: LocalKeys) -> bytes:
    return seal(CONTENT, OURS, counter=7, previous=b"p" * 32, created_ms=1000, keys=keys)


def test_what_was_sealed_comes_back(sealed: bytes, keys: LocalKeys) -> None:
    header, content = unseal(sealed, OURS, keys)
    assert content == CONTENT
    assert (header.counter, header.previous, header.created_ms) == (7, (b"p" * 32).hex(), 1000)
    assert (header.identity, header.config_version, header.provider) == (OURS, 1, "local")
    assert read_header(sealed) == header


def test_nothing_of_it_is_in_clear(sealed: bytes) -> None:
    assert b"server token" not in sealed


def test_each_has_a_key_of_its_own(keys: LocalKeys) -> None:
    both = [seal(CONTENT, OURS, counter=1, previous=NO_HASH, created_ms=0, keys=keys) for _ in range(2)]
    first, second = map(read_header, both)
    assert first.wrapped_key != second.wrapped_key
    assert first.nonce != second.nonce
    assert digest(both[0]) != digest(both[1])


def test_every_flipped_byte_is_refused(sealed: bytes, keys: LocalKeys) -> None:
    """Each byte, one bit of it: no hash is asked, the seal alone refuses."""
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1 << place % 8
        with pytest.raises(SealedError):
            unseal(bytes(changed), OURS, keys)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_else_is_done_to_it_is_refused(sealed: bytes, keys: LocalKeys, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sealed)))
    end = data.draw(st.integers(start, len(sealed)))
    changed = sealed[:start] + data.draw(st.binary(max_size=40)) + sealed[end:]
    if changed != sealed:
        with pytest.raises(SealedError):
            unseal(changed, OURS, keys)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda raw: snapshot.MAGIC + raw)))
def test_any_bytes_are_no_snapshot(keys: LocalKeys, raw: bytes) -> None:
    with pytest.raises(SealedError):
        unseal(raw, OURS, keys)


@pytest.mark.parametrize(
    "other",
    [
        replace(OURS, registry_id="0x" + "cc" * 32),
        replace(OURS, chain_id="another"),
        replace(OURS, network="testnet"),
        replace(OURS, tee_mode="nitro"),
    ],
)
def test_another_clusters_is_foreign(sealed: bytes, keys: LocalKeys, other: Identity) -> None:
    with pytest.raises(SealedError, match=r"Found a snapshot of registry .* wanted registry ") as caught:
        unseal(sealed, other, keys)
    assert caught.value.kind == "foreign"


def test_a_header_that_names_us_does_not_make_it_ours(sealed: bytes, keys: LocalKeys) -> None:
    theirs = seal(
        CONTENT,
        replace(OURS, registry_id="0x" + "cc" * 32),
        counter=7,
        previous=NO_HASH,
        created_ms=0,
        keys=keys,
    )
    with pytest.raises(SealedError) as caught:
        unseal(theirs.replace(b"cc" * 32, b"bb" * 32), OURS, keys)
    assert caught.value.kind == "key"  # the data key is bound to whose it is, too


def test_another_releases_is_said_to_be(
    sealed: bytes, keys: LocalKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "CONFIG_VERSION", 2)
    with pytest.raises(SealedError, match="config version 1; wanted 2") as caught:
        unseal(sealed, OURS, keys)
    assert caught.value.kind == "version"


def test_more_than_fits_is_not_sealed(keys: LocalKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal(CONTENT, OURS, counter=1, previous=NO_HASH, created_ms=0, keys=keys)
    monkeypatch.setattr(snapshot, "MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(SealedError, match="at most"):
        seal(CONTENT, OURS, counter=1, previous=NO_HASH, created_ms=0, keys=keys)
    with pytest.raises(SealedError, match="more than"):
        unseal(sealed, OURS, keys)


class TestLocalKeys:
    def test_the_file_is_made_once_and_for_nobody_else(self, tmp_path: Path) -> None:
        path = tmp_path / "sealing.key"
        assert LocalKeys.create(path)
        content = path.read_bytes()
        assert not LocalKeys.create(path)
        assert (path.read_bytes(), path.stat().st_mode & 0o777, len(content)) == (content, 0o600, 32)

    def test_another_file_opens_nothing(self, sealed: bytes, tmp_path: Path) -> None:
        path = tmp_path / "sealing.key"
        LocalKeys.create(path)
        with pytest.raises(SealedError, match="Put that file back") as caught:
            unseal(sealed, OURS, LocalKeys(path))
        assert caught.value.kind == "key"

    @pytest.mark.parametrize("wrapped", [b"", b"short", bytes(60)])
    def test_no_bytes_open_by_chance(self, keys: LocalKeys, wrapped: bytes) -> None:
        with pytest.raises(SealedError):
            keys.open_key(wrapped, {})

    def test_a_key_opens_for_what_it_was_made_for_alone(self, keys: LocalKeys) -> None:
        key = keys.new_key({"counter": "1"})
        assert keys.open_key(key.wrapped, {"counter": "1"}) == key.plain
        with pytest.raises(SealedError):
            keys.open_key(key.wrapped, {"counter": "2"})

    @pytest.mark.parametrize(("mode", "size"), [(0o644, 32), (0o600, 31), (0o600, 0)])
    def test_a_file_of_another_form_is_refused(self, tmp_path: Path, mode: int, size: int) -> None:
        path = tmp_path / "sealing.key"
        path.write_bytes(bytes(size))
        path.chmod(mode)
        with pytest.raises(SealedError, match="wanted mode 0600 and 32 bytes"):
            LocalKeys(path).new_key({})

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SealedError, match="No such file"):
            LocalKeys(tmp_path / "none").new_key({})
