#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Appoint the master and keep its wallet in gas."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_master
short_description: Appoint a fleet's master and top up its gas
version_added: "0.1.0"
description:
  - Makes an address the master of a registry, unless it is already. A new appointment voids the last one's
    capability and forgets what that master announced.
  - Sends it gas up to a bound, once it holds less than half of it. The master's key never leaves the master;
    the bound is all that can be lost with it.
options:
  account:
    description:
      - Address of the master's own wallet, as C(k3s-daas-master init-key) prints it.
      - In check mode it may be empty, when the master would only be installed by this run.
    type: str
    required: true
  gas:
    description: Bound of the master's balance, in SUI or MIST; V(0) sends none.
    type: str
    default: "0.5"
  attests:
    description:
      - The master registers an attestation of its own and becomes the master by that. It isn't appointed, and
        gets the gas to register with.
    type: bool
    default: false
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Appoint the master
  sui_master:
    account: "{{ master_account }}"
    gas: "0.5"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
account:
  description: The master's address.
  type: str
  returned: success
epoch:
  description: Number of the master's appointment; 0 where it is only planned, or not attested yet.
  type: int
  returned: success
topped_up_mist:
  description: Gas sent, or to be sent, to the master, in MIST.
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

from ansible.module_utils.k3s_daas_chain import (
    PLANNED,
    foresee,
    have_ids,
    open_registry,
    perform,
    start,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry.mastery import foreseen_master, plan_master
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # start() reports it


async def work(module):
    bound, attests = parse_sui(module.params["gas"]), module.params["attests"]
    if not have_ids(module, "package_id", "registry_id", "account"):
        account = module.params["account"] or PLANNED
        result = await foresee(module, foreseen_master(account, bound, attests=attests))
        return result | outcome(None, None if attests else account, account, 0, bound)
    account = normalize_address(module.params["account"])
    async with open_registry(module) as registry:
        before, top_up, operation = await plan_master(registry, account, bound, attests=attests)
        result, _ = await perform(module, registry.chain, operation)
        now = before if module.check_mode or not operation.builds else await registry.master()
        epoch = now.epoch if now and now.account == account else 0
        was = before.account if before else None
        return result | outcome(was, was if attests else account, account, epoch, top_up)


def outcome(before, after, account, epoch, top_up):
    diff = {
        "before": {"master": before, "topped_up_mist": 0},
        "after": {"master": after, "topped_up_mist": top_up},
    }
    return {"account": account, "epoch": epoch, "topped_up_mist": top_up, "diff": diff}


def main():
    options = {
        "account": {"type": "str", "required": True},
        "gas": {"type": "str", "default": "0.5"},
        "attests": {"type": "bool", "default": False},
    }
    start(work, options)


if __name__ == "__main__":
    main()
