"""When a snapshot is made and anchored, and when a master learns that it is none any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from k3s_daas.chain.errors import ChainUnreachable, OutcomeUnknown
from k3s_daas.registry.snapshots import Anchor
from k3s_daas_master.errors import ApiError
from k3s_daas_master.sealed import command
from k3s_daas_master.sealed.snapshot import digest, unseal
from k3s_daas_master.sealed.take import identity_of


def newest(master: Any) -> tuple[int, bytes]:
    return master.anchors.anchor_.counter, master.anchors.anchor_.hash


async def test_the_first_goes_on_from_nothing_and_each_from_the_one_before(master: Any) -> None:
    for _ in range(3):
        await master.look()
        assert master.sealer.problem is None
    assert master.anchors.sent == [1, 2, 3]
    name = master.stored[-1]
    sealed = command.store_of(master.config).read(name)
    assert digest(sealed) == newest(master)[1]
    header, content = unseal(sealed, identity_of(master.config), command.keys_of(master.config))
    assert header.counter == 3
    before = command.store_of(master.config).read(master.stored[-2])
    assert header.previous == digest(before).hex()
    for canary in (b"K10aa::server:secret", b"the wallet", b"/registry/minions/worker-1"):
        assert canary in content
        assert canary not in sealed


async def test_the_attestations_key_stays_where_it_was_made(master: Any) -> None:
    (master.places.master / "attestation.key").write_bytes(b"of this enclave")
    await master.look()
    sealed = command.store_of(master.config).read(master.stored[-1])
    _, content = unseal(sealed, identity_of(master.config), command.keys_of(master.config))
    assert b"of this enclave" not in content
    assert b"attestation.key" not in content


async def test_nothing_of_it_stays_in_clear(master: Any) -> None:
    await master.look()
    assert list(master.places.backups.iterdir()) == []


async def test_those_that_nobody_needs_go(master: Any) -> None:
    for _ in range(6):
        await master.look()
    # snapshot_keep is 2: the newest that is anchored when another is made, and the one before; and that one.
    assert [int(name[:12]) for name in master.stored] == [4, 5, 6]


async def test_nobody_joins_before_the_first_is_anchored(master: Any) -> None:
    with pytest.raises(ApiError, match="not_ready"):
        master.sealer.check_joining()
    assert "first snapshot" in master.sealer.not_ready()
    await master.look()
    master.sealer.check_joining()
    assert master.sealer.not_ready() is None


async def test_a_service_that_starts_anew_goes_on_where_it_was(master: Any) -> None:
    await master.look()
    master.start()
    assert master.sealer.not_ready() is not None
    await master.look()
    assert master.anchors.sent == [1, 2]
    assert master.sealer.not_ready() is None


async def test_who_is_not_the_live_master_makes_none(master: Any) -> None:
    for change in (
        {"loaded": False},
        {"master": None},
        {"master": type("M", (), {"account": "0x1"})},
    ):
        kept = dict(vars(master.index))
        vars(master.index).update(change)
        await master.look()
        vars(master.index).update(kept)
    master.view.fresh = lambda: False
    await master.look()
    master.view.fresh = lambda: True
    master.attester.required = True
    await master.look()
    assert master.stored == []


class TestFenced:
    async def test_of_two_that_were_restored_from_one_snapshot_one_goes_on(self, master: Any) -> None:
        await master.look()
        # What the other did.
        await master.anchors.anchor(2, newest(master)[1], b"o" * 32)
        await master.look()
        assert "another master goes on from here: found snapshot 2" in master.sealer.fenced
        assert master.sealer.not_ready() == master.sealer.fenced
        with pytest.raises(ApiError):
            master.sealer.check_joining()
        await master.look()
        assert newest(master) == (2, b"o" * 32)

    async def test_also_when_the_other_is_faster_by_a_moment(self, master: Any) -> None:
        """Between our look at the chain and our transaction."""
        await master.look()
        before = master.anchors.anchor_
        await master.anchors.anchor(2, before.hash, b"o" * 32)
        real, looks = master.anchors.newest, [before]

        async def newest_() -> Anchor | None:
            return looks.pop() if looks else await real()

        master.anchors.newest = newest_
        await master.look()
        assert master.sealer.fenced is not None

    async def test_an_old_state_that_came_back(self, make_master: Callable[..., Any], master: Any) -> None:
        for _ in range(2):
            await master.look()
        old = {"base": {"counter": 1, "hash": "aa" * 32}}
        (master.places.master / "snapshots.json").write_text(json.dumps(old))
        master.start()
        await master.look()
        assert "found snapshot 2" in master.sealer.fenced
        assert master.anchors.sent == [1, 2]

    async def test_a_state_of_another_line(self, master: Any) -> None:
        """Of the same number, by another master."""
        await master.look()
        master.anchors.anchor_ = Anchor(1, b"o" * 32, 2, 0)
        await master.look()
        assert "epoch 2" in master.sealer.fenced

    async def test_a_cluster_that_began_anew_beside_the_anchored_one(self, master: Any) -> None:
        master.anchors.anchor_ = Anchor(5, b"o" * 32, 1, 0)
        await master.look()
        assert master.sealer.fenced is not None
        assert master.stored == []

    async def test_not_when_an_operator_gave_the_snapshots_up(self, master: Any) -> None:
        master.anchors.anchor_ = Anchor(5, b"", 1, 0)
        await master.look()
        assert newest(master)[0] == 6
        master.anchors.abandon()
        await master.look()
        assert newest(master)[0] == 7
        assert master.sealer.fenced is None

    async def test_not_by_an_endpoint_that_lags(self, master: Any) -> None:
        await master.look()
        first = master.anchors.anchor_
        await master.look()
        master.anchors.lags_behind = first
        await master.look()
        assert master.sealer.fenced is None
        assert "The endpoint lags" in master.sealer.problem
        master.anchors.lags_behind = None
        await master.look()
        assert master.anchors.sent == [1, 2, 3]


class TestTriedAgain:
    async def test_a_refused_one_is_made_anew_and_does_not_stay(self, master: Any) -> None:
        await master.look()
        master.anchors.fail = ChainUnreachable({"a": "down"})
        await master.look()
        assert "down" in master.sealer.problem
        assert len(master.stored) == 2
        await master.look()
        assert master.sealer.problem is None
        assert len(master.stored) == 2
        assert master.anchors.sent == [1, 2]

    async def test_one_that_arrived_although_nobody_said_so(self, master: Any) -> None:
        await master.look()
        master.anchors.fail_after = OutcomeUnknown("lost", {})
        await master.look()
        assert master.sealer.problem is not None
        await master.look()
        assert master.sealer.fenced is None
        assert master.anchors.sent == [1, 2, 3]
        assert [int(name[:12]) for name in master.stored] == [1, 2, 3]

    async def test_one_that_arrived_after_its_service_was_killed(self, master: Any) -> None:
        await master.look()
        master.anchors.fail_after = OutcomeUnknown("lost", {})
        await master.look()
        master.start()
        await master.look()
        assert (master.sealer.fenced, master.sealer.problem) == (None, None)
        assert master.anchors.sent == [1, 2, 3]

    async def test_one_that_arrived_late(self, master: Any) -> None:
        """After the chain was asked, and another was sent."""
        await master.look()
        first = master.anchors.anchor_
        master.anchors.fail = OutcomeUnknown("lost", {})
        await master.look()
        late = master.sealer._place.sent[0]
        master.anchors.fail = ChainUnreachable({"a": "another transaction has the coin"})
        await master.look()
        await master.anchors.anchor(2, first.hash, bytes.fromhex(late.hash))
        await master.look()
        assert (master.sealer.fenced, master.sealer.problem) == (None, None)
        assert newest(master)[0] == 3

    async def test_one_that_never_arrived(self, master: Any) -> None:
        await master.look()
        master.anchors.fail = OutcomeUnknown("lost", {})
        await master.look()
        await master.look()
        assert master.anchors.sent == [1, 2]
        # Nobody knew whether it would be anchored, so it stayed.
        assert [int(name[:12]) for name in master.stored] == [1, 2, 2]

    async def test_what_root_says_is_what_is_shown(self, master: Any) -> None:
        master.config.snapshot_dir.rmdir()
        await master.look()
        assert "wanted a directory" in master.sealer.problem
        assert master.anchors.sent == []
        master.config.snapshot_dir.mkdir()
        await master.look()
        assert master.sealer.problem is None

    async def test_root_that_does_not_answer(self, master: Any) -> None:
        await master.sealer.look()
        assert "k3s-daas-master-snapshot.service" in master.sealer.problem

    async def test_an_old_one_is_an_alert(self, master: Any) -> None:
        await master.look()
        assert master.sealer.alert() is None
        master.sealer.newest = master.sealer.newest.model_copy(
            update={"copied_ms": master.clock.ms - 301_000}
        )
        assert "301 s old, wanted at most 300 s" in master.sealer.alert()


async def test_where_it_is_off_nothing_waits_for_it(make_master: Callable[..., Any]) -> None:
    master = make_master()
    master.anchors = None
    sealer = master.start()
    await sealer.look()
    sealer.check_joining()
    assert (sealer.not_ready(), sealer.alert(), sealer.on) == (None, None, False)


class TestAskedForNow:
    async def test_it_is_anchored_when_the_answer_comes(self, master: Any) -> None:
        async with master.root():
            made = await master.sealer.now()
        assert (made.made.counter, master.anchors.sent) == (1, [1])
        assert newest(master)[1].hex() == made.made.hash

    async def test_one_that_was_begun_before_is_not_enough(self, master: Any) -> None:
        await master.look()
        first = master.sealer.newest
        master.clock.ms = first.copied_ms + 1
        async with master.root():
            made = await master.sealer.now()
        assert (made.made.counter, made.copied_ms > first.copied_ms) == (2, True)

    async def test_who_waited_meanwhile_takes_what_was_begun_later(self, master: Any) -> None:
        async with master.root():
            both = await asyncio.gather(master.sealer.now(), master.sealer.now())
        assert both[0] == both[1]
        assert master.anchors.sent == [1]

    async def test_a_failure_is_told(self, master: Any) -> None:
        master.anchors.fail = ChainUnreachable({"a": "down"})
        async with master.root():
            with pytest.raises(ApiError, match="not_ready") as refused:
                await master.sealer.now()
        assert "down" in refused.value.found

    async def test_one_that_was_overtaken_says_so(self, master: Any) -> None:
        await master.look()
        await master.anchors.anchor(2, newest(master)[1], b"o" * 32)
        master.clock.ms = master.sealer.newest.copied_ms + 1
        async with master.root():
            with pytest.raises(ApiError, match="not_ready") as refused:
                await master.sealer.now()
        assert "another master goes on from here" in refused.value.found

    async def test_who_is_not_the_live_master_makes_none(self, master: Any) -> None:
        master.index.master.account = "0x1"
        with pytest.raises(ApiError, match="not_ready"):
            await master.sealer.now()
        assert master.anchors.sent == []

    async def test_without_sealed_state_there_is_none(self, master: Any) -> None:
        master.anchors = None
        with pytest.raises(ApiError) as refused:
            await master.start().now()
        assert "Turn sealed state on" in refused.value.fix
