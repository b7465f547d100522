"""Root's half at the start: a host without its state gets it back, before k3s starts.

has its state            nothing to do; the service finds out whether it is still the newest
has one, overtaken       nothing starts (see `fence`)
the chain anchors none   nothing to do; a new cluster begins
the chain anchors one    that very snapshot, or nothing starts
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
import tarfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from k3s_daas.chain.errors import ChainError
from k3s_daas_master.backups.make import version_of_binary
from k3s_daas_master.backups.pack import unpack
from k3s_daas_master.backups.places import OVERTAKEN, BackupError, Places, have_folder
from k3s_daas_master.backups.put import check, put
from k3s_daas_master.clock import Clock
from k3s_daas_master.config import Config
from k3s_daas_master.freshness import STALE_MS
from k3s_daas_master.sealed import exchange
from k3s_daas_master.sealed.choose import choose
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.exchange import Base, Place
from k3s_daas_master.sealed.keys import Keys
from k3s_daas_master.sealed.store import Store
from k3s_daas_master.sealed.take import draft_of, identity_of

_RETRY_S = 3.0


@dataclass(frozen=True)
class Word:
    """The chain's. `counter` 0 and an empty hash: no snapshot is anchored, or it was given up.

    `ca_hash` is hex, empty as long as no master has announced itself; `time_ms` the newest checkpoint's.
    """

    counter: int
    hash: bytes
    ca_hash: str
    time_ms: int


def has_state(places: Places) -> bool:
    """The wallet is the last that is put in place."""
    return (places.master / "sui.key").exists()


def restore(
    word: Word,
    config: Config,
    places: Places,
    store: Store,
    keys: Keys,
    *,
    owner: str | None = "k3s-daas-master",
) -> dict[str, Any]:
    """Have the anchored snapshot in place; what was done. Raises SealedError, BackupError, StateError."""
    overtaken = places.master / OVERTAKEN
    if overtaken.exists():
        raise SealedError(
            "overtaken",
            f"{overtaken}, which the service left when it learned that another master goes on from here",
            "a state that nobody has overtaken, or none",
            f"Move {places.server} and {places.master} away: without them this host restores the newest "
            "snapshot and takes over. Or leave it off.",
        )
    if has_state(places):
        return {"restored": None, "because": "this host has its state"}
    if not word.hash:
        return {"restored": None, "because": "the chain anchors no snapshot: a new cluster begins"}
    chosen = choose(store, identity_of(config), keys, word.counter, word.hash)
    draft = draft_of(places)
    try:
        places.home.mkdir(parents=True, exist_ok=True)
        have_folder(places.backups)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        unpack(io.BytesIO(chosen.content), draft)
        check(
            draft,
            registry_id=config.registry_id,
            chain_id=config.chain_id or "",
            ca_hash=word.ca_hash,
            k3s_version=version_of_binary(places),
        )
        place = Place(base=Base(counter=word.counter, hash=word.hash.hex()))
        given_up = put(
            draft,
            places,
            owner=owner,
            booting=True,
            extra={exchange.PLACE_NAME: place.model_dump_json().encode()},
        )
    except (OSError, tarfile.TarError) as error:
        raise BackupError(
            f"Snapshot {word.counter} can't be unpacked: {error}. Wanted room below {places.backups}. "
            "This host still has no state; start it again."
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return {
        "restored": word.counter,
        "hash": word.hash.hex(),
        "created_ms": chosen.header.created_ms,
        "given_up": given_up,
    }


async def ask(
    connect: Callable[[], Awaitable[Word]], config: Config, clock: Clock, retry_s: float = _RETRY_S
) -> Word:
    """The chain's word as soon as it gives one that isn't old; until then nothing starts."""
    while True:
        try:
            word = await connect()
        except ChainError as error:
            problem = str(error)
        else:
            # An old word would have an old snapshot restored. On a localnet the chain's clock may be ahead.
            age = clock.now_ms() - word.time_ms
            if age <= STALE_MS and (age >= -STALE_MS or config.network == "localnet"):
                return word
            problem = (
                f"Found a newest checkpoint that is {age} ms old by this host's clock, wanted at most "
                f"{STALE_MS} to either side. Synchronize the clock, or name endpoints that follow the chain."
            )
        print(f"k3s-daas-master snapshot restore: not yet: {problem}", file=sys.stderr, flush=True)
        await asyncio.sleep(retry_s)


async def chain_word(config: Config) -> Word:
    """Asked of all endpoints; what they agree on. Raises ChainError."""
    # Late: the chain's client costs a second and 50 MB, which a host that has its state needn't pay.
    from k3s_daas.chain import SuiClient
    from k3s_daas.registry import AgreedRegistry
    from k3s_daas.registry.snapshots import Anchors

    async with await SuiClient.connect(config.endpoints, config.network, None, config.chain_id) as chain:
        registry = AgreedRegistry(chain, config.deployment)
        newest = await Anchors(registry).newest()
        master = await registry.master()
        # The time last: it is to be no older than what was read.
        _, time_ms = await chain.latest_checkpoint()
    ca_hash = "" if master is None else master.ca_hash.hex()
    if newest is None:
        return Word(0, b"", ca_hash, time_ms)
    return Word(newest.counter, newest.hash, ca_hash, time_ms)
