#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Submit a request to run something on the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_k8s_request
short_description: Submit a request to the fleet's scheduler
version_added: "0.1.0"
description:
  - Submits a request with a deposit; the contract assigns it to the best of up to 32 candidate workers, who
    earns the deposit. Only the payload's SHA-256 goes on-chain.
  - A request of this wallet with the same payload that is still open is not submitted again. One that has
    ended is forgotten on-chain, so the same payload can be asked for once more.
  - Needs a staked worker of the wallet.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  payload:
    description: What is to be run, such as a manifest. Hand it to the master by other means.
    type: str
  payload_hash:
    description: SHA-256 of the payload in hex, where the payload itself isn't at hand.
    type: str
  priority:
    description: 0 to 10. From 8 on it may take a worker's reserved last slot.
    type: int
    default: 5
  deposit:
    description: What the worker gets, in SUI or MIST (V(0.01), V(10000000 MIST)); at least 0.001 SUI.
    type: str
    required: true
  candidates:
    description: Node ids to choose from, 1 to 32, the first of equals. The best of all when not given.
    type: list
    elements: str
  package_id:
    description: Id of the published package.
    type: str
    required: true
  original_package_id:
    description: Id of the package's first version, where it was upgraded since.
    type: str
  registry_id:
    description: Id of the registry.
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
  key_file:
    description:
      - Path of the owner's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
      - The key stays in this file and in the module's memory.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Checks and simulates everything, sends nothing.
  diff_mode:
    support: full
author:
  - K3s-DaaS authors
"""

EXAMPLES = r"""
- name: Ask the fleet to run a manifest
  sui_k8s_request:
    payload: "{{ lookup('ansible.builtin.file', 'job.yaml') }}"
    deposit: "0.01"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/owner.key
  delegate_to: localhost
  register: asked
"""

RETURN = r"""
request:
  description:
    - The open request with C(request_id), C(node_id) of its worker and C(deadline_ms); in check mode the
      worker that would get it now. A request that was submitted before is shown as it is.
  type: dict
  returned: success
candidates:
  description: Node ids that were named to the contract; empty when the request was open already.
  type: list
  elements: str
  returned: success
payload_hash:
  description: SHA-256 of the payload in hex.
  type: str
  returned: success
preview:
  description:
    - What the operator agrees to, also in check mode. C(summary) says it in sentences, the rest in figures,
      C(gas_estimate_mist), C(stake_locked_mist), C(stake_returned_mist), C(balance_before_mist),
      C(balance_after_mist), C(transactions) and C(slash_conditions).
  type: dict
  returned: success
digests:
  description: The transactions that were sent.
  type: list
  elements: str
  returned: success
gas_mist:
  description: What they cost, or in check mode would cost, in MIST; null where that can't be known yet.
  type: int
  returned: success
"""

import hashlib
import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import (
    CONNECTION_SPEC,
    KEY_SPEC,
    REGISTRY_SPEC,
    Refused,
    connect,
    open_registry,
    perform,
    registry_ids,
    run,
)

try:
    from k3s_daas.registry import RequestScheduled, parse_event
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.requests import plan_request
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # run() reports it


def hash_of(module):
    payload, given = module.params["payload"], module.params["payload_hash"]
    if payload is not None:
        return hashlib.sha256(payload.encode()).digest()
    if not re.fullmatch("[0-9a-fA-F]{64}", given):
        raise Refused(f"Found a payload_hash of {len(given)} characters, wanted a SHA-256: 64 hex digits.")
    return bytes.fromhex(given)


async def work(module):
    payload_hash, deposit = hash_of(module), parse_sui(module.params["deposit"])
    if not registry_ids(module, "package_id", "registry_id"):
        raise Refused("Nobody serves requests in a registry that would only be created by this run.")
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        wanted = (payload_hash, module.params["priority"], deposit, module.params["candidates"])
        known, candidates, operation = await plan_request(registry, *wanted)
        result, events = await perform(module, chain, operation)
        parsed = [parse_event(event, registry.deployment) for event in events]
        made = next((event for event in parsed if isinstance(event, RequestScheduled)), known)
        request = to_json(made)
        return result | {
            "request": request,
            "candidates": candidates,
            "payload_hash": payload_hash.hex(),
            "diff": {"before": to_json(known) or {}, "after": request},
        }


def main():
    spec = {
        "payload": {"type": "str"},
        "payload_hash": {"type": "str"},
        "priority": {"type": "int", "default": 5},
        "deposit": {"type": "str", "required": True},
        "candidates": {"type": "list", "elements": "str"},
    }
    module = AnsibleModule(
        argument_spec=spec | CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC,
        required_one_of=[("payload", "payload_hash")],
        mutually_exclusive=[("payload", "payload_hash")],
        supports_check_mode=True,
    )
    run(module, work)


if __name__ == "__main__":
    main()
