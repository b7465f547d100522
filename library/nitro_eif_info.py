#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""What an enclave image measures. Standard library only: this runs on the parent."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nitro_eif_info
short_description: Read the measurements of an enclave image
version_added: "0.1.0"
description:
  - Asks C(nitro-cli describe-eif) what an enclave image file (EIF) measures. Changes nothing.
  - What it returns is what the file would measure, said by the host that it is on. It proves nothing about
    an enclave that runs.
options:
  path:
    description: The image, on the host.
    type: path
    required: true
  nitro_cli:
    description: The program.
    type: str
    default: nitro-cli
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
- name: Measure the image
  nitro_eif_info:
    path: /var/lib/k3s-daas-enclave/master.eif
  register: image
"""

RETURN = r"""
image:
  description: C(pcr0), C(pcr1), C(pcr2) and C(pcr8) (empty when it isn't signed) in hex, C(version) of the
    format, C(crc_ok), C(signed), C(signature_ok) (null when it isn't signed), and C(name) and
    C(build_time) from its metadata.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_nitro import Cli, NitroError


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "nitro_cli": {"type": "str", "default": "nitro-cli"},
        },
        supports_check_mode=True,
    )
    try:
        image = Cli(module.params["nitro_cli"]).image(module.params["path"])
    except NitroError as error:
        module.fail_json(msg=str(error), code=error.code)
    module.exit_json(changed=False, image=image._asdict())


if __name__ == "__main__":
    main()
