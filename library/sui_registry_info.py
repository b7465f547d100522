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
  - Needs no wallet. Runs on the control node, with the Python that has k3s-daas installed.
options:
  node_ids:
    description: Read only these workers; all of them when not given.
    type: list
    elements: str
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  registry_id:
    description: Id of the registry. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  network:
    description: Which Sui network the endpoints serve. Plaintext endpoints are taken on V(localnet) only.
    type: str
    choices: [localnet, devnet, testnet, mainnet]
    required: true
  endpoints:
    description: URLs of the network's gRPC endpoints; the next one is asked when one doesn't answer.
    type: list
    elements: str
    required: true
  chain_id:
    description:
      - Digest of the network's first checkpoint (base58). Known for V(testnet) and V(mainnet).
    type: str
  timeout_s:
    description: Seconds one call may take.
    type: float
    default: 10.0
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
author:
  - K3s-DaaS authors
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

- name: Refuse to go on with a slashed worker
  ansible.builtin.assert:
    that: info.workers[inventory_hostname].status != 'slashed'
"""

RETURN = r"""
exists:
  description: False in check mode when the registry would only be created by the run.
  type: bool
  returned: success
registry:
  description: The registry's terms and totals.
  type: dict
  returned: success
master:
  description: The live master, null before one is appointed.
  type: dict
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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import CONNECTION_SPEC, REGISTRY_SPEC, connect, registry_ids, run

try:
    from k3s_daas.registry import Deployment, Registry, check_node_id
    from k3s_daas.registry.render import to_json
except ImportError:
    pass  # run() reports it


async def work(module):
    names = module.params["node_ids"]
    for name in names or ():
        check_node_id(name)
    if not registry_ids(module, "package_id", "registry_id"):
        return {"changed": False, "exists": False, "registry": {}, "master": None, "workers": {}, "chain": {}}
    async with await connect(module, with_key=False) as chain:
        registry = Registry(chain, Deployment(module.params["package_id"], module.params["registry_id"]))
        sequence, timestamp_ms = await chain.latest_checkpoint()
        if names is None:
            snapshot = await registry.snapshot()
            config, workers, tokens = snapshot.config, snapshot.workers, snapshot.worker_tokens
        else:
            config = await registry.config()
            workers, tokens = await registry.workers_by_id(names), await registry.worker_tokens(names)
        return {
            "changed": False,
            "exists": True,
            "registry": to_json(config),
            "master": to_json(config.master),
            "workers": {
                name: to_json(worker) | {"seal_token": to_json(tokens.get(name))}
                for name, worker in sorted(workers.items())
            },
            "chain": {"id": chain.chain_id, "checkpoint": sequence, "timestamp_ms": timestamp_ms},
        }


def main():
    spec = {"node_ids": {"type": "list", "elements": "str"}} | CONNECTION_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
