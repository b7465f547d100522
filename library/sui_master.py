#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Appoint the master and keep its wallet in gas."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_master
short_description: Appoint a fleet's master and top up its gas
version_added: "0.1.0"
description:
  - Makes an address the master of a registry, unless it is already. A new appointment voids the last one's
    capability and forgets what that master announced.
  - Sends it gas up to a bound, once it holds less than half of it. The master's key never leaves the master;
    the bound is all that can be lost with it.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  account:
    description:
      - Address of the master's own wallet, as C(k3s-daas-master init-key) prints it.
      - In check mode it may be empty, when the master would only be installed by this run.
    type: str
    required: true
  gas:
    description: Bound of the master's balance, in SUI or MIST; V(0) sends none.
    type: str
    default: "0.5"
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
      - Path of the operator's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
      - The key stays in this file and in the module's memory.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Says what would be sent, sends nothing.
  diff_mode:
    support: full
author:
  - K3s-DaaS authors
"""

EXAMPLES = r"""
- name: Appoint the master
  sui_master:
    account: "{{ master_account }}"
    gas: "0.5"
    package_id: "{{ package.package_id }}"
    registry_id: "{{ registry.registry_id }}"
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
"""

RETURN = r"""
account:
  description: The master's address.
  type: str
  returned: success
epoch:
  description: Number of the master's appointment; 0 where it is only planned.
  type: int
  returned: success
topped_up_mist:
  description: Gas sent, or to be sent, to the master, in MIST.
  type: int
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
    open_registry,
    registry_ids,
    run,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # run() reports it


async def work(module):
    bound = parse_sui(module.params["gas"])
    result = {"changed": True, "epoch": 0, "topped_up_mist": bound, "digest": "", "gas_mist": 0}
    if not registry_ids(module, "package_id", "registry_id", "account"):
        result["account"] = module.params["account"] or PLANNED
        after = {"master": result["account"], "topped_up_mist": bound}
        return result | {"diff": {"before": {"master": None, "topped_up_mist": 0}, "after": after}}
    account = normalize_address(module.params["account"])
    async with await connect(module) as chain:
        registry = open_registry(module, chain)
        master = await registry.master()
        balance = await chain.balance(account)
        appoint = master is None or master.account != account
        # Not at every run: the master spends a little all the time, and nothing has changed for it.
        top_up = bound - balance if balance < bound // 2 else 0
        result |= {"changed": appoint or top_up > 0, "account": account, "topped_up_mist": top_up}
        result["epoch"] = master.epoch if master and not appoint else 0
        before = {"master": master.account if master else None, "topped_up_mist": 0}
        result["diff"] = {"before": before, "after": {"master": account, "topped_up_mist": top_up}}
        if appoint:
            # Also in check mode: without the capability the real run would fail.
            await registry.cap("OperatorCap")
        if module.check_mode or not result["changed"]:
            return result
        if appoint:
            receipt = await registry.appoint_master(account, top_up)
            result["epoch"] = (await registry.master()).epoch
        else:
            receipt = await registry.send(account, top_up)
        return result | {"digest": receipt.digest, "gas_mist": receipt.gas_mist}


def main():
    spec = {
        "account": {"type": "str", "required": True},
        "gas": {"type": "str", "default": "0.5"},
    }
    spec |= CONNECTION_SPEC | KEY_SPEC | REGISTRY_SPEC
    run(AnsibleModule(argument_spec=spec, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
