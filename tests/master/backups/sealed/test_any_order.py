"""Whatever fails when, and whoever dies where: the anchored snapshot is in the store, and can be restored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from k3s_daas.chain.errors import ChainUnreachable, OutcomeUnknown
from k3s_daas_master.sealed import command
from k3s_daas_master.sealed.choose import choose
from k3s_daas_master.sealed.take import identity_of

ACTIONS = ("make", "make", "make", "refused", "lost", "lost after", "crash", "restored", "full")
# And these, whose service dies before it hears what became of its transaction.
DEADLY = ("died before", "died after")
STEPS = 14


@pytest.mark.parametrize("seed", range(8))
async def test_the_anchored_snapshot_can_always_be_restored(
    make_master: Callable[..., Any], seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    master = make_master()
    done: list[str] = []
    for _ in range(STEPS):
        action = dice.choice(ACTIONS + DEADLY)
        done.append(action)
        match action:
            case "refused":
                master.anchors.fail = ChainUnreachable({"a": "down"})
            case "lost":
                master.anchors.fail = OutcomeUnknown("lost", {})
            case "lost after":
                master.anchors.fail_after = OutcomeUnknown("lost", {})
            case "full":
                master.config.snapshot_dir.chmod(0o500)
        if action == "died before":
            # The snapshot is in the store; nobody is left to anchor it.
            master.anchors.fail = OutcomeUnknown("lost", {})
        if action == "died after":
            master.anchors.fail_after = OutcomeUnknown("lost", {})
        await master.look()
        master.anchors.fail = master.anchors.fail_after = None
        master.config.snapshot_dir.chmod(0o700)
        if action in ("crash", *DEADLY):
            master.start()
        newest = master.anchors.anchor_
        if newest is None:
            continue
        if action == "restored":
            # As `put_back` leaves it: what the state goes on from is what the chain has.
            place = {"base": {"counter": newest.counter, "hash": newest.hash.hex()}}
            (master.places.master / "snapshots.json").write_text(json.dumps(place))
            master.start()
        store, keys = command.store_of(master.config), command.keys_of(master.config)
        chosen = choose(store, identity_of(master.config), keys, newest.counter, newest.hash)
        assert chosen.header.counter == newest.counter, done
        assert master.sealer.fenced is None, done
    await master.look()
    assert master.sealer.problem is None, done
    assert master.anchors.sent == list(range(1, len(master.anchors.sent) + 1))
