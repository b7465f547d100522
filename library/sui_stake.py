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
  - Takes workers out in two steps, the request and the withdrawal after the unbonding window.
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
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Stake for all workers
  sui_stake:
    workers: "{{ ansible_play_hosts | map('extract', hostvars, 'worker_seal') | list }}"
    stake: "1.5"
    <<: &chain
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

from ansible.module_utils.k3s_daas_chain import foresee, have_registry, open_registry, perform, start

try:
    from k3s_daas.chain import Key
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import staking
    from k3s_daas.registry.leaving import plan_exit, time_for_leaving
    from k3s_daas.registry.render import to_json
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # start() reports it


NOTHING = {"staked": [], "added": {}, "withdrawable_at_ms": {}}


async def planned(module, wanted):
    """Check mode before the registry exists: everything is to be staked, as far as can be known."""
    owner = Key.load(module.params["key_file"]).address
    after = {worker.node_id: staking.summary("pending", owner, worker.stake_mist) for worker in wanted}
    result = await foresee(module, staking.foreseen(wanted)) | NOTHING
    result |= {"changed": bool(wanted), "workers": {}, "staked": [worker.node_id for worker in wanted]}
    return result | {"diff": {"before": {}, "after": after}}


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
    if stays and not have_registry(module):
        return await planned(module, wanted)
    async with open_registry(module) as registry:
        operation, diff, more = await (
            stay(module, registry, wanted) if stays else leave(module, registry, ids)
        )
        result, _ = await perform(module, registry.chain, operation)
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
    start(work, spec)


if __name__ == "__main__":
    main()
