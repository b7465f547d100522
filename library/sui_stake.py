#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Stake for workers and mint their seal tokens; take workers out and their stake back."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_stake
short_description: Stake SUI for workers, and take it back
version_added: "0.1.0"
description:
  - Stakes for all workers that aren't registered yet and puts the commitments of their seal tokens on-chain,
    in one transaction for up to 200 workers, for all of them or for none; more take more transactions.
  - A worker that is there is left alone, after checking that it is ours and that its host holds the secret
    that the chain knows. So a run that was killed at any point can be run again and pays nothing twice.
  - Adds to a stake that is less than it is to be, and never takes any away.
  - Takes workers out in two steps, the request and the withdrawal after the unbonding window. Runs on the
    control node, with the Python that has k3s-daas installed.
options:
  workers:
    description:
      - The workers, as M(seal_commitment) returns them. Other keys are ignored.
      - To leave, C(node_id) is enough.
    type: list
    elements: dict
    required: true
  state:
    description:
      - V(present) stakes. V(unbonding) requests the unstake. V(withdrawn) also withdraws the stake, or what a
        slash left of it, of those whose window is over; RV(withdrawable_at_ms) says when to run again for the
        others. A worker without a record counts as withdrawn.
    type: str
    choices: [present, unbonding, withdrawn]
    default: present
  stake:
    description: Stake of each worker that doesn't say its own, in SUI or MIST (V(1.5), V(1500000000 MIST)).
    type: str
    default: "1"
  withdrawal_address:
    description: Where stakes are paid out to, fixed when staking. The wallet's own address when not given.
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
    description: Digest of the network's first checkpoint (base58). Known for V(testnet) and V(mainnet).
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
- name: Stake for all workers
  sui_stake: &chain
    workers: "{{ ansible_play_hosts | map('extract', hostvars, 'worker_seal') | list }}"
    stake: "1.5"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  run_once: true

- name: Take one out, and its stake back once that is possible
  sui_stake:
    <<: *chain
    workers: [{node_id: worker-2}]
    state: withdrawn
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
added:
  description: MIST added, or to be added, to the stake of a worker that had less.
  type: dict
  returned: success
withdrawable_at_ms:
  description: When the stake of each worker that isn't paid out yet can be, in ms since 1970.
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
    REGISTRY_SPEC,
    Refused,
    connect,
    open_registry,
    perform,
    registry_ids,
    run,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import staking
    from k3s_daas.registry.leaving import plan_exit, time_for_leaving
    from k3s_daas.registry.operation import preview
    from k3s_daas.registry.render import to_json
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # run() reports it


NOTHING = {"staked": [], "added": {}, "withdrawable_at_ms": {}}


async def planned(module, wanted):
    """Check mode before the registry exists: everything is to be staked, as far as can be known."""
    async with await connect(module) as chain:
        balance, owner = await chain.balance(chain.address), chain.address
    ids = [worker.node_id for worker in wanted]
    shown = preview(staking.foreseen(wanted), owner, balance, None)
    after = {worker.node_id: staking.summary("pending", owner, worker.stake_mist) for worker in wanted}
    result = {"changed": bool(wanted), "workers": {}, "staked": ids, "added": {}, "withdrawable_at_ms": {}}
    return result | {
        "preview": shown,
        "digests": [],
        "gas_mist": None,
        "diff": {"before": {}, "after": after},
    }


async def stay(module, registry, wanted):
    """(operation, diff, more of the result) of workers that are to be there."""
    to, wallet = module.params["withdrawal_address"], registry.chain.address
    to = wallet if to is None else normalize_address(to)
    config, known, todo = await staking.plan_for(registry, wanted, module.params["token_lifetime_days"])
    diff = {"before": staking.describe(known), "after": todo.outcome(known, wallet)}
    more = {"staked": [request.node_id for request in todo.stake], "added": todo.add}
    return todo.operation(registry, config, to), diff, NOTHING | more


async def leave(module, registry, ids):
    known, wallet = await registry.workers_by_id(ids), registry.chain.address
    now_ms = await time_for_leaving(registry, known)
    todo = plan_exit(ids, module.params["state"], wallet, known, now_ms)
    before = {name: known[name].status.value if name in known else "withdrawn" for name in ids}
    diff = {"before": before, "after": todo.status_after(known)}
    for name, at in todo.waiting.items():
        module.warn(f"The stake of {name} can't be withdrawn before {at} (ms since 1970). Run again then.")
    return todo.operation(registry, known, wallet), diff, NOTHING | {"withdrawable_at_ms": todo.waiting}


async def work(module):
    staking.check_lifetime(module.params["token_lifetime_days"])
    stays, entries = module.params["state"] == "present", module.params["workers"]
    amount = parse_sui(module.params["stake"])
    wanted = staking.parse_wanted(entries, amount, without_secrets=module.check_mode or not stays)
    ids = [worker.node_id for worker in wanted]
    if not registry_ids(module, "package_id", "registry_id"):
        if not stays:
            raise Refused("Nobody can leave a registry that would only be created by this run.")
        return await planned(module, wanted)
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        operation, diff, more = await (
            stay(module, registry, wanted) if stays else leave(module, registry, ids)
        )
        result, _ = await perform(module, chain, operation)
        known, tokens = await registry.workers_by_id(ids), await registry.worker_tokens(ids)
        workers = {n: to_json(worker) | {"seal_token": to_json(tokens.get(n))} for n, worker in known.items()}
        return result | more | {"diff": diff, "workers": workers}


def main():
    spec = {
        "workers": {"type": "list", "elements": "dict", "required": True},
        "state": {"type": "str", "choices": ["present", "unbonding", "withdrawn"], "default": "present"},
        "stake": {"type": "str", "default": "1"},
        "withdrawal_address": {"type": "str"},
        # About seal tokens, none of which passes through here.
        "token_lifetime_days": {"type": "float", "default": 90.0, "no_log": False},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
