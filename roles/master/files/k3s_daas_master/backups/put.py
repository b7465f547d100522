"""Having a backup in place again. k3s and the service are stopped by whoever calls this.

Killed anywhere, it is run again from its start: what is put in place is copied aside whole and renamed.
What was there before is kept (`replaced`), for it may hold what no backup has.
"""

from __future__ import annotations

import datetime as dt
import os
import pwd
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from k3s_daas_master import store
from k3s_daas_master.backups import aftermath
from k3s_daas_master.backups import manifest as manifests
from k3s_daas_master.backups.manifest import STORE, TIME, Manifest
from k3s_daas_master.backups.places import BackupError, Places, have_folder, new_file

#: Made where the cluster began; the datastore can't be read without the second.
_KEYS_OF_ETC = ("agent-token", "encryption.json")
#: k3s reads it over its config.yaml.
_LOOPBACK = "# A restore is under way: run playbooks/restore.yml again.\nbind-address: 127.0.0.1\n"


def check(backup: Path, *, registry_id: str, chain_id: str, ca_hash: str, k3s_version: str) -> Manifest:
    """The manifest of a backup that may be restored; nothing is changed.

    `registry_id`, `chain_id` and `ca_hash` are what the inventory and the chain say now (`ca_hash` is "" as
    long as no master has announced one), `k3s_version` is what is installed. Raises BackupError.
    """
    found = manifests.load(backup)
    if found.registry_id != registry_id:
        raise _other(backup, f"registry {found.registry_id}", registry_id)
    if chain_id and found.chain_id and found.chain_id != chain_id:
        raise _other(backup, f"chain {found.chain_id}", chain_id)
    if ca_hash and found.ca_hash != ca_hash:
        raise _other(backup, f"the cluster whose CA has the hash {found.ca_hash}", f"{ca_hash}, as on-chain")
    if manifests.release(k3s_version) < manifests.release(found.k3s_version):
        raise BackupError(
            f"Found k3s {k3s_version} installed, and a datastore that {found.k3s_version} wrote; wanted that "
            "release or a newer one, as an older one may not read it. Set k3s_binary_version."
        )
    manifests.verify(backup, found)
    if not store.fits(backup / STORE):
        raise BackupError(
            f"The service's store in {backup} has another schema than this release's; wanted the release "
            f"that made it ({found.k3s_daas_version}). Restore with that one, then go on to this."
        )
    return found


def _other(backup: Path, found: str, wanted: str) -> BackupError:
    return BackupError(
        f"Backup {backup} is of {found}; wanted {wanted}. Nothing was changed. Take one of this cluster, "
        "or the inventory of the other one."
    )


def put(
    backup: Path,
    places: Places,
    *,
    owner: str | None = "k3s-daas-master",
    booting: bool = False,
    extra: Mapping[str, bytes] | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> dict[str, int]:
    """Put a backup that was checked in place. Returns what `aftermath.settle` gave up.

    `booting` is for a host that starts without its state: what it has in /etc/rancher/k3s and of manifests
    came with its image and stays, but for the keys, and nobody is kept out of k3s. `extra` are more files for
    the service's state, by name. Raises BackupError, StateError.
    """
    manifest = manifests.load(backup)
    manifests.verify(backup, manifest)
    user = _user(owner)
    server, master = (_beside(path, "restoring") for path in (places.server, places.master))
    try:
        for staged in (server, master):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(mode=0o700, parents=True)
        for entry in manifest.files:
            folder, _, below = entry.path.partition("/")
            target = {"k3s": server, "master": master, "datastore": server / "db"}.get(folder)
            if target is not None:
                _copy(backup / entry.path, target / below, entry.modified_ns)
        given_up = aftermath.settle(master)
        for name, content in (extra or {}).items():
            with new_file(master / name) as file:
                file.write(content)
        for path in [master, *master.rglob("*")]:
            if user is not None:
                os.chown(path, *user)
        if booting:
            _keep_what_came(places.server, server)
            _move_aside(places, now().strftime(TIME))
        elif not places.drop_in.exists():
            _move_aside(places, now().strftime(TIME))
            # From here on what is there is the backup, or half of it.
            _write(places.drop_in, _LOOPBACK)
        for entry in manifest.files:
            folder, _, below = entry.path.partition("/")
            stays = booting and below not in _KEYS_OF_ETC and (places.etc / below).exists()
            if folder == "etc" and not stays:
                _copy(backup / entry.path, places.etc / below, entry.modified_ns)
        # The wallet last: a host that reboots before has no master to announce a cluster made by chance.
        for staged, place in ((server, places.server), (master, places.master)):
            shutil.rmtree(place, ignore_errors=True)
            staged.rename(place)
        os.sync()
    except OSError as error:
        raise BackupError(
            f"{error.filename}: {error.strerror}. Wanted room and rights for the backup's files. What was "
            f"there before is in its place, or kept in {places.replaced}; run this again."
        ) from None
    return given_up


def finish(places: Places) -> bool:
    """The restore is over: k3s may listen for everybody from its next start on. False when it was over."""
    if not places.drop_in.exists():
        return False
    places.drop_in.unlink()
    if not any(places.drop_in.parent.iterdir()):
        places.drop_in.parent.rmdir()
    return True


def _keep_what_came(before: Path, server: Path) -> None:
    """What k3s is to put into its cluster is the image's, or the host's, and no part of the state."""
    if (before / "manifests").is_dir():
        shutil.copytree(before / "manifests", server / "manifests")
    if (before / "logs").is_dir():
        (server / "logs").mkdir(mode=0o700)


def _move_aside(places: Places, name: str) -> None:
    """The wallet first. The server's files stay on their file system, which may be a disk of its own."""
    if places.master.exists() and any(places.master.iterdir()):
        target = places.replaced / name
        have_folder(target.parent)
        shutil.move(places.master, target)
    if places.server.exists():
        places.server.rename(_beside(places.server, f"replaced-{name}"))


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f"{path.name}.{word}")


def _user(name: str | None) -> tuple[int, int] | None:
    if name is None:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise BackupError(
            f"Found no user {name}, wanted the service's. Run playbooks/restore.yml, which makes it."
        ) from None
    return found.pw_uid, found.pw_gid


def _copy(source: Path, target: Path, modified_ns: int) -> None:
    have_folder(target.parent)
    draft = target.with_name(f".{target.name}.restoring")
    draft.unlink(missing_ok=True)
    with (
        source.open("rb") as reader,
        new_file(draft) as writer,
    ):
        shutil.copyfileobj(reader, writer)
    # k3s goes by these times when its files and its datastore tell different things.
    os.utime(draft, ns=(modified_ns, modified_ns))
    draft.rename(target)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(content)
    draft.chmod(0o600)
    draft.rename(path)
