#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Create the registry of a fleet, change its settings, and migrate it to an upgraded package."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_registry
short_description: Create the registry of a fleet once, and change its settings
version_added: "0.1.0"
description:
  - Creates a registry, unless the wallet's address already administers one of that name in the package.
  - Brings the settings of one that is there to what is asked for. New terms count for workers that stake from
    then on; the others keep those they staked under.
  - Its four capabilities (admin, operator, slasher, arbiter) go to the wallet's address; see M(sui_caps).
  - A registry of an older version of the package is migrated to that of O(package_id), which older versions
    can't use any more.
options:
  name:
    description: Name of the registry, unique among the wallet's registries.
    type: str
    required: true
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  open:
    description: Whether anybody may stake, or only O(allowed_owners). Fixed once the registry is there.
    type: bool
    required: true
  allowed_owners:
    description: Addresses that may stake when O(open=false). Left as it is when not given.
    type: list
    elements: str
  min_stake:
    description: Smallest stake of a worker, in SUI or MIST (V(1.5), V(1500000000 MIST)); at least 1 SUI.
    type: str
    default: "1"
  slash_window_ms:
    description: Milliseconds between proposing and executing a slash; at most 30 days.
    type: int
    required: true
  unbonding_window_ms:
    description: Milliseconds between asking to leave and getting the stake back; at most 30 days.
    type: int
    required: true
  slash_share_bps:
    description: Part of the stake that a slash takes, in basis points; at most 5000.
    type: int
    default: 5000
  require_attestation:
    description:
      - Whether only an attested master is taken. It can be turned on later, which ends a master without
        attestation at once, and never off again.
    type: bool
    required: true
  reward_rates:
    description: What workers earn of the reward pool. Left as it is when not given; all 0 at first.
    type: dict
    suboptions:
      per_request:
        description: For each served request, in SUI or MIST.
        type: str
        required: true
      per_ready_hour:
        description: For each hour of Ready time, in SUI or MIST.
        type: str
        required: true
      cap_per_epoch:
        description: The most that one worker earns in one Sui epoch, in SUI or MIST.
        type: str
        required: true
  state:
    description: A registry holds other people's money and can't be deleted.
    type: str
    choices: [present]
    default: present
extends_documentation_fragment: [k3s_daas, k3s_daas.signer]
"""

EXAMPLES = r"""
- name: Create the demo's registry
  sui_registry:
    name: demo
    package_id: "{{ package.package_id }}"
    open: true
    slash_window_ms: 0
    unbonding_window_ms: 0
    require_attestation: false
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  register: registry
"""

RETURN = r"""
registry_id:
  description: Id of the registry; V(published by this run) in check mode when it isn't there yet.
  type: str
  returned: success
package_id:
  description: The package it belongs to.
  type: str
  returned: success
original_package_id:
  description: The package's first version where it was upgraded since, otherwise empty.
  type: str
  returned: success
operator_cap_id:
  description: Id of the registry's OperatorCap where the wallet holds it, otherwise empty.
  type: str
  returned: success
migrated:
  description: Whether the registry was migrated, or would be.
  type: bool
  returned: success
preview:
  description: What the operator agrees to; see the notes. Of the first transaction, where it takes two.
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
    connect,
    foresee,
    have_ids,
    perform,
    start,
)

try:
    from k3s_daas.chain import Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import Registry
    from k3s_daas.registry.settings import creation, describe, parse_wanted, plan_settings
except ImportError:
    pass  # start() reports it


async def work(module):
    wanted = parse_wanted(module.params)
    result = {"package_id": PLANNED, "registry_id": PLANNED, "original_package_id": ""}
    result |= {"operator_cap_id": "", "migrated": False}
    result["diff"] = {"before": {}, "after": wanted.outcome(None)}
    if not have_ids(module, "package_id"):
        wallet = Key.load(module.params["key_file"]).address
        return result | await foresee(module, creation(PLANNED, wanted, wallet))
    result["package_id"] = package_id = normalize_address(module.params["package_id"])
    async with await connect(module) as chain:
        plan = await plan_settings(chain, package_id, wanted)
        done, _ = await perform(module, chain, plan.operation)
        if plan.config is not None:
            result["diff"] = {"before": describe(plan.config), "after": wanted.outcome(plan.config)}
        elif not module.check_mode:
            # What takes an object that only exists now.
            rest = await plan_settings(chain, package_id, wanted)
            more, _ = await perform(module, chain, rest.operation)
            done |= {name: done[name] + more[name] for name in ("digests", "gas_mist")}
            plan = rest
        if plan.deployment is not None:
            result["registry_id"] = plan.deployment.registry_id
            result["original_package_id"] = plan.deployment.original_id or ""
            registry = Registry(chain, plan.deployment)
            result["operator_cap_id"] = await registry.find_cap("OperatorCap", chain.address) or ""
        return result | done | {"migrated": plan.migrates}


def main():
    rate = {"type": "str", "required": True}
    rates = dict.fromkeys(("per_request", "per_ready_hour", "cap_per_epoch"), rate)
    spec = {
        "name": {"type": "str", "required": True},
        "package_id": {"type": "str", "required": True},
        "open": {"type": "bool", "required": True},
        "allowed_owners": {"type": "list", "elements": "str"},
        "min_stake": {"type": "str", "default": "1"},
        "slash_window_ms": {"type": "int", "required": True},
        "unbonding_window_ms": {"type": "int", "required": True},
        "slash_share_bps": {"type": "int", "default": 5000},
        "require_attestation": {"type": "bool", "required": True},
        "reward_rates": {"type": "dict", "options": rates},
        "state": {"type": "str", "choices": ["present"], "default": "present"},
    }
    start(work, spec, registry=False)


if __name__ == "__main__":
    main()
