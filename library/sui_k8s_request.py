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
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
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

import hashlib
import re

from ansible.module_utils.k3s_daas_chain import Refused, open_registry, perform, start

try:
    from k3s_daas.registry import RequestScheduled, parse_event
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.requests import plan_request
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # start() reports it


def hash_of(module):
    payload, given = module.params["payload"], module.params["payload_hash"]
    if payload is not None:
        return hashlib.sha256(payload.encode()).digest()
    if not re.fullmatch("[0-9a-fA-F]{64}", given):
        raise Refused(f"Found a payload_hash of {len(given)} characters, wanted a SHA-256: 64 hex digits.")
    return bytes.fromhex(given)


async def work(module):
    payload_hash, deposit = hash_of(module), parse_sui(module.params["deposit"])
    async with open_registry(module) as registry:
        wanted = (payload_hash, module.params["priority"], deposit, module.params["candidates"])
        known, candidates, operation = await plan_request(registry, *wanted)
        result, done = await perform(module, registry.chain, operation)
        parsed = [parse_event(event, registry.deployment) for event in done.events]
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
    one = [("payload", "payload_hash")]
    start(work, spec, required_one_of=one, mutually_exclusive=one)


if __name__ == "__main__":
    main()
