"""What each worker did with the chain's requests: served and missed, counted once each.

The contract keeps no such total. This master counts what it follows, in the transaction that moves its chain
cursor, so a restart counts nothing twice; what happened before its state was made, or in a replay gap, it
doesn't know.
"""

from __future__ import annotations

from k3s_daas.registry import (
    RegistryEvent,
    RequestCompleted,
    RequestTimedOut,
    StakeWithdrawn,
    WorkerRegistered,
)
from k3s_daas_master.store import Store, Work


def count_work(store: Store, event: RegistryEvent) -> None:
    """Take in one event; call it within the transaction that notes that the event was seen."""
    match event:
        case RequestCompleted():
            store.add_work(event.node_id, Work(served=1))
        case RequestTimedOut() if event.missed:
            store.add_work(event.node_id, Work(missed=1))
        case StakeWithdrawn() | WorkerRegistered():
            store.forget_work(event.node_id)
