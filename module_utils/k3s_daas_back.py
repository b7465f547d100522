# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The way back to the release that k3s_daas_kept kept: what is in it, what is in its way, and going it.

Standard library only, Python 3.9 and later: this runs on the hosts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
from pathlib import Path

from ansible.module_utils.k3s_daas_kept import (
    Refused,
    about_of,
    datastore_keys,
    drop,
    entry_of,
    extra_paths,
    is_as_before,
    json_of,
    put_back,
    schema_of,
    version_of,
    write_about,
)

#: What must be the same for files of one time to be good at another: keys of master.json and watcher.json.
IDENTITY = ("network", "chain_id", "package_id", "registry_id")
#: What k3s itself reads, when it starts.
K3S_FILES = ("/etc/rancher/", "/etc/systemd/system/k3s.service", "/etc/systemd/system/k3s-agent.service")


def source_of(places):
    """Where there is one to go back to: of the promotion under way, or of the one before. None without."""
    return next((one for one in (places.before, places.kept) if (one / "about.json").exists()), None)


def way_back(places, server):
    """What going back means, as the module returns it; None where nothing is kept."""
    source = source_of(places)
    if source is None:
        return None
    about = about_of(source)
    replaces = bool(about["k3s"]) and about["k3s"] != version_of(places.k3s)
    units = [
        path.name for path in extra_paths(places, about) if path.suffix in (".service", ".path", ".timer")
    ]
    return {
        "fresh": about["fresh"],
        "release": about["release"],
        "k3s_version": about["k3s"],
        "replaces_k3s": replaces,
        "program": str(places.before / "k3s"),
        "backup": backup_of(places, about) if server and replaces else "",
        "units": sorted(set(units)),
        "refusals": [] if about["fresh"] else refusals(places, source, about, server),
        "restarts_k3s": bool((about["back"] or {}).get("restarts_k3s")),
    }


def go_back(places, server):
    """Put files and links back; returns the paths that weren't as they were. Raises Refused."""
    source = source_of(places)
    about = about_of(source) if source is not None else None
    if about is None or about["fresh"]:
        raise Refused(
            "Found no release from before; wanted one that was kept. Go forward, with playbooks/promote.yml."
        )
    in_the_way = refusals(places, source, about, server)
    if in_the_way:
        raise Refused(" ".join(in_the_way) + " Nothing was put back.")
    touched = [name for name, entry in about["entries"].items() if differs(Path(name), entry)]
    touched += [str(path) for path in extra_paths(places, about)]
    # Written first: a run that is killed after the files are back still restarts what has to be.
    restarts = (
        (about["back"] or {}).get("restarts_k3s")
        or any(name.startswith(K3S_FILES) for name in touched)
        or (about["k3s"] and about["k3s"] != version_of(places.k3s))
    )
    write_about(source, dict(about, back={"restarts_k3s": bool(restarts)}))
    if source == places.kept:
        places.kept.rename(places.before)
    return put_back(places, about)


def differs(path, entry):
    return not (path.is_symlink() or path.is_file()) or entry_of(path) != entry


def settle(places):
    """End a promotion that went well: what ran before is kept if it was another. Returns what was removed."""
    about = about_of(places.before)
    if about is not None and (about["fresh"] or is_as_before(places, about)):
        drop(places, places.before)
    elif about is not None:
        drop(places, places.kept)
        places.before.rename(places.kept)
    removed = unused_environments(places)
    for path in removed:
        shutil.rmtree(path)
    return [str(path) for path in removed]


def backup_of(places, about):
    """The newest backup that the kept k3s wrote since, which is its upgrade's; "" without one."""
    found = []
    for path in places.backups.glob("*/manifest.json"):
        manifest = json_of(path) or {}
        if manifest.get("k3s_version") == about["k3s"] and manifest.get("created_ms", 0) >= about["at_ms"]:
            found.append((manifest["created_ms"], str(path.parent)))
    return max(found)[1] if found else ""


def refusals(places, source, about, server):
    """What is in the way of going back, in sentences."""
    found = []
    schema = schema_of(places.master_db)
    if None not in (schema, about["schema"]) and schema != about["schema"]:
        found.append(
            "Found {} with schema {}; wanted {}, which the release before reads: another one wrote it since. "
            "Go forward with a release that reads it, or move the file away: the chain gives it back.".format(
                places.master_db, schema, about["schema"]
            )
        )
    now, then = json_of(places.config) or {}, kept_config(places, source)
    other = [key for key in IDENTITY if now.get(key) and then.get(key) and now[key] != then[key]]
    if other:
        found.append(
            "Found another {} in {} than when the release before ran; wanted the same: contracts that were "
            "upgraded since refuse their old version. Go forward instead.".format(
                " and ".join(other), places.config
            )
        )
    if server and about["k3s"] and about["k3s"] != version_of(places.k3s):
        found += datastore_refusals(places, about)
    return found


def datastore_refusals(places, about):
    """k3s doesn't go back over its own datastore: it needs the backup, and the keys of its time."""
    found = []
    if not backup_of(places, about):
        found.append(
            "Found no backup in {} that k3s {} wrote since the promotion began; wanted the upgrade's, for "
            "k3s doesn't go back over its own datastore. docs/upgrade.md says what is left to do.".format(
                places.backups, about["k3s"]
            )
        )
    if about["datastore_keys"] != datastore_keys(places):
        found.append(
            "Found other keys in {} than when the datastore was backed up; wanted the same: they were "
            "rotated since, and don't open it. Go forward instead.".format(
                " and ".join(str(path) for path in places.datastore_keys)
            )
        )
    return found


def kept_config(places, source):
    with contextlib.suppress(KeyError, OSError, ValueError), tarfile.open(source / "files.tar") as archive:
        return json.loads(archive.extractfile(str(places.config).lstrip("/")).read())
    return {}


def unused_environments(places):
    """Directories of Python environments that neither this release nor the kept one runs in."""
    links = [str(places.environment.readlink())] if places.environment.is_symlink() else []
    about = about_of(places.kept)
    links.append(((about or {}).get("entries", {}).get(str(places.environment)) or {}).get("target", ""))
    used = {link.partition("/")[0] for link in links}
    return sorted(path for path in places.environment.parent.glob("k3s-daas-*") if path.name not in used)
