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
  - An executed slash is final. A proposal that nobody executes within 7 days after its window lapses, which
    any wallet may put on record; only then the worker is free again.
options:
  node_id:
    description: The worker.
    type: str
    required: true
  state:
    description:
      - V(proposed) proposes only. V(executed) also executes, as soon as the window is over. V(cancelled)
        frees a jailed worker, V(lapsed) one whose proposal nobody executed in time.
      - With V(executed) and an open window the proposal is made, and RV(executable_at_ms) says when to run
        again. With V(lapsed) and a proposal that can still be executed nothing is done.
    type: str
    choices: [proposed, cancelled, executed, lapsed]
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
extends_documentation_fragment: [k3s_daas, k3s_daas.signer, k3s_daas.registry]
"""

EXAMPLES = r"""
- name: Slash a worker
  sui_slash:
    node_id: worker-2
    reason: operator_decision
    evidence: "ticket 4711: mined on the node"
    <<: &chain
      package_id: "{{ package.package_id }}"
      registry_id: "{{ registry.registry_id }}"
      network: localnet
      endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/slasher.key
  delegate_to: localhost

- name: Free it again
  sui_slash:
    <<: *chain
    node_id: worker-2
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

import hashlib

from ansible.module_utils.k3s_daas_chain import Refused, open_registry, perform, start

try:
    from k3s_daas.registry import check_node_id
    from k3s_daas.registry.events import WorkerSlashed, parse_event
    from k3s_daas.registry.slash import LAPSE_MS, REASON_CODES, plan_slash
except ImportError:
    pass  # start() reports it


def waiting(node_id, state, proposal):
    """Why a jailed worker stays it, and until when."""
    at = proposal.executable_at_ms if proposal else None
    if state == "lapsed":
        until = at + LAPSE_MS
        return f"Worker {node_id} stays jailed: its slash can be executed until {until} (ms since 1970)."
    when = at or "it is over"
    return (
        f"Worker {node_id} is jailed, not slashed yet: its slash window is open. Run again after {when} "
        "(ms since 1970)."
    )


async def work(module):
    node_id, state = check_node_id(module.params["node_id"]), module.params["state"]
    evidence_hash = hashlib.sha256(module.params["evidence"].encode()).digest()
    async with open_registry(module) as registry:
        worker = await registry.worker(node_id)
        if worker is None:
            raise Refused(
                f"Registry {registry.deployment.registry_id} has no worker {node_id}. Check the name."
            )
        before = {"status": worker.status.value, "stake_mist": worker.stake_mist}
        reason = REASON_CODES[module.params["reason"]]
        status, operation = await plan_slash(registry, worker, state, reason, evidence_hash)
        result, done = await perform(module, registry.chain, operation)
        parsed = [parse_event(event, registry.deployment) for event in done.events]
        slashed = sum(event.amount_mist for event in parsed if isinstance(event, WorkerSlashed))
        if operation.builds and not module.check_mode:
            worker = await registry.worker(node_id)
        proposal = worker.proposal
        if status == "jailed" and state in ("executed", "lapsed"):
            module.warn(waiting(node_id, state, proposal))
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
        "state": {
            "type": "str",
            "choices": ["proposed", "cancelled", "executed", "lapsed"],
            "default": "executed",
        },
        "reason": {
            "type": "str",
            "choices": ["conflicting_heartbeats", "refused_drain", "wrong_result", "operator_decision"],
            "default": "operator_decision",
        },
        "evidence": {"type": "str", "default": ""},
    }
    start(work, spec)


if __name__ == "__main__":
    main()
