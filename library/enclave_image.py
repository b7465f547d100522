#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Build the master's enclave image."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: enclave_image
short_description: Build the master's enclave image
version_added: "0.1.0"
description:
  - Makes a root file system of Debian packages that a lock names by their hashes, the daemons' environment
    and given files; with a kernel also the file that a Nitro enclave starts from, and its PCRs.
  - The same inputs give the same bytes. What is there of the same inputs is left alone.
  - Runs on the control node, as root, with mmdebstrap.
options:
  dir:
    description: Where the image goes, with its record C(image.json).
    type: path
    required: true
  cache_dir:
    description: Where packages, and the tree that was made of them, are kept.
    type: path
    required: true
  suite:
    description: Debian's release.
    type: str
    required: true
  architecture:
    description: Debian's name of the architecture.
    type: str
    choices: [amd64, arm64]
    default: amd64
  sources:
    description:
      - Where packages come from, as apt's one-line sources without C(deb).
      - When empty, where this machine has the suite from, with its updates and its security updates.
    type: list
    elements: str
    default: []
  packages:
    description: What the image has beside what is essential.
    type: list
    elements: str
    required: true
  lock:
    description: Every package by version and SHA-256.
    type: path
    required: true
  update_lock:
    description: Make the lock anew from what the sources have now.
    type: bool
    default: false
  python_version:
    description: Python of the suite, as C(major.minor).
    type: str
    required: true
  wheelhouse:
    description: What M(k3s_daas_wheelhouse) built for it.
    type: path
    required: true
  wheelhouse_name:
    description: The wheelhouse's name.
    type: str
    required: true
  users:
    description: System users of the image, each with a group of its name and number.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The name., type: str, required: true}
      number: {description: User and group number., type: int, required: true}
      home: {description: The home directory., type: path, required: true}
  files:
    description:
      - Put over Debian's own, in this order; a folder where none of content, source and target is given.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Where it is in the image., type: str, required: true}
      content: {description: What is in it., type: str}
      source: {description: A file on the control node., type: path}
      target: {description: Where a link leads., type: str}
      mode: {description: "Permissions; C(0644), or C(0755) for a folder, when not given.", type: str}
      owner: {description: A user of the image; the group is that user's., type: str, default: root}
  init:
    description: The program that the kernel starts.
    type: str
    required: true
  nsm_module:
    description: The driver of the security module, for a kernel without it.
    type: path
  kernel:
    description: The kernel. Without it there is no enclave file and no PCR.
    type: path
  cmdline:
    description: The kernel's command line.
    type: str
    default: ""
  eif_build:
    description:
      - AWS's program that writes enclave files. A PCR that it says otherwise than measured here is refused.
    type: str
attributes:
  check_mode:
    support: full
    description: Says whether an image would be made, not which.
  diff_mode:
    support: none
    description: Of bytes there is nothing to show.
author: [K3s-DaaS authors (@k3s-daas)]
"""

EXAMPLES = r"""
- name: Build the image
  enclave_image:
    dir: image
    cache_dir: cache
    suite: bookworm
    packages: [python3, systemd, systemd-sysv]
    lock: packages-amd64.json
    python_version: "3.11"
    wheelhouse: "{{ wheelhouse.path }}"
    wheelhouse_name: "{{ wheelhouse.name }}"
    init: "{{ lookup('ansible.builtin.file', 'init', rstrip=false) }}"
    kernel: /usr/share/nitro_enclaves/blobs/bzImage
    cmdline: "{{ lookup('ansible.builtin.file', '/usr/share/nitro_enclaves/blobs/cmdline') }}"
"""

RETURN = r"""
files:
  description: The SHA-256 of each file that was made, by its name in O(dir).
  type: dict
  returned: when there is an image
pcrs:
  description: PCR0, PCR1 and PCR2 in hex.
  type: dict
  returned: with a kernel, when there is an image
size_bytes:
  description: Size of the enclave's file; without kernel, of the root file system.
  type: int
  returned: when there is an image
inputs:
  description: What it was made of, by hashes.
  type: dict
  returned: when there is an image
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from k3s_daas.image.errors import ImageError
    from k3s_daas.image.run import run
except ImportError:
    run = None

SUBOPTIONS = {
    "users": {
        "name": {"type": "str", "required": True},
        "number": {"type": "int", "required": True},
        "home": {"type": "path", "required": True},
    },
    "files": {
        "path": {"type": "str", "required": True},
        "content": {"type": "str"},
        "source": {"type": "path"},
        "target": {"type": "str"},
        "mode": {"type": "str"},
        "owner": {"type": "str", "default": "root"},
    },
}
OPTIONS = {
    "dir": {"type": "path", "required": True},
    "cache_dir": {"type": "path", "required": True},
    "suite": {"type": "str", "required": True},
    "architecture": {"type": "str", "choices": ["amd64", "arm64"], "default": "amd64"},
    "sources": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "required": True},
    "lock": {"type": "path", "required": True},
    "update_lock": {"type": "bool", "default": False},
    "python_version": {"type": "str", "required": True},
    "wheelhouse": {"type": "path", "required": True},
    "wheelhouse_name": {"type": "str", "required": True},
    "users": {"type": "list", "elements": "dict", "default": [], "options": SUBOPTIONS["users"]},
    "files": {"type": "list", "elements": "dict", "default": [], "options": SUBOPTIONS["files"]},
    "init": {"type": "str", "required": True},
    "nsm_module": {"type": "path"},
    "kernel": {"type": "path"},
    "cmdline": {"type": "str", "default": ""},
    "eif_build": {"type": "str"},
}


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    if run is None:
        module.fail_json(msg=missing_required_lib("k3s-daas"))
    try:
        module.exit_json(**run(module.params, check_mode=module.check_mode))
    except (ImageError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
