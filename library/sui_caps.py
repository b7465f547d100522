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
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
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

from ansible.module_utils.k3s_daas_chain import (
    PLANNED,
    foresee,
    have_registry,
    open_registry,
    perform,
    start,
)

try:
    from k3s_daas.chain import Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry.caps import check_separate, plan_caps, planned_caps
except ImportError:
    pass  # start() reports it

CAPS = {"operator": "OperatorCap", "slasher": "SlasherCap", "arbiter": "ArbiterCap"}


async def work(module):
    wallet = Key.load(module.params["key_file"]).address
    wanted = {cap: normalize_address(module.params[who] or wallet) for who, cap in CAPS.items()}
    check_separate(module.params["network"], wanted["SlasherCap"], wanted["ArbiterCap"])
    given = {cap: wanted[cap] for who, cap in CAPS.items() if module.params[who]}
    if not have_registry(module):
        moved = {cap: address for cap, address in given.items() if address != wallet}
        result = await foresee(module, planned_caps(moved))
        diff = {"before": dict.fromkeys(wanted, PLANNED), "after": wanted}
        return result | {"holders": wanted, "diff": diff}
    async with open_registry(module) as registry:
        before, operation = await plan_caps(registry, given)
        result, _ = await perform(module, registry.chain, operation)
        return result | {"holders": before | given, "diff": {"before": before, "after": before | given}}


def main():
    start(work, {who: {"type": "str"} for who in CAPS})


if __name__ == "__main__":
    main()
