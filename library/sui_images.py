#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""List the enclave images that may attest as a fleet's master."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_images
short_description: List the images that may attest as the master
version_added: "0.1.0"
description:
  - Brings a registry's list of enclave images to O(images), or those images onto or off it, in one
    transaction. Whoever runs a listed image under the IAM role that stands beside it can attest as the
    master.
  - Taking the image of the live master off the list ends that master at once.
  - Needs the wallet with the registry's OperatorCap.
options:
  images:
    description: The images that O(state) speaks of; a list has at most 32.
    type: list
    elements: dict
    required: true
    suboptions:
      pcr0:
        description: PCR0 of the image in hex, as building it prints; 48 bytes, not all zero.
        type: str
        required: true
      pcr3:
        description: PCR3 in hex, the hash of the parent instance's IAM role; 48 bytes, not all zero.
        type: str
        required: true
  state:
    description:
      - V(exact) lets these images attest and no others; with an empty list none.
      - V(present) lets these attest beside those that may already.
      - V(absent) takes these off the list and leaves the others.
    type: str
    choices: [exact, present, absent]
    default: exact
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Let the new image attest beside the one that runs
  sui_images:
    images: ["{{ new_image }}"]
    state: present
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
images:
  description: The list as it is, or would be.
  type: list
  elements: dict
  returned: success
preview:
  description: What the operator agrees to; see the notes.
  type: dict
  returned: success
digests:
  description: The transactions that were sent.
  type: list
  elements: str
  returned: success
gas_mist:
  description: What they cost, or would cost, in MIST.
  type: int
  returned: success
"""

from ansible.module_utils.k3s_daas_chain import open_registry, perform, start

try:
    from k3s_daas.registry.mastery import allowed_images, parse_image, plan_images
    from k3s_daas.registry.render import to_json
except ImportError:
    pass  # start() reports it


async def work(module):
    images = frozenset(parse_image(entry["pcr0"], entry["pcr3"]) for entry in module.params["images"])
    async with open_registry(module) as registry:
        wanted = images
        if module.params["state"] != "exact":
            listed = await allowed_images(registry)
            wanted = listed | images if module.params["state"] == "present" else listed - images
        before, operation = await plan_images(registry, wanted)
        result, _ = await perform(module, registry.chain, operation)
        images = to_json(sorted(wanted))
        diff = {"before": {"images": to_json(sorted(before))}, "after": {"images": images}}
        return result | {"images": images, "diff": diff}


def main():
    pcr = {"type": "str", "required": True}
    images = {"type": "list", "elements": "dict", "required": True, "options": {"pcr0": pcr, "pcr3": pcr}}
    states = {"type": "str", "choices": ["exact", "present", "absent"], "default": "exact"}
    start(work, {"images": images, "state": states})


if __name__ == "__main__":
    main()
