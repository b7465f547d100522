#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Stake for workers and mint their seal tokens, in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_stake
short_description: Stake SUI for workers and mint their seal tokens
version_added: "0.1.0"
description:
  - Stakes for all workers that aren't registered yet and puts the commitments of their seal tokens on-chain,
    in one transaction, for all of them or for none.
  - A worker that is there is left alone, after checking that it is ours and that its host holds the secret
    that the chain knows. So a run that was killed at any point can be run again and pays nothing twice.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  workers:
    description: The workers, as M(seal_commitment) returns them. Other keys are ignored.
    type: list
    elements: dict
    required: true
  stake:
    description: Stake of each worker that doesn't say its own, in SUI or MIST (V(1.5), V(1500000000 MIST)).
    type: str
    default: "1"
  withdrawal_address:
    description:
      - Where stakes are paid out to, fixed when staking. The wallet's own address when not given.
    type: str
  token_lifetime_days:
    description:
      - How long a new seal token lives; at most 365 days. Up to a tenth is taken off by name, so that a fleet
        doesn't expire at once.
    type: float
    default: 90.0
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
- name: Stake for all workers in one transaction
  sui_stake:
    workers: "{{ ansible_play_hosts | map('extract', hostvars, 'worker_seal') | list }}"
    stake: "1.5"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  run_once: true

- name: Stake more for one worker
  sui_stake:
    workers:
      - node_id: gpu-1
        commitment: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        stake_mist: 5000000000
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: testnet
    endpoints: [https://fullnode.testnet.sui.io:443]
    key_file: ~/.k3s-daas/owner.key
  delegate_to: localhost
"""

RETURN = r"""
workers:
  description: Record of each worker on-chain by node id, with its seal token's (never the secret).
  type: dict
  returned: success
staked:
  description: Node ids staked, or to be staked, by this run.
  type: list
  elements: str
  returned: success
preview:
  description:
    - What the operator agrees to. C(gas_estimate_mist) (null where the registry doesn't exist yet),
      C(stake_locked_mist), C(balance_before_mist), C(balance_after_mist) and C(slash_conditions).
  type: dict
  returned: success
digest:
  description: The transaction; empty when nothing was sent.
  type: str
  returned: success
gas_mist:
  description: What the transaction cost, in MIST.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import (
    CONNECTION_SPEC,
    KEY_SPEC,
    PLANNED,
    REGISTRY_SPEC,
    connect,
    registry_ids,
    run,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import Deployment, Registry
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.staking import (
        check_lifetime,
        describe,
        parse_wanted,
        plan,
        slash_conditions,
        summary,
    )
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # run() reports it


async def planned(module, wanted):
    """Check mode before the registry exists: everything is to be staked, as far as can be known."""
    async with await connect(module) as chain:
        balance = await chain.balance(chain.address)
        owner = chain.address
    locked = sum(worker.stake_mist for worker in wanted)
    preview = {
        "gas_estimate_mist": None,
        "stake_locked_mist": locked,
        "balance_before_mist": balance,
        "balance_after_mist": balance - locked,
        "slash_conditions": PLANNED,
    }
    return {
        "changed": bool(wanted),
        "workers": {},
        "staked": [worker.node_id for worker in wanted],
        "preview": preview,
        "digest": "",
        "gas_mist": 0,
        "diff": {"before": {}, "after": {w.node_id: summary("pending", owner, w.stake_mist) for w in wanted}},
    }


async def work(module):
    days = module.params["token_lifetime_days"]
    check_lifetime(days)
    wanted = parse_wanted(
        module.params["workers"], parse_sui(module.params["stake"]), without_secrets=module.check_mode
    )
    to = module.params["withdrawal_address"]
    to = None if to is None else normalize_address(to)
    if not registry_ids(module, "package_id", "registry_id"):
        return await planned(module, wanted)
    async with await connect(module) as chain:
        registry = Registry(chain, Deployment(module.params["package_id"], module.params["registry_id"]))
        config, now_ms = await registry.config(), await registry.clock_ms()
        names = [worker.node_id for worker in wanted]
        known, tokens = await registry.workers_by_id(names), await registry.worker_tokens(names)
        todo = plan(wanted, config, chain.address, known, tokens, now_ms, days)
        changed = bool(todo.stake or todo.mint)
        before = await chain.balance(chain.address)
        preview = {
            "gas_estimate_mist": 0,
            "stake_locked_mist": todo.stake_mist,
            "balance_before_mist": before,
            "balance_after_mist": before,
            "slash_conditions": slash_conditions(config),
        }
        result = {"changed": changed, "digest": "", "gas_mist": 0, "preview": preview}
        result["staked"] = [request.node_id for request in todo.stake]
        result["diff"] = {"before": describe(known), "after": todo.outcome(known, chain.address)}
        if changed:
            arguments = (todo.stake, to or chain.address, todo.mint)
            estimate = (await registry.preview_stake(*arguments)).gas_mist
            preview["gas_estimate_mist"] = estimate
            preview["balance_after_mist"] = before - todo.stake_mist - estimate
            if not module.check_mode:
                receipt = await registry.stake(*arguments)
                result |= {"digest": receipt.digest, "gas_mist": receipt.gas_mist}
                known, tokens = await registry.workers_by_id(names), await registry.worker_tokens(names)
        result["workers"] = {
            name: to_json(worker) | {"seal_token": to_json(tokens.get(name))}
            for name, worker in known.items()
        }
        return result


def main():
    spec = {
        "workers": {"type": "list", "elements": "dict", "required": True},
        "stake": {"type": "str", "default": "1"},
        "withdrawal_address": {"type": "str"},
        # About seal tokens, none of which passes through here.
        "token_lifetime_days": {"type": "float", "default": 90.0, "no_log": False},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
