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
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Make the worker's next secret on the worker
  seal_commitment:
    node_id: "{{ inventory_hostname }}"
    state: next
  register: worker_next

- name: Put its commitment on-chain
  sui_seal_token:
    workers: ["{{ worker_next }}"]
    state: rotated
    <<: &chain
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

from ansible.module_utils.k3s_daas_chain import Refused, open_registry, perform, start

try:
    from k3s_daas.registry.render import to_json
    from k3s_daas.registry.staking import Wanted, check_lifetime, parse_commitment, parse_wanted
    from k3s_daas.registry.tokens import plan_owner_token, plan_tokens
except ImportError:
    pass  # start() reports it


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
    async with open_registry(module) as registry:
        todo, before = await plan(module, registry, wanted, own)
        operation = todo.operation(registry, module.params["scope"])
        result, _ = await perform(module, registry.chain, operation)
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
    start(work, spec)


if __name__ == "__main__":
    main()
