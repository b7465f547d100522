#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Give up the sealed snapshots of a fleet's master."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_snapshots
short_description: Give up the sealed snapshots of a fleet's master
version_added: "0.1.0"
description:
  - Says on-chain that the newest sealed snapshot of the master's state is lost. A master that has no state
    begins with an empty cluster then, and no snapshot from before can ever be restored again.
  - Does nothing where no snapshot is anchored, or the newest one was given up already.
  - Needs the wallet with the registry's OperatorCap.
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Give up the snapshots, which are lost
  sui_snapshots:
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
counter:
  description: Number of the newest snapshot; 0 where none was ever anchored.
  type: int
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
    from k3s_daas.registry.operation import Operation
    from k3s_daas.registry.snapshots import plan_abandoning, read_anchor
except ImportError:
    pass  # start() reports it


async def work(module):
    async with open_registry(module) as registry:
        anchor = await read_anchor(registry)
        gone = anchor is None or anchor.abandoned
        operation = Operation() if gone else (await plan_abandoning(registry))[1]
        result, _ = await perform(module, registry.chain, operation)
        counter = 0 if anchor is None else anchor.counter
        before = "none" if gone else f"number {counter}, {anchor.hash.hex()}"
        diff = {"before": {"restorable": before}, "after": {"restorable": "none"}}
        return result | {"counter": counter, "diff": diff}


def main():
    start(work, {})


if __name__ == "__main__":
    main()
