"""Whatever happens on-chain, and wherever between two events the snapshot was read: the index comes right."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from k3s_daas.registry import Deployment, WorkerStatus, parse_event
from k3s_daas_master.index import TokenIndex

NAMES = ("worker-1", "worker-1", "worker-2")
OWNERS = ("0x" + "0a" * 32, "0x" + "0b" * 32)
SETTABLE = (WorkerStatus.ACTIVE, WorkerStatus.OFFLINE, WorkerStatus.JAILED, WorkerStatus.UNBONDING)
# What leads to a name being staked anew is drawn more often: it needs several steps in order.
ORDINARY = [
    "stake",
    "stake",
    "mint",
    "revoke",
    "leave",
    "leave",
    "status",
    "slash",
    "owner mint",
    "owner revoke",
]
ACTIONS = st.tuples(
    st.sampled_from(ORDINARY),
    st.sampled_from(NAMES),
    st.sampled_from(OWNERS),
    st.sampled_from(SETTABLE),
)


def act(chain: Any, action: str, name: str, owner: str, status: WorkerStatus) -> None:
    """Do it if the contract would let it happen."""
    worker = chain.workers.get(name)
    final = worker is not None and worker.status is WorkerStatus.SLASHED
    if action == "stake" and worker is None:
        chain.stake(name, owner)
    elif action == "mint" and worker and not final:
        chain.mint(name, worker.owner)
    elif action == "revoke" and worker and name in chain.worker_tokens:
        chain.revoke(name, worker.owner)
    elif action == "status" and worker and not final:
        chain.set_status(name, status)
    elif action == "slash" and worker and not final:
        chain.slash(name)
    elif action == "leave" and worker and not final:
        chain.set_status(name, WorkerStatus.UNBONDING)
        chain.withdraw(name)
    elif action == "owner mint":
        chain.mint("", owner)
    elif action == "owner revoke" and owner in chain.owner_tokens:
        chain.revoke("", owner)
    chain.clock.advance(1)


def contents(index: TokenIndex) -> tuple[Any, ...]:
    return (
        index.workers,
        index._worker_tokens,
        index._owner_tokens,
        index._by_commitment,
        index._live_per_owner,
    )


A, S = OWNERS[0], WorkerStatus.ACTIVE


# The name was staked, rotated, left and staked anew: its generations begin again.
@example(
    actions=[(step, "worker-1", A, S) for step in ("stake", "mint", "leave", "stake")],
    read_from=12,
    read_until=3,
)
# The worker has gone; its rotation comes again, its registration doesn't.
@example(actions=[(step, "worker-1", A, S) for step in ("stake", "mint", "leave")], read_from=3, read_until=2)
@settings(max_examples=300, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25), read_from=st.integers(0, 12), read_until=st.integers(0, 25))
def test_a_snapshot_and_the_events_since_it_began_give_the_truth(
    make_chain: Any, actions: list[Any], read_from: int, read_until: int
) -> None:
    chain = make_chain()
    snapshot = asyncio.run(chain.snapshot())
    for number, action in enumerate(actions):
        act(chain, *action)
        if number == read_until:
            snapshot = asyncio.run(chain.snapshot())
    # Reading takes a while: events from before its end, at any distance, come again.
    base = max(100, snapshot.checkpoint - read_from)
    index = TokenIndex()
    index.load(snapshot)
    deployment = Deployment("0x" + "aa" * 32, "0x" + "bb" * 32)
    for batch in chain.log:
        if batch.sequence > base:
            for event in batch.events:
                parsed = parse_event(event, deployment)
                assert parsed is not None
                index.apply(parsed)
    truth = TokenIndex()
    truth.load(asyncio.run(chain.snapshot()))
    assert contents(index) == contents(truth)
