#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""End a run as one that didn't reach everybody."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: k3s_daas_not_asked
short_description: End a run as one that didn't reach everybody
version_added: "0.1.0"
description:
  - Makes the host count as unreachable, so that C(ansible-playbook) ends with 4. A task that fails would make
    it 2, which says something else where a playbook compares.
options:
  msg:
    description: Who was not reached, and what to do.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
author:
  - K3s-DaaS authors (@k3s-daas)
"""

EXAMPLES = r"""
- name: Say that nothing is known
  k3s_daas_not_asked:
    msg: The chain gave no answer. Run this again when it does.
"""

RETURN = r"""
unreachable:
  description: Always true.
  type: bool
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={"msg": {"type": "str", "required": True}}, supports_check_mode=True)
    module.exit_json(changed=False, unreachable=True, msg=module.params["msg"])


if __name__ == "__main__":
    main()
