#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Keep the release that a host runs, and put it back. Standard library only: this runs on the hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_way_back
short_description: Keep the release that a host runs, and put it back
version_added: "0.1.0"
description:
  - Keeps configuration, units, the link to the Python environment and the k3s binary of a host before another
    release is deployed, and makes the host what it was, without network and without the old checkout.
  - Keys, seal tokens, the daemons' state and the datastore are none of it.
  - Restarts nothing. Killed anywhere, it is finished by running it again.
  - Runs with the Python of the host and needs nothing but its standard library.
options:
  state:
    description:
      - V(looked) changes nothing.
      - V(begun) keeps the host as it is, unless a promotion is under way already.
      - V(back) puts files and links back as they were kept. Of the k3s binary it only says where it is.
      - V(settled) ends a promotion that went well, V(left) one that was taken back.
    type: str
    choices: [looked, begun, back, settled, left]
    default: looked
  to:
    description: Name of the release that comes, with O(state=begun).
    type: str
    default: ""
  paths:
    description: Patterns of the files and links that a release writes.
    type: list
    elements: str
    required: true
  config:
    description: The daemon's configuration, which a host has that was deployed to.
    type: path
    required: true
  record:
    description: Where the host's release is written down.
    type: path
    default: /etc/k3s-daas/release.json
  server:
    description: Whether the host has the datastore, which k3s doesn't go back over.
    type: bool
    default: false
  folder:
    description: Where it is kept.
    type: path
    default: /var/lib/k3s-daas/release
  k3s:
    description: The k3s binary.
    type: path
    default: /usr/local/bin/k3s
  environment:
    description: The link to the Python environment in use.
    type: path
    default: /opt/k3s-daas/venv
  master_db:
    description: The master's state, whose tables both releases have to know.
    type: path
    default: /var/lib/k3s-daas-master/master.db
  backups:
    description: Where an upgrade of k3s leaves the datastore's backup.
    type: path
    default: /var/lib/k3s-daas/backups
  datastore_keys:
    description: The files with what the datastore is encrypted with. Only whether they change is looked at.
    type: list
    elements: path
    default: [/etc/rancher/k3s/encryption.json, /var/lib/rancher/k3s/server/token]
attributes:
  check_mode:
    support: full
    description: Changes nothing. What O(state=begun) keeps is no part of what a host runs.
  diff_mode:
    support: none
    description: The paths stand in RV(paths).
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Keep what runs
  k3s_daas_way_back:
    state: begun
    to: 3f1c2b7d90aa4e55-v1.34.2+k3s1
    config: /etc/k3s-daas/master.json
    paths: [/etc/k3s-daas/master.json, /etc/systemd/system/k3s-daas-*]
"""

RETURN = r"""
deployed:
  description: Whether anything was deployed to this host.
  type: bool
  returned: success
release:
  description: The record of the release that runs, null without one.
  type: dict
  returned: success
k3s_version:
  description: Version of the installed k3s, empty without one.
  type: str
  returned: success
k3s_unfinished:
  description: Whether an upgrade of k3s was interrupted here.
  type: bool
  returned: success
under_way:
  description: C(to), where the one under way goes, and whether it goes C(back); null when none is under way.
  type: dict
  returned: success
way_back:
  description:
    - What going back means, null where nothing is kept. C(release), C(k3s_version) of then, C(replaces_k3s),
      C(backup) of the datastore that belongs to it, C(units) that only the release of now has, C(refusals) in
      sentences, C(fresh) when nothing was deployed then, C(program) which was k3s, C(restarts_k3s).
  type: dict
  returned: success
paths:
  description: Files and links that were changed or removed.
  type: list
  elements: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_back import go_back, settle, way_back
from ansible.module_utils.k3s_daas_kept import (
    Places,
    Refused,
    about_of,
    begin,
    drop,
    json_of,
    recover,
    version_of,
)


def main():
    paths = {
        "folder": "/var/lib/k3s-daas/release",
        "record": "/etc/k3s-daas/release.json",
        "k3s": "/usr/local/bin/k3s",
        "environment": "/opt/k3s-daas/venv",
        "master_db": "/var/lib/k3s-daas-master/master.db",
        "backups": "/var/lib/k3s-daas/backups",
    }
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["looked", "begun", "back", "settled", "left"],
                "default": "looked",
            },
            "to": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "required": True},
            "config": {"type": "path", "required": True},
            "server": {"type": "bool", "default": False},
            "datastore_keys": {
                "type": "list",
                "elements": "path",
                "no_log": False,
                "default": ["/etc/rancher/k3s/encryption.json", "/var/lib/rancher/k3s/server/token"],
            },
            **{name: {"type": "path", "default": default} for name, default in paths.items()},
        },
        required_if=[("state", "begun", ["to"])],
        supports_check_mode=True,
    )
    params = module.params
    places = Places(
        paths=tuple(params["paths"]),
        config=Path(params["config"]),
        datastore_keys=tuple(Path(path) for path in params["datastore_keys"]),
        **{name: Path(params[name]) for name in paths},
    )
    changed = []
    try:
        if params["state"] != "looked" and not module.check_mode:
            recover(places)
            if params["state"] == "begun":
                begin(places, params["to"])
            elif params["state"] == "back":
                changed = go_back(places, params["server"])
            elif params["state"] == "settled":
                changed = settle(places)
            else:
                drop(places, places.before)
        about = about_of(places.before)
        module.exit_json(
            changed=bool(changed),
            paths=changed,
            deployed=places.config.exists(),
            release=json_of(places.record),
            k3s_version=version_of(places.k3s),
            k3s_unfinished=places.k3s.with_name("k3s.previous").exists(),
            under_way=None if about is None else {"to": about["to"], "back": about["back"] is not None},
            way_back=way_back(places, params["server"]),
        )
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}. Mend that and run again.")


if __name__ == "__main__":
    main()
