#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Fill a fleet's reward pool, and pay out what its workers earned."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_rewards
short_description: Fund the reward pool and claim rewards
version_added: "0.1.0"
description:
  - Fills the pool from which workers earn rewards, and pays what they earned to their withdrawal addresses.
    What they earn is set with M(sui_registry).
  - Any wallet may fund the pool out of its own SUI, and claim for any worker, since rewards go nowhere else.
    Only moving the treasury to the pool needs a capability, the AdminCap.
options:
  state:
    description:
      - V(funded) brings the pool up to O(pool), and does nothing when it holds as much.
      - V(claimed) pays out what O(node_ids) have earned, and does nothing where that is nothing.
    type: str
    choices: [funded, claimed]
    required: true
  pool:
    description: With V(funded), what the pool is to hold at least, in SUI or MIST.
    type: str
  source:
    description:
      - With V(funded), where the money comes from. V(wallet) gives away SUI of the wallet; V(treasury) moves
        the registry's slash shares, as far as they go.
    type: str
    choices: [wallet, treasury]
    default: wallet
  node_ids:
    description: With V(claimed), the workers; all workers of the registry when not given.
    type: list
    elements: str
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Keep 10 SUI in the reward pool
  sui_rewards:
    state: funded
    pool: "10"
    <<: &chain
      package_id: "{{ package.package_id }}"
      registry_id: "{{ registry.registry_id }}"
      network: localnet
      endpoints: [http://127.0.0.1:9000]
      key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost

- name: Pay out what all workers earned
  sui_rewards:
    <<: *chain
    state: claimed
  delegate_to: localhost
"""

RETURN = r"""
pool_mist:
  description: What the pool holds, or will, in MIST.
  type: int
  returned: success
funded_mist:
  description: What this run puts into the pool, or would, in MIST.
  type: int
  returned: success
claimed_mist:
  description: What each worker is paid by this run, or would be, in MIST by node id.
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

from ansible.module_utils.k3s_daas_chain import open_registry, perform, start

try:
    from k3s_daas.registry.rewards import plan_claims, plan_funding
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # start() reports it


async def plan(module, registry, pool):
    """(MIST into the pool, MIST out to workers, what to send)."""
    if module.params["state"] == "funded":
        config = await registry.config()
        funded, operation = await plan_funding(registry, config, pool, module.params["source"])
        return funded, {}, operation
    names = module.params["node_ids"]
    workers = {worker.node_id: worker for worker in await registry.workers()}
    claimed, operation = plan_claims(registry, workers, names)
    return 0, claimed, operation


async def work(module):
    pool = parse_sui(module.params["pool"] or "0")
    async with open_registry(module) as registry:
        before = (await registry.config()).pool_mist
        funded, claimed, operation = await plan(module, registry, pool)
        result, _ = await perform(module, registry.chain, operation)
        diff = {
            "before": {"pool_mist": before, "unclaimed_mist": claimed},
            "after": {"pool_mist": before + funded, "unclaimed_mist": dict.fromkeys(claimed, 0)},
        }
        figures = {"pool_mist": before + funded, "funded_mist": funded, "claimed_mist": claimed}
        return result | figures | {"diff": diff}


def main():
    spec = {
        "state": {"type": "str", "choices": ["funded", "claimed"], "required": True},
        "pool": {"type": "str"},
        "source": {"type": "str", "choices": ["wallet", "treasury"], "default": "wallet"},
        "node_ids": {"type": "list", "elements": "str"},
    }
    start(work, spec, required_if=[("state", "funded", ["pool"])])


if __name__ == "__main__":
    main()
