#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Hand a registry's capabilities to the addresses that are to hold them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_caps
short_description: Hand a registry's capabilities to those who are to hold them
version_added: "0.1.0"
description:
  - A new registry's capabilities all belong to the wallet that created it. This hands them on, in one
    transaction, and checks on a rerun that they are where they should be.
  - Outside of V(localnet) one address for O(slasher) and O(arbiter) is refused, since whoever holds both keys
    takes any worker's stake and nobody can stop it. One that isn't given is the wallet's own.
  - What was handed on, only its new holder can hand on again.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  operator:
    description: Address that is to appoint masters (OperatorCap).
    type: str
  slasher:
    description: Address that is to propose slashes (SlasherCap).
    type: str
  arbiter:
    description: Address that is to cancel proposed slashes (ArbiterCap).
    type: str
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  original_package_id:
    description: Id of the package's first version, where it was upgraded since.
    type: str
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
  key_file:
    description:
      - Path of the present holder's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
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
- name: Keep those who propose a slash and those who cancel it apart
  sui_caps:
    slasher: "0x51a5e2000000000000000000000000000000000000000000000000000000a11c"
    arbiter: "0xa2b1000000000000000000000000000000000000000000000000000000000b0b"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
holders:
  description: Address that holds each capability, or will.
  type: dict
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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import (
    CONNECTION_SPEC,
    KEY_SPEC,
    PLANNED,
    REGISTRY_SPEC,
    Key,
    connect,
    open_registry,
    perform,
    registry_ids,
    run,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry.caps import check_separate, plan_caps
except ImportError:
    pass  # run() reports it

CAPS = {"operator": "OperatorCap", "slasher": "SlasherCap", "arbiter": "ArbiterCap"}


async def work(module):
    wallet = Key.load(module.params["key_file"]).address
    wanted = {cap: normalize_address(module.params[who] or wallet) for who, cap in CAPS.items()}
    check_separate(module.params["network"], wanted["SlasherCap"], wanted["ArbiterCap"])
    given = {cap: wanted[cap] for who, cap in CAPS.items() if module.params[who]}
    if not registry_ids(module, "package_id", "registry_id"):
        moves = any(address != wallet for address in given.values())
        result = {"changed": moves, "holders": wanted, "digests": [], "gas_mist": None}
        diff = {"before": dict.fromkeys(wanted, PLANNED), "after": wanted}
        return result | {"preview": {"summary": []}, "diff": diff}
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        before, operation = await plan_caps(registry, given)
        result, _ = await perform(module, chain, operation)
        return result | {"holders": before | given, "diff": {"before": before, "after": before | given}}


def main():
    spec = {who: {"type": "str"} for who in CAPS}
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
