#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Name what a checkout deploys."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_release
short_description: Name what a checkout of the project deploys
version_added: "0.1.0"
description:
  - Hashes the files that decide what a host gets, those of the Python environment as well as roles, modules
    and playbooks, so that two checkouts with the same name deploy the same, whoever made them.
  - Runs on the control node (C(delegate_to=localhost)).
options:
  project:
    description: The checkout.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: Only reads.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Name what this checkout deploys
  k3s_daas_release:
    project: "{{ playbook_dir }}/.."
  delegate_to: localhost
  run_once: true
  register: release
"""

RETURN = r"""
content:
  description: 16 hex digits that change with what is deployed.
  type: str
  returned: success
  sample: 3f1c2b7d90aa4e55
ref:
  description: Where git has the checkout, C(-dirty) when something in it isn't committed; empty without git.
  type: str
  returned: success
  sample: v0.1.0-12-ga9246b6
"""

import hashlib
import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

FOLDERS = ("filter_plugins", "library", "module_utils", "playbooks", "roles", "src")
FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements/hosts.txt")


def files_of(project):
    """Paths below the checkout, in a fixed order; nothing that a run leaves there."""
    found = [project / name for name in FILES]
    for folder in FOLDERS:
        for where, folders, names in os.walk(project / folder):
            folders[:] = [
                name for name in folders if name != "__pycache__" and not name.endswith(".egg-info")
            ]
            found += [Path(where, name) for name in names if not name.endswith(".pyc")]
    return sorted(found)


def content_of(project):
    """16 hex digits. Raises OSError."""
    total = hashlib.sha256()
    for path in files_of(project):
        for part in (str(path.relative_to(project)).encode(), path.read_bytes()):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()[:16]


def ref_of(project):
    """What git calls it; "" without git, or where this is no checkout of it."""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()[:200] if done.returncode == 0 else ""


def main():
    module = AnsibleModule(
        argument_spec={"project": {"type": "path", "required": True}}, supports_check_mode=True
    )
    project = Path(module.params["project"]).resolve()
    try:
        module.exit_json(changed=False, content=content_of(project), ref=ref_of(project))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename}: {error.strerror}. Wanted the project's checkout at {project}; "
            "set `project` to it."
        )


if __name__ == "__main__":
    main()
