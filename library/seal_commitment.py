#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Make and rotate a seal token where it is used. Standard library only: this runs on the worker itself."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: seal_commitment
short_description: Make a host's seal token and return its commitment
version_added: "0.1.0"
description:
  - Makes the seal token of a worker on the worker, once, and returns only its SHA-256 commitment, which goes
    on-chain. The secret never leaves the host.
  - The file appears complete or not at all, with mode 0600. An existing one is never changed, only checked.
  - Rotates it in three steps, each of which may be killed and run again. V(next) makes the new secret beside
    the live one, C(sui_seal_token) puts its commitment on-chain, V(promoted) renames it.
  - Runs with the Python of the host and needs nothing but its standard library.
  - A seal token has nothing to do with Mysten's Seal.
options:
  node_id:
    description: Name of the worker; an RFC 1123 label. Returned as it is, so that results can be collected.
    type: str
    required: true
  path:
    description: File that holds the secret. Its folder is made with mode 0755 when it doesn't exist.
    type: path
    default: /etc/k3s-daas/seal-token
  state:
    description:
      - V(present) makes the secret when there is none; V(absent) removes it for good.
      - V(next) makes the secret that is to replace it, in the file with C(.next) added to its name. One that
        is there already, of a rotation that was interrupted, is kept.
      - V(promoted) makes the secret with O(commitment) the live one. The one that was live is gone then.
    type: str
    choices: [present, absent, next, promoted]
    default: present
  commitment:
    description: With O(state=promoted), the commitment that the chain has now. Nothing else is renamed.
    type: str
attributes:
  check_mode:
    support: full
    description: Predicts; a secret that isn't there yet has no commitment to predict, which is then empty.
  diff_mode:
    support: full
    description: Shows presence and mode of the file, never its content.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Make the worker's seal token
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
  register: worker_seal
- name: Stake for all workers in one transaction
  sui_stake:
    workers: "{{ ansible_play_hosts | map('extract', hostvars, 'worker_seal') | list }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
    package_id: "{{ package_id }}"
    registry_id: "{{ registry_id }}"
  delegate_to: localhost
  run_once: true
- name: Make the worker's next seal token
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: next
  register: worker_next
- name: Use it, once it is on-chain
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: promoted
    commitment: "{{ worker_next.commitment }}"
- name: Remove the secret of a worker that left
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: absent
"""

RETURN = r"""
node_id:
  description: The name given.
  type: str
  returned: always
commitment:
  description: SHA-256 of the secret in hex, with O(state=next) of the next one; empty when there is none.
  type: str
  returned: always
next_commitment:
  description: SHA-256 of a secret that waits to replace the live one; empty when no rotation is under way.
  type: str
  returned: always
path:
  description: Where the secret is.
  type: str
  returned: always
"""

import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_seal import (
    Refused,
    commitment_at,
    ensure_token,
    next_path,
    promote,
    remove,
)

_NODE_ID = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_COMMITMENT = re.compile(r"[0-9a-f]{64}")


def run(node_id, path, state, commitment, check_mode):
    """(changed, commitment) of bringing the secret at `path` into `state`."""
    if not _NODE_ID.fullmatch(node_id):
        raise Refused(
            f"Found node id {node_id[:80]!r}, wanted an RFC 1123 label: 1 to 63 of a-z, 0-9 and '-', "
            "starting and ending with a letter or digit. Rename the host or set its node id."
        )
    if not path.is_absolute():
        raise Refused(f"Found path {path}, wanted an absolute path.")
    if state == "absent":
        return remove(path, check_mode), ""
    if state == "promoted":
        if check_mode and not commitment:
            return True, ""  # planned: the secret doesn't exist yet
        if not _COMMITMENT.fullmatch(commitment):
            # Not shown: somebody may have passed the secret itself.
            raise Refused(
                f"Found a commitment of {len(commitment)} characters, wanted the 64 hex digits that are "
                "on-chain now, as sui_seal_token returns them."
            )
        return promote(path, commitment, check_mode)
    return ensure_token(next_path(path) if state == "next" else path, check_mode)


def describe(path):
    files = {"live": path, "next": next_path(path)}
    return {name: "present, 0600" if os.path.lexists(file) else "absent" for name, file in files.items()}


def predicted(before, state, changed):
    after = {"present": {"live": "present, 0600"}, "next": {"next": "present, 0600"}}
    after["absent"] = {"live": "absent", "next": "absent"}
    after["promoted"] = {"live": "present, 0600", "next": "absent"}
    return before | after[state] if changed else before


def main():
    module = AnsibleModule(
        argument_spec={
            "node_id": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/k3s-daas/seal-token"},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "next", "promoted"],
                "default": "present",
            },
            "commitment": {"type": "str"},
        },
        required_if=[("state", "promoted", ["commitment"])],
        supports_check_mode=True,
    )
    path, state = Path(module.params["path"]), module.params["state"]
    before = describe(path)
    try:
        wanted = module.params["commitment"] or ""
        changed, commitment = run(module.params["node_id"], path, state, wanted, module.check_mode)
        waiting = "" if state == "absent" else commitment_at(next_path(path))
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Can't keep the seal token at {path}: {error.strerror}. Check folder and disk.")
    module.exit_json(
        changed=changed,
        node_id=module.params["node_id"],
        commitment=commitment,
        next_commitment=waiting,
        path=str(path),
        diff={"before": before, "after": predicted(before, state, changed), "before_header": str(path)},
    )


if __name__ == "__main__":
    main()
