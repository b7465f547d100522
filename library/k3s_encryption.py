#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""The keys that Secrets are encrypted with at rest. Standard library only: this runs on the master itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_encryption
short_description: Make and rotate the key that Secrets are encrypted with at rest
version_added: "0.1.0"
description:
  - Keeps the API server's EncryptionConfiguration for Secrets, with AES-GCM keys of 256 bits. Keys are made
    on the host, are in files with mode 0600, and are never returned; their names are.
  - A key is rotated in three steps, V(reader), V(writer) and V(alone). Each is taken on all masters before
    the next, with a restart of every API server between them, and every Secret is rewritten before the last.
    What the file holds tells how far a rotation is, so one that was killed at any point can be run again.
  - Plaintext is the key before the first one. So a cluster that was made without encryption is taken over as
    a key is rotated.
options:
  path:
    description: The EncryptionConfiguration, in JSON. Its folder is made with mode 0755 if it isn't there.
    type: path
    default: /etc/rancher/k3s/encryption.json
  state:
    description:
      - V(present) makes a key when there is none. Where O(datastore) exists already, plaintext is still
        written, and the key only read.
      - V(reader) adds a new key that is read and doesn't write; one that waits already is kept.
      - V(writer) has the newest key write, and the other one read.
      - V(alone) drops the other one. What only that key opens, as an old copy of the datastore, is lost then,
        unless a copy of the file from its time is there too.
    type: str
    choices: [present, reader, writer, alone]
    default: present
  datastore:
    description: The folder that a cluster has which ran already.
    type: path
    default: /var/lib/rancher/k3s/server/db
  unit:
    description: The systemd unit of the API server.
    type: str
    default: k3s.service
attributes:
  check_mode:
    support: full
    description: Predicts, without a key for a name.
  diff_mode:
    support: full
    description: Shows the names of the keys in their order, never a key.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Make the next key
  k3s_encryption:
    state: reader
  notify: Restart k3s

- name: Have it write
  k3s_encryption:
    state: writer
  notify: Restart k3s
"""

RETURN = r"""
names:
  description: The keys' names as the file has them; the first one writes. V(identity) is plaintext.
  type: list
  elements: str
  returned: success
unread:
  description: Whether the API server that runs was started before the file was last changed.
  type: bool
  returned: success
"""

import datetime as dt
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_encryption import Refused, advance, read, write


def is_unread(module, path):
    """Whether the unit's process was started before the file was last changed."""
    show = ["systemctl", "show", "--property=ExecMainStartTimestamp", "--timestamp=us+utc", "--value"]
    code, out, error = module.run_command([*show, module.params["unit"]])
    if code:
        raise Refused(f"systemctl didn't tell when {module.params['unit']} was started: {error.strip()}")
    if not path.exists() or out.strip() in ("", "n/a"):
        return False  # there is nothing to read, or nobody yet who would have
    # Without the day of the week, which would be read in the host's language.
    started = dt.datetime.strptime(out.strip().partition(" ")[2], "%Y-%m-%d %H:%M:%S.%f UTC")
    return path.stat().st_mtime > started.replace(tzinfo=dt.timezone.utc).timestamp()  # noqa: UP017


def work(module):
    path, has_data = Path(module.params["path"]), Path(module.params["datastore"]).is_dir()
    before = read(path)
    after = advance(before, module.params["state"], has_data, module.check_mode)
    if after != before and not module.check_mode:
        write(path, after)
    names = [[name for name, _ in keys] for keys in (before, after)]
    module.exit_json(
        changed=after != before,
        names=names[1],
        unread=is_unread(module, path),
        diff={"before": {"keys": names[0]}, "after": {"keys": names[1]}, "before_header": str(path)},
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/rancher/k3s/encryption.json"},
            "state": {
                "type": "str",
                "choices": ["present", "reader", "writer", "alone"],
                "default": "present",
            },
            "datastore": {"type": "path", "default": "/var/lib/rancher/k3s/server/db"},
            "unit": {"type": "str", "default": "k3s.service"},
        },
        supports_check_mode=True,
    )
    try:
        work(module)
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"Can't keep {error.filename or module.params['path']}: {error.strerror}. "
            "Check folder and disk."
        )


if __name__ == "__main__":
    main()
