# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The API server's EncryptionConfiguration for Secrets: read, taken a step further, written.

Standard library only, Python 3.9 and later: this runs on the master itself. It has one key, or two while one
takes the other's place; plaintext ("identity") is the key before the first.
Source: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import re
import stat

from ansible.module_utils.k3s_daas_seal import sync_directory

IDENTITY = "identity"
_NAME = re.compile(r"key-([1-9][0-9]{0,5})-[0-9]{8}")


class Refused(Exception):
    """Found something that must not be written over; the message never holds a key."""


def number(name):
    """Keys are numbered in the order they were made; plaintext came before the first."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0


def render(keys):
    """The EncryptionConfiguration that has [(name, key in base64), …] in this order."""
    providers = []
    for name, secret in keys:
        if name == IDENTITY:
            providers.append({IDENTITY: {}})
        elif providers and "aesgcm" in providers[-1]:
            providers[-1]["aesgcm"]["keys"].append({"name": name, "secret": secret})
        else:
            providers.append({"aesgcm": {"keys": [{"name": name, "secret": secret}]}})
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }


def parse(content):
    """[(name, key), …] of what render() made; None for anything else."""
    try:
        config = json.loads(content)
        keys = []
        for provider in config["resources"][0]["providers"]:
            keys += [(IDENTITY, "")] if IDENTITY in provider else []
            keys += [(key["name"], key["secret"]) for key in provider.get("aesgcm", {}).get("keys", ())]
        sound = all(
            name == IDENTITY or (number(name) and len(base64.b64decode(key, validate=True)) == 32)
            for name, key in keys
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    names = {name for name, _ in keys}
    whole = sound and 0 < len(keys) == len(names) <= 2 and names != {IDENTITY} and render(keys) == config
    return keys if whole else None


def read(path):
    """The keys of the file at `path`; none when there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o177 or status.st_uid != os.geteuid():
            raise Refused(
                f"Found {path} with mode {stat.S_IMODE(status.st_mode):04o} of user {status.st_uid}, wanted "
                f"a regular file with mode 0600 of user {os.geteuid()}: others may have read the key. "
                "Set mode and owner, then rotate the key."
            )
        keys = parse(file.read())
    if keys is None:
        raise Refused(
            f"Found something in {path} that this module didn't write, wanted one or two AES-GCM keys for "
            "Secrets. Nothing was changed: without its keys the Secrets can't be read. Restore the file."
        )
    return keys


def advance(keys, state, has_data, check_mode=False):
    """The keys after the step `state`. Never loses one that something may be encrypted with.

    `has_data`: whether there is a datastore, which may hold plaintext. In check mode the step before this one
    was only planned.
    """
    newest_writes = len(keys) == 2 and number(keys[0][0]) > number(keys[1][0])
    if not keys and (state == "present" or check_mode):
        return [(IDENTITY, "")] * has_data + [new_key(1)]
    if not keys:
        raise Refused("Found no key to rotate, wanted one. Run playbooks/master.yml, which makes the first.")
    if state == "reader" and len(keys) == 1:
        return [*keys, new_key(number(keys[0][0]) + 1)]
    if state == "writer" and len(keys) == 2 and not newest_writes:
        return keys[::-1]
    if state == "alone" and len(keys) == 2:
        if not newest_writes and not check_mode:
            raise Refused(
                f"Found that {keys[1][0]} doesn't write yet, wanted every Secret rewritten with it before "
                f"{keys[0][0]} is dropped. Nothing was changed. Run state writer, restart, rewrite them."
            )
        return [max(keys, key=lambda key: number(key[0]))]
    return keys


def new_key(place):
    today = dt.datetime.now(dt.timezone.utc)  # noqa: UP017 - Python 3.9 has no dt.UTC
    return f"key-{place}-{today:%Y%m%d}", base64.b64encode(os.urandom(32)).decode("ascii")


def write(path, keys):
    """Put the keys at `path`, complete or not at all, over a power cut too."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)  # whatever the umask: others read other files in here
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # of a run that was killed
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(json.dumps(render(keys), indent=2) + "\n")
        file.flush()
        os.fsync(fd)
    temporary.replace(path)
    sync_directory(path.parent)
