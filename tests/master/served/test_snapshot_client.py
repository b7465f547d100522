"""What an operator gets of a master that is asked for a snapshot: over TLS, with the real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k3s_daas.chain import Key
from k3s_daas.operator import NotDone, Place, ask_snapshot
from k3s_daas_master.errors import ApiError
from k3s_daas_master.sealed.exchange import Answer, Base

KEY = Key(b"o" * 32)


class FakeSealer:
    """Stands for a sealer that works at once, or refuses."""

    def __init__(self) -> None:
        self.refuses: ApiError | None = None

    async def now(self) -> Answer:
        if self.refuses is not None:
            raise self.refuses
        return Answer(id="1", made=Base(counter=7, hash="aa" * 32), copied_ms=5, bytes=1234)


@pytest.fixture
async def place(served: Any) -> Place:
    bench = served.bench
    bench.state.sealer = FakeSealer()
    bench.chain.operator = KEY.address
    await bench.catch_up()
    await bench.state.operators.refresh()
    return Place(served.url, Path(served.ca).read_bytes())


async def test_it_returns_once_the_snapshot_is_anchored(served: Any, place: Place) -> None:
    made = await ask_snapshot(place, KEY, served.bench.config.registry_id, served.bench.clock.ms)
    assert (made.counter, made.hash, made.copied_ms, made.bytes) == (7, "aa" * 32, 5, 1234)


async def test_a_refusal_is_told_with_its_reason(served: Any, place: Place) -> None:
    refusal = ApiError("not_ready", "No snapshot was made.", "a full\nstore", "room", "Fix.")
    served.bench.state.sealer.refuses = refusal
    wanted = r"answered 503: No snapshot was made. Found a full\?store, wanted room"
    with pytest.raises(NotDone, match=wanted) as told:
        await ask_snapshot(place, KEY, served.bench.config.registry_id, served.bench.clock.ms)
    assert told.value.answered


async def test_another_wallet_is_refused(served: Any, place: Place) -> None:
    with pytest.raises(NotDone, match="wanted one of the holder of the registry's OperatorCap"):
        await ask_snapshot(place, Key(b"x" * 32), served.bench.config.registry_id, served.bench.clock.ms)


async def test_a_server_of_another_ca_is_asked_nothing(
    served: Any, place: Place, make_ca: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other_ca = make_ca(tmp_path_factory.mktemp("other"))[0].read_bytes()
    with pytest.raises(NotDone, match="certificate verify failed") as told:
        await ask_snapshot(
            Place(place.endpoint, other_ca), KEY, served.bench.config.registry_id, served.bench.clock.ms
        )
    assert not told.value.answered


async def test_nobody_there_is_told_apart_from_a_refusal(place: Place) -> None:
    with pytest.raises(NotDone) as told:
        await ask_snapshot(Place("https://127.0.0.1:1", place.ca_pem), KEY, "0x" + "1" * 64, 1)
    assert not told.value.answered
