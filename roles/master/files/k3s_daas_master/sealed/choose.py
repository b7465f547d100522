"""Which snapshot may be restored: the one that the chain names, and no other.

The store is asked for that one by its name. Where it gives none, or another, this finds out what the store
has instead, for the error to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from k3s_daas_master.sealed import snapshot
from k3s_daas_master.sealed.errors import SealedError
from k3s_daas_master.sealed.keys import Keys
from k3s_daas_master.sealed.snapshot import Header, Identity
from k3s_daas_master.sealed.store import Store, counter_in, name_of

_FIX = (
    "Bring the anchored file into the store from another copy. If it is lost for good, the cluster's state "
    "is: an operator says so on-chain (playbooks/abandon_snapshots.yml), and a new cluster begins."
)


@dataclass(frozen=True)
class Chosen:
    """What is to be restored, and what it is."""

    header: Header
    content: bytes
    hash: bytes


def choose(store: Store, identity: Identity, keys: Keys, counter: int, hash_: bytes) -> Chosen:
    """The snapshot that the chain anchors as the newest: this counter, this hash. Raises SealedError."""
    wanted = f"number {counter}, hash {hash_.hex()[:16]}…, as anchored on-chain"
    name = name_of(counter, hash_)
    sealed = store.read(name)
    if sealed is None:
        raise _instead(store.names(), counter, wanted)
    found = snapshot.digest(sealed)
    if found != hash_:
        raise _another(sealed, identity, keys, counter, f"{name} with hash {found.hex()[:16]}…", wanted)
    header, content = snapshot.unseal(sealed, identity, keys)
    if header.counter != counter:
        raise SealedError("older", f"{name}, sealed as number {header.counter}", wanted, _FIX)
    return Chosen(header, content, found)


def _instead(names: list[str], counter: int, wanted: str) -> SealedError:
    """Why the store hasn't got it, by the names that it has."""
    if any(counter_in(name) == counter for name in names):
        others = ", ".join(name[13:29] + "…" for name in names if counter_in(name) == counter)
        return SealedError("forked", f"number {counter} with the hashes {others} only", wanted, _FIX)
    before = [counter_in(name) for name in names if counter_in(name) < counter]
    if before:
        return SealedError("older", f"snapshots up to number {max(before)} only", wanted, _FIX)
    there = f"only later ones, which nobody anchored ({names[-1][:12]})" if names else "no snapshot"
    return SealedError("missing", there, wanted, _FIX)


def _another(
    sealed: bytes, identity: Identity, keys: Keys, counter: int, found: str, wanted: str
) -> SealedError:
    """What it is that the store shows under the anchored one's name."""
    try:
        header, _ = snapshot.unseal(sealed, identity, keys)
    except SealedError as error:
        if error.kind in ("foreign", "version"):
            return error
        return SealedError("damaged", f"{found}: {error}", wanted, _FIX)
    if header.counter < counter:
        return SealedError("older", f"{found}, sealed as number {header.counter}", wanted, _FIX)
    return SealedError("forked", f"{found}, whole, sealed as number {header.counter}", wanted, _FIX)
