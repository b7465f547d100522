#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Make, write and remove what a role does in one run. Standard library only: this runs on the hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_files
short_description: Make directories, write files and remove others, all in one run
version_added: "0.1.0"
description:
  - Does for all that a role writes what M(ansible.builtin.file) and M(ansible.builtin.copy) do for one path.
    A module's run costs a quarter of a second a host, whatever it does, and a copy takes two of them.
  - A file appears complete or not at all, and with its owner and mode from the first moment.
  - Runs with the Python of the host and needs nothing but its standard library.
options:
  directories:
    description: Made in this order, before the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is. Directories above it that don't exist get its mode.
        type: path
        required: true
      owner:
        description: Name of its user; left alone when not given.
        type: str
      group:
        description: Name of its group; left alone when not given.
        type: str
      mode:
        description: Its mode.
        type: str
        default: "0755"
  files:
    description: Written in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      content:
        description: What is in it, to the byte. No secrets - differences are shown.
        type: str
        required: true
      owner:
        description: Name of its user; left alone when not given.
        type: str
      group:
        description: Name of its group; left alone when not given.
        type: str
      mode:
        description: Its mode.
        type: str
        default: "0644"
  absent:
    description: Files that are not to be there; removed last.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    support: full
    description: An owner or group that doesn't exist yet counts as one that the run would have made.
  diff_mode:
    support: full
    description: Shows owners, modes and the lines of files that change.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Write the service's configuration and unit
  k3s_daas_files:
    directories:
      - path: /etc/k3s-daas
    files:
      - path: /etc/k3s-daas/service.json
        content: "{{ service_config | to_nice_json }}\n"
        group: k3s-daas-service
        mode: "0640"
      - path: /etc/systemd/system/k3s-daas-service.service
        content: "{{ lookup('ansible.builtin.template', 'k3s-daas-service.service.j2') }}"
  register: service_files
"""

RETURN = r"""
paths:
  description: The directories and files that were made, changed or removed, or would be.
  type: list
  elements: str
  returned: always
"""

import contextlib
import grp
import os
import pwd
import stat
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def numbers(module, wanted):
    """(uid, gid), -1 for one to be left alone; None in check mode when one of them isn't there yet."""
    try:
        uid = pwd.getpwnam(wanted["owner"]).pw_uid if wanted["owner"] else -1
        gid = grp.getgrnam(wanted["group"]).gr_gid if wanted["group"] else -1
    except KeyError as error:
        if module.check_mode:
            return None
        module.fail_json(
            msg=f"{wanted['path']}: {error.args[0]}; wanted it there. Make it in a task before this one."
        )
    return uid, gid


def differs(path, ids, mode):
    """Whether owner, group or mode of what is there are others."""
    found = path.stat()
    return (
        stat.S_IMODE(found.st_mode) != mode
        or ids is None
        or ids[0] not in (-1, found.st_uid)
        or ids[1] not in (-1, found.st_gid)
    )


def make_directory(module, wanted):
    """What differed, as Ansible shows differences, or None."""
    path, ids, mode = Path(wanted["path"]), numbers(module, wanted), int(wanted["mode"], 8)
    there = path.is_dir()
    if not there and (path.exists() or path.is_symlink()):
        module.fail_json(msg=f"Found {path}, which is no directory; wanted one. Move it out of the way.")
    if there and not differs(path, ids, mode):
        return None
    if not module.check_mode:
        for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
            missing.mkdir()
            missing.chmod(mode)
        os.chown(path, *ids)
        path.chmod(mode)
    return {
        "before_header": str(path),
        "after_header": str(path),
        "before": "another owner or mode\n" if there else "",
        "after": f"directory {wanted['owner'] or ''}:{wanted['group'] or ''} {wanted['mode']}\n",
    }


def write_file(module, wanted):
    """What differed, as Ansible shows differences, or None."""
    path, ids, mode = Path(wanted["path"]), numbers(module, wanted), int(wanted["mode"], 8)
    if path.is_dir():
        module.fail_json(msg=f"Found the directory {path}; wanted a file there. Move it out of the way.")
    content = wanted["content"].encode()
    before = path.read_bytes() if path.exists() else None
    if before == content and not differs(path, ids, mode):
        return None
    if not module.check_mode:
        put(path, content, ids, mode, before is not None)
    return {
        "before_header": str(path),
        "after_header": f"{path} {wanted['owner'] or ''}:{wanted['group'] or ''} {wanted['mode']}",
        "before": (before or b"").decode(errors="replace"),
        "after": wanted["content"],
    }


def remove_file(module, path):
    """What was there, as Ansible shows differences, or None."""
    path = Path(path)
    if not (path.exists() or path.is_symlink()):
        return None
    if path.is_dir() and not path.is_symlink():
        module.fail_json(
            msg=f"Found the directory {path}; wanted a file, or nothing. Move it out of the way."
        )
    if not module.check_mode:
        path.unlink()
    return {"before_header": str(path), "after_header": "absent", "before": "a file\n", "after": ""}


def put(path, content, ids, mode, there):
    """Write it beside itself and rename it; owner and group that aren't told stay as they are."""
    if there:
        found = path.stat()
        uid, gid = ids
        ids = (found.st_uid if uid == -1 else uid, found.st_gid if gid == -1 else gid)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chown(temporary, *ids)
        os.chmod(temporary, mode)  # noqa: PTH101  a path from mkstemp
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def main():
    common = {"path": {"type": "path", "required": True}, "owner": {"type": "str"}, "group": {"type": "str"}}
    directory = common | {"mode": {"type": "str", "default": "0755"}}
    file = common | {"content": {"type": "str", "required": True}, "mode": {"type": "str", "default": "0644"}}
    several = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "directories": several | {"options": directory},
            "files": several | {"options": file},
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    steps = [
        *((make_directory, one, one["path"]) for one in module.params["directories"]),
        *((write_file, one, one["path"]) for one in module.params["files"]),
        *((remove_file, path, path) for path in module.params["absent"]),
    ]
    diff = []
    for step, wanted, path in steps:
        try:
            diff.append(step(module, wanted))
        except OSError as error:
            module.fail_json(msg=f"{path}: {error.strerror} ({error.filename}). Mend that and run again.")
    diff = [one for one in diff if one is not None]
    module.exit_json(changed=bool(diff), paths=[one["before_header"] for one in diff], diff=diff)


if __name__ == "__main__":
    main()
