"""Root's half: copy what is running, seal it, have it in the store."""

from __future__ import annotations

import datetime as dt
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from k3s_daas_master.backups.make import copy_state, version_of_k3s, want_sqlite
from k3s_daas_master.backups.manifest import TIME
from k3s_daas_master.backups.pack import pack
from k3s_daas_master.backups.places import BackupError, Places, have_folder
from k3s_daas_master.config import Config
from k3s_daas_master.sealed import exchange, snapshot
from k3s_daas_master.sealed.exchange import Answer, Base, Request
from k3s_daas_master.sealed.keys import Keys
from k3s_daas_master.sealed.snapshot import NO_HASH, Identity
from k3s_daas_master.sealed.store import Store, counter_in, name_of

#: Not of the state that goes on elsewhere. The attestation's key never leaves where it was made: an enclave
#: that was restored has a new one, and becomes the next master.
_WITHOUT = (
    "master/attestation.key",
    "master/cut-connections",
    f"master/{exchange.REQUEST_NAME}",
    f"master/{exchange.PLACE_NAME}",
)


def identity_of(config: Config) -> Identity:
    """Whose snapshots this configuration's are; its chain_id is there."""
    assert config.chain_id is not None
    return Identity(config.network, config.chain_id, config.registry_id, config.tee_mode)


def draft_of(places: Places) -> Path:
    """Where state lies in the clear for a moment: below a folder that is root's alone."""
    return places.backups / ".draft-snapshot"


def take(
    request: Request,
    config: Config,
    places: Places,
    store: Store,
    keys: Keys,
    *,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    k3s_version: Callable[[Places], str] = version_of_k3s,
) -> Answer:
    """Make the next snapshot, and let go of those that nobody needs. Raises BackupError, SealedError."""
    base, moment = request.base, now()
    want_sqlite(places)
    content = _copy(config, places, moment, k3s_version)
    sealed = snapshot.seal(
        content,
        identity_of(config),
        counter=base.counter + 1,
        previous=bytes.fromhex(base.hash) or NO_HASH,
        created_ms=int(moment.timestamp() * 1000),
        keys=keys,
    )
    made = snapshot.digest(sealed)
    # First those that go, or a full store would never have room again. Of the next number only one that can't
    # be anchored any more goes: another may be, while nobody knows yet.
    if request.discard:
        store.remove(name_of(base.counter + 1, bytes.fromhex(request.discard)))
    for name in store.names():
        if counter_in(name) <= base.counter - config.snapshot_keep:
            store.remove(name)
    store.write(name_of(base.counter + 1, made), sealed)
    return Answer(
        id=request.id,
        made=Base(counter=base.counter + 1, hash=made.hex()),
        copied_ms=int(moment.timestamp() * 1000),
        bytes=len(sealed),
    )


def _copy(config: Config, places: Places, moment: dt.datetime, k3s_version: Callable[[Places], str]) -> bytes:
    draft = draft_of(places)
    try:
        places.home.mkdir(parents=True, exist_ok=True)
        have_folder(places.backups)
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        copy_state(
            places, draft, moment.strftime(TIME), moment, config, k3s_version(places), without=_WITHOUT
        )
        content = io.BytesIO()
        pack(draft, content)
    except OSError as error:
        raise BackupError(
            f"{error.filename}: {error.strerror}. Wanted a running master, and room below {places.backups}. "
            "No snapshot was made; it is tried again."
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return content.getvalue()
