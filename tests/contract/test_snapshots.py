"""snapshots: the newest sealed snapshot of the master's state, by number and hash."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from contract_ledger import Chain, Registry, aborts, events, sha

FIRST, SECOND, THIRD = sha("first"), sha("second"), sha("third")


def newest(registry: Registry) -> tuple[int, bytes, int]:
    """(number, hash, epoch of the master that anchored it)."""
    anchor = registry.anchor()
    return int(anchor["counter"]), base64.b64decode(anchor["hash"]), int(anchor["epoch"])


def test_each_goes_on_from_the_one_before(registry: Registry, master: str) -> None:
    assert registry.anchor() is None
    registry.anchor_snapshot(master, 1, b"", FIRST)
    done = registry.anchor_snapshot(master, 2, FIRST, SECOND)
    assert newest(registry) == (2, SECOND, 1)
    (event,) = events(done, "SnapshotAnchoredEvent")
    assert event == {
        "registry": registry.id,
        "epoch": "1",
        "counter": "2",
        "hash": base64.b64encode(SECOND).decode(),
        "anchored_at_ms": str(registry.chain.now_ms),
    }


@pytest.mark.parametrize("counter", [0, 1, 3, 2**64 - 1])
def test_no_number_but_the_next_is_taken(registry: Registry, master: str, counter: int) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    with aborts("ENotTheNextSnapshot"):
        registry.anchor_snapshot(master, counter, FIRST, SECOND)
    assert newest(registry) == (1, FIRST, 1)


def test_the_first_has_number_1(registry: Registry, master: str) -> None:
    for counter in (0, 2):
        with aborts("ENotTheNextSnapshot"):
            registry.anchor_snapshot(master, counter, b"", FIRST)
    with aborts("EOtherPreviousSnapshot"):
        registry.anchor_snapshot(master, 1, SECOND, FIRST)


@pytest.mark.parametrize("previous", [b"", SECOND, FIRST[:31], FIRST + b"\0"])
def test_one_that_goes_on_from_another_is_a_fork(registry: Registry, master: str, previous: bytes) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    with aborts("EOtherPreviousSnapshot"):
        registry.anchor_snapshot(master, 2, previous, SECOND)


@pytest.mark.parametrize("hash_", [b"", FIRST[:31], FIRST + b"\0"])
def test_a_hash_is_32_bytes(registry: Registry, master: str, hash_: bytes) -> None:
    with aborts("EInvalidSnapshotHash"):
        registry.anchor_snapshot(master, 1, b"", hash_)


def test_of_two_masters_of_one_snapshot_one_goes_on(registry: Registry, master: str) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    registry.anchor_snapshot(master, 2, FIRST, SECOND)
    with aborts("ENotTheNextSnapshot"):
        registry.anchor_snapshot(master, 2, FIRST, THIRD)
    with aborts("EOtherPreviousSnapshot"):
        registry.anchor_snapshot(master, 3, FIRST, THIRD)


def test_the_next_master_takes_the_chain_over(registry: Registry, master: str, anne: str) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    old = registry.master_cap
    registry.appoint(anne)
    with aborts("EMasterSuperseded"):
        registry.anchor_snapshot(master, 2, FIRST, SECOND, cap=old)
    registry.anchor_snapshot(anne, 2, FIRST, SECOND)
    assert newest(registry) == (2, SECOND, 2)


def test_a_registrys_anchor_is_its_own(
    registry: Registry, make_registry: Callable[..., Registry], master: str
) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    other = make_registry()
    other.appoint(master)
    other.anchor_snapshot(master, 1, b"", SECOND)
    assert (newest(registry)[1], newest(other)[1]) == (FIRST, SECOND)


class TestAbandoned:
    def test_it_is_not_restored_and_numbers_go_on(self, registry: Registry, master: str) -> None:
        registry.anchor_snapshot(master, 1, b"", FIRST)
        done = registry.call(registry.admin, "snapshots::abandon_snapshots", registry.operator_cap)
        (event,) = events(done, "SnapshotsAbandonedEvent")
        assert (event["counter"], base64.b64decode(event["hash"])) == ("1", FIRST)
        assert newest(registry) == (1, b"", 1)
        with aborts("EOtherPreviousSnapshot"):
            registry.anchor_snapshot(master, 2, FIRST, SECOND)
        with aborts("ENotTheNextSnapshot"):
            registry.anchor_snapshot(master, 1, b"", FIRST)
        registry.anchor_snapshot(master, 2, b"", SECOND)
        assert newest(registry) == (2, SECOND, 1)

    def test_there_must_be_something(self, registry: Registry, master: str) -> None:
        for _ in range(2):
            with aborts("ENothingToAbandon"):
                registry.call(registry.admin, "snapshots::abandon_snapshots", registry.operator_cap)
            if registry.anchor() is None:
                registry.anchor_snapshot(master, 1, b"", FIRST)
                registry.call(registry.admin, "snapshots::abandon_snapshots", registry.operator_cap)


def test_where_attestation_is_required_an_unattested_master_anchors_nothing(
    registry: Registry, chain: Chain, master: str
) -> None:
    registry.anchor_snapshot(master, 1, b"", FIRST)
    registry.call(registry.admin, "nautilus::enable_attestation", registry.admin_cap)
    with aborts("EMasterSuperseded"):
        registry.anchor_snapshot(master, 2, FIRST, SECOND)
    assert newest(registry) == (1, FIRST, 1)
