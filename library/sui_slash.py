#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Propose, cancel and execute the slash of a worker's stake."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_slash
short_description: Slash a worker's stake, or cancel that
version_added: "0.1.0"
description:
  - Proposes the slash of a worker, which jails it, and executes the proposal once the worker's slash window
    is over. Where that window is 0 both happen in one transaction. Until then it can be cancelled.
  - Proposing needs the wallet with the registry's SlasherCap, cancelling that with its ArbiterCap; executing
    a proposal after its window needs neither.
  - Outside of V(localnet) a wallet that holds both capabilities is refused as proposer, since nobody could
    stop it.
  - An executed slash is final. Runs on the control node, with the Python that has k3s-daas installed.
options:
  node_id:
    description: The worker.
    type: str
    required: true
  state:
    description:
      - V(proposed) proposes only. V(executed) also executes, as soon as the window is over. V(cancelled)
        frees a jailed worker.
      - With V(executed) and an open window the proposal is made, and RV(executable_at_ms) says when to run
        again.
    type: str
    choices: [proposed, cancelled, executed]
    default: executed
  reason:
    description: Why; goes on-chain.
    type: str
    choices: [conflicting_heartbeats, refused_drain, wrong_result, operator_decision]
    default: operator_decision
  evidence:
    description: Text that shows why. Only its SHA-256 goes on-chain; keep the text for the appeal.
    type: str
    default: ""
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
      - Path of the slasher's or arbiter's wallet key (C(suiprivkey1...) or base64), on the control node,
        mode 0600.
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
- name: Slash a worker
  sui_slash: &chain
    node_id: worker-2
    reason: operator_decision
    evidence: "ticket 4711: mined on the node"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/slasher.key
  delegate_to: localhost

- name: Free it again
  sui_slash:
    <<: *chain
    state: cancelled
    key_file: ~/.k3s-daas/arbiter.key
  delegate_to: localhost
"""

RETURN = r"""
node_id:
  description: The worker.
  type: str
  returned: success
status:
  description: Its status on-chain now, or after the run in check mode.
  type: str
  returned: success
executable_at_ms:
  description: When the open proposal can be executed, in ms since 1970; null when none is open.
  type: int
  returned: success
evidence_hash:
  description: SHA-256 of the evidence in hex, as it is on-chain.
  type: str
  returned: success
slashed_mist:
  description: Stake taken by this run, in MIST.
  type: int
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

import hashlib

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
    from k3s_daas.registry import check_node_id
    from k3s_daas.registry.events import WorkerSlashed, parse_event
    from k3s_daas.registry.slash import REASON_CODES, plan_slash
except ImportError:
    pass  # run() reports it


async def work(module):
    node_id, state = check_node_id(module.params["node_id"]), module.params["state"]
    if not registry_ids(module, "package_id", "registry_id"):
        raise Refused(f"Worker {node_id} can't be slashed: its registry would only be created by this run.")
    evidence_hash = hashlib.sha256(module.params["evidence"].encode()).digest()
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        worker = await registry.worker(node_id)
        if worker is None:
            raise Refused(
                f"Registry {registry.deployment.registry_id} has no worker {node_id}. Check the name."
            )
        before = {"status": worker.status.value, "stake_mist": worker.stake_mist}
        reason = REASON_CODES[module.params["reason"]]
        status, operation = await plan_slash(registry, worker, state, reason, evidence_hash)
        result, events = await perform(module, chain, operation)
        parsed = [parse_event(event, registry.deployment) for event in events]
        slashed = sum(event.amount_mist for event in parsed if isinstance(event, WorkerSlashed))
        if operation.builds and not module.check_mode:
            worker = await registry.worker(node_id)
        proposal = worker.proposal
        if status == "jailed" and state == "executed":
            at = proposal.executable_at_ms if proposal else "it is over"
            module.warn(
                f"Worker {node_id} is jailed, not slashed yet: its slash window is open. Run again after "
                f"{at} "
                "(ms since 1970)."
            )
        return result | {
            "node_id": node_id,
            "status": status,
            "slashed_mist": slashed,
            "executable_at_ms": proposal.executable_at_ms if proposal else None,
            "evidence_hash": (proposal.evidence_hash if proposal else evidence_hash).hex(),
            "diff": {
                "before": before,
                "after": {"status": status, "stake_mist": before["stake_mist"] - slashed},
            },
        }


def main():
    spec = {
        "node_id": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["proposed", "cancelled", "executed"], "default": "executed"},
        "reason": {
            "type": "str",
            "choices": ["conflicting_heartbeats", "refused_drain", "wrong_result", "operator_decision"],
            "default": "operator_decision",
        },
        "evidence": {"type": "str", "default": ""},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
