"""What a restored store must not go on with: it has no memory of what happened after the backup.

The chain tells most of it: the follower reads every event since the backup's cursor, once, as after a crash.
What only this master knew is lost, and is taken for done, so that nothing happens twice.
"""

from __future__ import annotations

from pathlib import Path

from k3s_daas_master.store import Store


def settle(state_dir: Path) -> dict[str, int]:
    """Settle the store in this directory before a master runs on it; doing it twice changes nothing.

    - A request whose claim or execution was begun may have been executed since: it never is again. Its
      deposit comes back after its deadline.
    - Ready time that waited to be reported may have been: it is given up.
    - A finding that waited to be proposed may have been, and cancelled: it stays a finding.

    Returns how many of each. Raises StateError.
    """
    store = Store(state_dir)
    try:
        with store.transaction():
            return {
                "requests": store.requests.abandon_begun(),
                "ready_time": store.ready_time.forget_all(),
                "findings": store.drop_waiting_findings(
                    "older than the backup that this master was made of: it may have been proposed since"
                ),
            }
    finally:
        store.close()
