"""A host without its state gets the anchored snapshot back, and nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from k3s_daas.chain.errors import ChainUnreachable
from k3s_daas_master.backups.places import BackupError, Places
from k3s_daas_master.sealed import command
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.put_back import Word, ask, restore
from k3s_daas_master.store import Store


def word(master: Any, **other: Any) -> Word:
    anchor = master.anchors.anchor_
    given = {"counter": anchor.counter, "hash": anchor.hash, "ca_hash": "", "time_ms": master.clock.ms}
    return Word(**(given | other))


def put_back(master: Any, places: Places, said: Word) -> dict[str, Any]:
    config = master.config.model_copy(update={"state_dir": places.master})
    return restore(said, config, places, command.store_of(config), command.keys_of(config), owner=None)


async def test_it_is_what_it_was(
    host: Any, master: Any, empty_places: Places, make_master: Callable[..., Any]
) -> None:
    host.datastore.execute("INSERT INTO kine VALUES (9, '/registry/configmaps/default/one')")
    await master.look()
    host.datastore.execute("INSERT INTO kine VALUES (10, '/registry/configmaps/default/lost')")
    done = put_back(master, empty_places, word(master))
    assert (done["restored"], done["given_up"]["requests"]) == (1, 0)
    for name in ("server/token", "server/tls/server-ca.key", "server/cred/passwd"):
        assert (empty_places.server.parent / name).read_bytes() == (
            host.places.server.parent / name
        ).read_bytes()
    assert (empty_places.master / "sui.key").read_text() == "the wallet"
    with sqlite3.connect(empty_places.datastore) as found:
        rows = [name for (name,) in found.execute("SELECT name FROM kine ORDER BY id")]
    assert rows == ["/registry/minions/worker-1", "/registry/configmaps/default/one"]
    Store(empty_places.master).close()
    # Nobody is kept out, and nothing in clear is left over.
    assert not empty_places.drop_in.exists()
    assert list(empty_places.backups.iterdir()) == []
    # It goes on from there.
    other = make_master(empty_places, master.anchors)
    with sqlite3.connect(empty_places.datastore) as found:
        found.execute("PRAGMA journal_mode=WAL")
    await other.look()
    assert (other.sealer.problem, other.anchors.sent) == (None, [1, 2])
    await master.look()
    assert master.sealer.fenced is not None


async def test_the_images_configuration_stays_and_the_clusters_keys_come_back(
    host: Any, master: Any, empty_places: Places
) -> None:
    (host.places.etc / "config.yaml").write_text("of the last image")
    (host.places.etc / "encryption.json").write_text("the key that Secrets are encrypted with")
    (empty_places.etc / "encryption.json").write_text("made a moment ago")
    await master.look()
    put_back(master, empty_places, word(master))
    assert (empty_places.etc / "config.yaml").read_text() == "of the image"
    assert (empty_places.etc / "encryption.json").read_text() == "the key that Secrets are encrypted with"


async def test_what_the_image_puts_into_its_cluster_stays_the_images(
    host: Any, master: Any, empty_places: Places
) -> None:
    for places, text in ((host.places, "of the last image"), (empty_places, "of the image")):
        (places.server / "manifests").mkdir(parents=True, exist_ok=True)
        (places.server / "manifests/k3s-daas.yaml").write_text(text)
    (empty_places.server / "logs").mkdir()
    await master.look()
    put_back(master, empty_places, word(master))
    assert (empty_places.server / "manifests/k3s-daas.yaml").read_text() == "of the image"
    assert (empty_places.server / "logs").stat().st_mode & 0o777 == 0o700


async def test_a_state_that_was_overtaken_starts_nothing(
    master: Any, empty_places: Places, make_master: Callable[..., Any]
) -> None:
    await master.look()
    (master.places.master / "overtaken").write_text("another master goes on from here\n")
    with pytest.raises(SealedError, match="take") as refused:
        put_back(master, master.places, word(master))
    assert refused.value.kind == "overtaken"
    # It is no part of the state: whoever is restored from it starts.
    await master.look()
    put_back(master, empty_places, word(master))
    assert not (empty_places.master / "overtaken").exists()


async def test_a_host_that_has_its_state_keeps_it(master: Any) -> None:
    await master.look()
    assert put_back(master, master.places, word(master))["because"] == "this host has its state"


async def test_where_nothing_is_anchored_a_new_cluster_begins(master: Any, empty_places: Places) -> None:
    done = put_back(master, empty_places, Word(0, b"", "", 0))
    assert (done["restored"], empty_places.server.exists()) == (None, False)


async def test_killed_in_the_middle_it_is_done_again(
    master: Any, empty_places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    await master.look()
    monkeypatch.setattr("os.sync", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        put_back(master, empty_places, word(master))
    monkeypatch.undo()
    # As if it had been killed before the wallet was in place.
    (empty_places.master / "sui.key").rename(empty_places.master / "gone")
    assert put_back(master, empty_places, word(master))["restored"] == 1
    assert (empty_places.master / "sui.key").exists()
    assert not (empty_places.master / "gone").exists()


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"counter": 2}, SealedError, "Found snapshots up to number 1 only; wanted number 2"),
        ({"hash": b"o" * 32}, SealedError, "number 1 with the hashes"),
        ({"ca_hash": "ee" * 32}, BackupError, "the cluster whose CA has the hash"),
    ],
)
async def test_another_is_refused_and_nothing_is_changed(
    master: Any, empty_places: Places, said: dict[str, Any], error: type[Exception], words: str
) -> None:
    await master.look()
    with pytest.raises(error, match=words):
        put_back(master, empty_places, word(master, **said))
    assert not empty_places.server.exists()
    assert not empty_places.master.exists()


async def test_an_older_k3s_is_refused(host: Any, master: Any, empty_places: Places) -> None:
    await master.look()
    host.places.k3s.write_text("#!/bin/sh\necho 'k3s version v1.33.1+k3s1 (abc)'\n")
    with pytest.raises(BackupError, match=r"Found k3s v1\.33\.1"):
        put_back(master, empty_places, word(master))


class TestTheChainsWord:
    @pytest.mark.parametrize(
        ("age_ms", "network"), [(61_000, "localnet"), (61_000, "testnet"), (-61_000, "testnet")]
    )
    async def test_an_old_word_is_asked_for_again(
        self, master: Any, capsys: pytest.CaptureFixture[str], age_ms: int, network: str
    ) -> None:
        said = [Word(2, b"new", "", master.clock.ms), Word(1, b"old", "", master.clock.ms - age_ms)]

        async def connect() -> Word:
            return said.pop()

        config = master.config.model_copy(update={"network": network})
        assert (await ask(connect, config, master.clock, 0)).counter == 2
        assert f"{age_ms} ms old by this host's clock" in capsys.readouterr().err

    async def test_a_localnets_clock_may_be_ahead(self, master: Any) -> None:
        async def connect() -> Word:
            return Word(1, b"", "", master.clock.ms + 3_600_000)

        assert (await ask(connect, master.config, master.clock, 0)).counter == 1

    async def test_it_waits_for_the_chain(self, master: Any, capsys: pytest.CaptureFixture[str]) -> None:
        answers: list[Any] = [Word(1, b"", "", master.clock.ms), ChainUnreachable({"a": "down"})]

        async def connect() -> Word:
            answer = answers.pop()
            if isinstance(answer, Exception):
                raise answer
            return answer

        assert (await ask(connect, master.config, master.clock, 0)).counter == 1
        assert "not yet: " in capsys.readouterr().err


class TestTheCommand:
    def run(self, host: Any, capsys: pytest.CaptureFixture[str], action: str) -> Any:
        from k3s_daas_master.__main__ import main

        code = main(["snapshot", action, "--config", str(host.places.config)])
        said = capsys.readouterr()
        return code, said.out or said.err

    def test_off_it_restores_nothing(self, host: Any, capsys: pytest.CaptureFixture[str]) -> None:
        code, said = self.run(host, capsys, "restore")
        assert (code, json.loads(said)["because"]) == (0, "sealed state is off")

    def test_the_key_is_made_once(
        self, host: Any, make_master: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, said = self.run(host, capsys, "make-key")
        assert (code, json.loads(said)) == (0, {"changed": False})

    def test_without_a_request_none_is_made(self, master: Any) -> None:
        said = command.answer_request(master.config, master.places, master.answer_file)
        assert said["because"] == "nobody asks for one"
