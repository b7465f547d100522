#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Propose and execute the slash of a worker's stake."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_slash
short_description: Slash a worker's stake
version_added: "0.1.0"
description:
  - Proposes the slash of a worker, which jails it, and executes the proposal once the worker's slash window
    is over. Where that window is 0 both happen in one transaction.
  - Proposing needs the wallet with the registry's SlasherCap; executing a proposal after its window doesn't.
  - A slash is final. Runs on the control node, with the Python that has k3s-daas installed.
options:
  node_id:
    description: The worker.
    type: str
    required: true
  state:
    description:
      - V(jailed) proposes only. V(slashed) also executes, as soon as the window is over.
      - With V(slashed) and an open window the proposal is made, and RV(executable_at_ms) says when to run
        again.
    type: str
    choices: [jailed, slashed]
    default: slashed
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
      - Path of the slasher's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
      - The key stays in this file and in the module's memory.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Simulates, sends nothing.
  diff_mode:
    support: full
author:
  - K3s-DaaS authors
"""

EXAMPLES = r"""
- name: Slash a worker
  sui_slash:
    node_id: worker-2
    reason: operator_decision
    evidence: "ticket 4711: mined on the node"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/slasher.key
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
digest:
  description: The transaction; empty when nothing was sent.
  type: str
  returned: success
gas_mist:
  description: What the transaction cost, or would cost, in MIST.
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
    registry_ids,
    run,
)

try:
    from k3s_daas.chain import MoveAbort
    from k3s_daas.registry import Deployment, Registry, check_node_id
    from k3s_daas.registry.events import WorkerSlashed, parse_event
except ImportError:
    pass  # run() reports it

REASONS = {"conflicting_heartbeats": 1, "refused_drain": 2, "wrong_result": 3, "operator_decision": 4}


async def step(registry, worker, module, evidence_hash):
    """(status after, build of the transaction or None) for a worker as it is."""
    jailed, wanted = worker.proposal is not None, module.params["state"]
    if worker.status.value == "slashed" or (jailed and wanted == "jailed"):
        return worker.status.value, None
    if jailed:
        build = registry.executing(worker.node_id)
        try:
            await registry.chain.simulate(build)  # the contract knows best whether the window is over
        except MoveAbort as error:
            if error.name != "ESlashWindowOpen":
                raise
            return "jailed", None
        return "slashed", build
    now = wanted == "slashed" and worker.slash_window_ms == 0
    reason = REASONS[module.params["reason"]]
    build = await registry.proposing(worker.node_id, reason, evidence_hash, execute=now)
    return ("slashed" if now else "jailed"), build


async def work(module):
    node_id = check_node_id(module.params["node_id"])
    if not registry_ids(module, "package_id", "registry_id"):
        raise Refused(f"Worker {node_id} can't be slashed: its registry would only be created by this run.")
    evidence_hash = hashlib.sha256(module.params["evidence"].encode()).digest()
    async with await connect(module) as chain:
        deployment = Deployment(module.params["package_id"], module.params["registry_id"])
        registry = Registry(chain, deployment)
        worker = await registry.worker(node_id)
        if worker is None:
            raise Refused(f"Registry {deployment.registry_id} has no worker {node_id}. Check the name.")
        before = {"status": worker.status.value, "stake_mist": worker.stake_mist}
        status, build = await step(registry, worker, module, evidence_hash)
        result = {"changed": build is not None, "node_id": node_id, "status": status, "digest": ""}
        result |= {"slashed_mist": 0, "gas_mist": 0, "evidence_hash": evidence_hash.hex()}
        if build is not None:
            done = await (chain.simulate(build) if module.check_mode else chain.execute(build))
            events = [parse_event(event, deployment) for event in done.events]
            slashed = sum(event.amount_mist for event in events if isinstance(event, WorkerSlashed))
            result |= {"slashed_mist": slashed, "gas_mist": done.gas_mist}
            if not module.check_mode:
                result["digest"] = done.digest
                worker = await registry.worker(node_id)
        result["executable_at_ms"] = worker.proposal.executable_at_ms if worker.proposal else None
        if worker.proposal is not None:
            result["evidence_hash"] = worker.proposal.evidence_hash.hex()
        if status == "jailed" and module.params["state"] == "slashed":
            module.warn(
                f"Worker {node_id} is jailed, not slashed yet: its slash window is open. Run again after "
                f"{result['executable_at_ms'] or 'it is over'} (ms since 1970)."
            )
        after = {"status": status, "stake_mist": before["stake_mist"] - result["slashed_mist"]}
        return result | {"diff": {"before": before, "after": after}}


def main():
    spec = {
        "node_id": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["jailed", "slashed"], "default": "slashed"},
        "reason": {"type": "str", "choices": list(REASONS), "default": "operator_decision"},
        "evidence": {"type": "str", "default": ""},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
