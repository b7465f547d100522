#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Read a registry: its terms, master, workers and seal token records."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_registry_info
short_description: Read a fleet's registry from the chain
version_added: "0.1.0"
description:
  - Reads a registry's terms, its master, its workers and the records of their seal tokens. No secret is
    on-chain, and none is returned.
  - Finds the registry by its ids, or by its name among those that a wallet administers. By name, a registry
    that isn't there is no error; RV(exists) says so.
options:
  name:
    description: Name of the registry, looked up among those that the wallet in O(key_file) administers.
    type: str
  key_file:
    description:
      - Path of a wallet's key. Only its address is used, for O(name) and RV(operator_cap_id).
    type: path
  node_ids:
    description: Read only these workers; all of them when not given.
    type: list
    elements: str
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
  original_package_id:
    description: Id of the package's first version, where it was upgraded since.
    type: str
  registry_id:
    description: Id of the registry. In check mode it may be empty or V(published by this run).
    type: str
extends_documentation_fragment: [k3s_daas]
attributes:
  check_mode:
    description: Only reads.
  diff_mode:
    support: none
    description: Only reads.
"""

EXAMPLES = r"""
- name: Read the registry
  sui_registry_info:
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
  delegate_to: localhost
  register: info

- name: Find the registry that my wallet administers
  sui_registry_info:
    name: my-fleet
    key_file: ~/.k3s-daas/operator.key
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
  delegate_to: localhost
  register: found

- name: Refuse to go on with a slashed worker
  ansible.builtin.assert:
    that: info.workers[inventory_hostname].status != 'slashed'
"""

RETURN = r"""
exists:
  description: Whether there is such a registry; false also where it would only be created by the run.
  type: bool
  returned: success
package_id:
  description: The package of the registry; empty when there is none.
  type: str
  returned: success
original_package_id:
  description: The package's first version where it was upgraded since, otherwise empty.
  type: str
  returned: success
registry_id:
  description: The registry; empty when there is none.
  type: str
  returned: success
registry:
  description: The registry's terms and totals.
  type: dict
  returned: success
master:
  description: The live master, null before one is appointed.
  type: dict
  returned: success
images:
  description: PCR0 and PCR3, in hex, of each image that may attest as the master.
  type: list
  elements: dict
  returned: success
sealed_snapshot:
  description:
    - The newest sealed snapshot of the master's state - its number (C(counter)), its hash, the epoch of the
      master that anchored it, and when; null before the first. The hash is empty once it was given up.
  type: dict
  returned: success
operator_cap_id:
  description: Id of the registry's OperatorCap if the wallet in O(key_file) holds it, otherwise empty.
  type: str
  returned: success
wallet:
  description: Address of the wallet in O(key_file); empty without one.
  type: str
  returned: success
workers:
  description: Record of each worker by node id, with its seal token's record under C(seal_token).
  type: dict
  returned: success
chain:
  description: Chain id, newest checkpoint and its time in ms since 1970.
  type: dict
  returned: success
"""

import asyncio

from ansible.module_utils.k3s_daas_chain import connect, have_registry, open_registry, start

try:
    from k3s_daas.registry import Registry, check_node_id, find_registry
    from k3s_daas.registry.mastery import allowed_images
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.snapshots import read_anchor
except ImportError:
    pass  # start() reports it


NOTHING = {"exists": False, "package_id": "", "registry_id": "", "registry": {}, "master": None}
NOTHING |= {"images": [], "sealed_snapshot": None}
NOTHING |= {"original_package_id": "", "operator_cap_id": "", "wallet": "", "workers": {}}
NOTHING |= {"chain": {}, "changed": False}


async def work(module):
    names = module.params["node_ids"]
    for name in names or ():
        check_node_id(name)
    by_name = module.params["name"] is not None
    if by_name:
        async with await connect(module) as chain:
            deployment = await find_registry(chain, chain.address, module.params["name"])
            if deployment is None:
                return NOTHING | {"wallet": chain.address}
            return await read(Registry(chain, deployment), names)
    if not have_registry(module):
        return NOTHING
    async with open_registry(module, with_key=module.params["key_file"] is not None) as registry:
        return await read(registry, names)


async def read(registry, names):
    chain, deployment = registry.chain, registry.deployment
    sequence, timestamp_ms = await chain.latest_checkpoint()
    if names is None:
        snapshot = await registry.snapshot()
        config, workers, tokens = snapshot.config, snapshot.workers, snapshot.worker_tokens
    else:
        config = await registry.config()
        workers, tokens = await registry.workers_by_id(names), await registry.worker_tokens(names)
    cap = await registry.find_cap("OperatorCap", chain.address) if chain.address else None
    images, anchor = await asyncio.gather(allowed_images(registry), read_anchor(registry))
    return {
        "changed": False,
        "exists": True,
        "package_id": deployment.package_id,
        "original_package_id": deployment.original_id or "",
        "registry_id": deployment.registry_id,
        "registry": to_json(config),
        "master": to_json(config.master),
        "images": to_json(sorted(images)),
        "sealed_snapshot": to_json(anchor),
        "operator_cap_id": cap or "",
        "wallet": chain.address or "",
        "workers": {
            name: to_json(worker) | {"seal_token": to_json(tokens.get(name))}
            for name, worker in sorted(workers.items())
        },
        "chain": {"id": chain.chain_id, "checkpoint": sequence, "timestamp_ms": timestamp_ms},
    }


def main():
    spec = {
        "name": {"type": "str"},
        "key_file": {"type": "path", "no_log": False},
        "package_id": {"type": "str"},
        "original_package_id": {"type": "str"},
        "registry_id": {"type": "str"},
        "node_ids": {"type": "list", "elements": "str"},
    }
    start(
        work,
        spec,
        registry=False,
        key=False,
        required_one_of=[("name", "registry_id")],
        mutually_exclusive=[("name", "registry_id")],
        required_together=[("package_id", "registry_id")],
        required_by={"name": "key_file"},
    )


if __name__ == "__main__":
    main()
