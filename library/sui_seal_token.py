#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Create, rotate and revoke seal tokens on-chain."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_seal_token
short_description: Create, rotate and revoke seal tokens on-chain
version_added: "0.1.0"
description:
  - Brings the chain's records of seal tokens into a state. Secrets never come here, only the commitments that
    M(seal_commitment) returns.
  - A rotation is named by the new secret's commitment. When that is on-chain already nothing is sent, so a
    rotation that was killed at any point can be run again.
  - Everything is sent in one transaction for up to 100 tokens, for all of them or for none.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  scope:
    description:
      - V(worker) are tokens of O(workers), for registration and heartbeats. V(owner) is the one token of the
        wallet in O(key_file), for kubectl.
    type: str
    choices: [worker, owner]
    default: worker
  workers:
    description:
      - The workers with the commitments of their (new) secrets, as M(seal_commitment) returns them. Other
        keys are ignored. To revoke, C(node_id) is enough.
    type: list
    elements: dict
    default: []
  commitment:
    description: With O(scope=owner), the commitment of the (new) secret. Not needed to revoke.
    type: str
  state:
    description:
      - V(present) creates a token where there is none and refuses where there is another.
      - V(rotated) replaces a token by that of the commitment; the old one is worthless at once.
      - V(revoked) makes a token worthless. A new one needs a new secret and V(rotated).
    type: str
    choices: [present, rotated, revoked]
    default: present
  token_lifetime_days:
    description:
      - How long a new seal token lives; at most 365 days. Up to a tenth is taken off by name, so that a fleet
        doesn't expire at once.
    type: float
    default: 90.0
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
- name: Make the worker's next secret on the worker
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: next
  register: worker_next

- name: Put its commitment on-chain
  sui_seal_token: &chain
    workers: ["{{ worker_next }}"]
    state: rotated
    package_id: "{{ package_id }}"
    registry_id: "{{ registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  register: rotated

- name: Use it
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: promoted
    commitment: "{{ rotated.tokens[inventory_hostname].commitment }}"

- name: Take the owner's kubectl token back
  sui_seal_token:
    <<: *chain
    scope: owner
    workers: []
    state: revoked
  delegate_to: localhost
"""

RETURN = r"""
tokens:
  description: Record of each token on-chain by node id, or by the owner's address. Holds no secret.
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
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.staking import Wanted, check_lifetime, parse_commitment, parse_wanted
    from k3s_daas.registry.tokens import plan_owner_token, plan_tokens
except ImportError:
    pass  # run() reports it


def wanted_of(module):
    """The workers' tokens, or None for the owner's, whose commitment comes second."""
    scope, workers, own = (module.params[name] for name in ("scope", "workers", "commitment"))
    optional = module.check_mode or module.params["state"] == "revoked"
    if scope == "worker":
        if own is not None or not workers:
            raise Refused(
                "Found no workers, or a commitment beside them; wanted workers alone with scope worker."
            )
        return parse_wanted(workers, 0, without_secrets=optional), None
    if workers or not (own or optional):
        raise Refused("Found workers, or no commitment; wanted a commitment alone with scope owner.")
    return None, parse_commitment(own) if own else None


async def plan(module, registry, wanted, own):
    state, days = module.params["state"], module.params["token_lifetime_days"]
    wallet, now_ms = registry.chain.address, await registry.clock_ms()
    before = await read(registry, wanted)
    if wanted is None:
        return plan_owner_token(Wanted(wallet, own), before.get(wallet), state, now_ms, days), before
    workers = await registry.workers_by_id([worker.node_id for worker in wanted])
    return plan_tokens(wanted, state, wallet, workers, before, now_ms, days), before


async def read(registry, wanted):
    if wanted is not None:
        return await registry.worker_tokens([worker.node_id for worker in wanted])
    address = registry.chain.address
    record = await registry.owner_token(address)
    return {} if record is None else {address: record}


def describe(tokens, todo=None):
    """What people see of tokens; with a plan, of those it leaves."""
    seen = {name: {"generation": t.generation, "revoked": t.revoked} for name, t in tokens.items()}
    for request in (*todo.create, *todo.rotate) if todo else ():
        generation = seen.get(request.node_id, {}).get("generation", 0) + 1
        seen[request.node_id] = {"generation": generation, "revoked": False}
    for name in todo.revoke if todo else ():
        seen[name] = seen[name] | {"revoked": True}
    return seen


async def work(module):
    check_lifetime(module.params["token_lifetime_days"])
    wanted, own = wanted_of(module)
    if not registry_ids(module, "package_id", "registry_id"):
        raise Refused("There are no seal tokens in a registry that would only be created by this run.")
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        todo, before = await plan(module, registry, wanted, own)
        result, _ = await perform(module, chain, todo.operation(registry, module.params["scope"]))
        diff = {"before": describe(before), "after": describe(before, todo)}
        return result | {"diff": diff, "tokens": to_json(await read(registry, wanted))}


def main():
    spec = {
        "scope": {"type": "str", "choices": ["worker", "owner"], "default": "worker"},
        "workers": {"type": "list", "elements": "dict", "default": []},
        "commitment": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "rotated", "revoked"], "default": "present"},
        # About seal tokens, none of which passes through here.
        "token_lifetime_days": {"type": "float", "default": 90.0, "no_log": False},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
