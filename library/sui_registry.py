#!/usr/bin/python
# Copyright the K3s-DaaS authors
# SPDX-License-Identifier: Apache-2.0
"""Create the registry of a fleet, or find it, and migrate it to an upgraded package."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sui_registry
short_description: Create the registry of a fleet once
version_added: "0.1.0"
description:
  - Creates a registry, unless the wallet's address already administers one of that name in the package.
  - What a registry was created with can't be changed. Only the list of allowed owners can.
  - Its four capabilities (admin, operator, slasher, arbiter) go to the wallet's address; see M(sui_caps).
  - A registry of an older version of the package is migrated to that of O(package_id), which older versions
    can't use any more.
  - Runs on the control node, with the Python that has k3s-daas installed.
options:
  name:
    description: Name of the registry, unique among the wallet's registries.
    type: str
    required: true
  package_id:
    description: Id of the published package. In check mode it may be empty or V(published by this run).
    type: str
    required: true
  open:
    description: Whether anybody may stake, or only O(allowed_owners).
    type: bool
    required: true
  allowed_owners:
    description: Addresses that may stake when O(open=false). Left as it is when not given.
    type: list
    elements: str
  min_stake:
    description: Smallest stake of a worker, in SUI or MIST (V(1.5), V(1500000000 MIST)); at least 1 SUI.
    type: str
    default: "1"
  slash_window_ms:
    description: Milliseconds between proposing and executing a slash; at most 30 days.
    type: int
    required: true
  unbonding_window_ms:
    description: Milliseconds between asking to leave and getting the stake back; at most 30 days.
    type: int
    required: true
  slash_share_bps:
    description: Part of the stake that a slash takes, in basis points; at most 5000.
    type: int
    default: 5000
  require_attestation:
    description: Whether only an attested master is taken.
    type: bool
    required: true
  state:
    description: A registry holds other people's money and can't be deleted.
    type: str
    choices: [present]
    default: present
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
      - Path of the administrator's wallet key (C(suiprivkey1...) or base64), on the control node, mode 0600.
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
- name: Create the demo's registry
  sui_registry:
    name: demo
    package_id: "{{ package.package_id }}"
    open: true
    slash_window_ms: 0
    unbonding_window_ms: 0
    require_attestation: false
    network: localnet
    endpoints: [http://127.0.0.1:9000]
    key_file: ~/.k3s-daas/operator.key
  delegate_to: localhost
  register: registry
"""

RETURN = r"""
registry_id:
  description: Id of the registry; V(published by this run) in check mode when it isn't there yet.
  type: str
  returned: success
package_id:
  description: The package it belongs to.
  type: str
  returned: success
original_package_id:
  description: The package's first version where it was upgraded since, otherwise empty.
  type: str
  returned: success
operator_cap_id:
  description: Id of the registry's OperatorCap where the wallet holds it, otherwise empty.
  type: str
  returned: success
migrated:
  description: Whether the registry was migrated, or would be.
  type: bool
  returned: success
digests:
  description: Transactions that were sent.
  type: list
  elements: str
  returned: success
gas_mist:
  description: What they cost, or creating would cost, in MIST.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.k3s_daas_chain import (
    CONNECTION_SPEC,
    KEY_SPEC,
    PLANNED,
    Refused,
    connect,
    registry_ids,
    run,
)

try:
    from k3s_daas.chain.bcs import normalize_address
    from k3s_daas.registry import Registry, RegistryParams, create_registry, find_registry
    from k3s_daas.registry.deploy import creating_registry, find_migration
    from k3s_daas.units import parse_sui
except ImportError:
    pass  # run() reports it

FIXED = ("open", "min_stake_mist", "slash_window_ms", "unbonding_window_ms", "slash_share_bps")
FIXED += ("require_attestation",)


def wanted_params(module):
    given = {name: module.params[name] for name in FIXED if name != "min_stake_mist"}
    if negative := [name for name, value in given.items() if value < 0]:
        raise Refused(f"Found {negative[0]}={given[negative[0]]}, wanted 0 or more.")
    return RegistryParams(
        name=module.params["name"], min_stake_mist=parse_sui(module.params["min_stake"]), **given
    )


def compare(config, wanted):
    """Refuse to go on with a registry that has other terms than the playbook says."""
    for name in FIXED:
        found, value = getattr(config, name), getattr(wanted, name)
        if found != value:
            raise Refused(
                f"Registry {wanted.name!r} ({config.registry_id}) was created with {name}={found}, wanted "
                f"{value}. These terms are fixed: set what it has, or choose another name for a new registry."
            )


async def work(module):
    wanted = wanted_params(module)
    owners = module.params["allowed_owners"]
    owners = None if owners is None else {normalize_address(owner) for owner in owners}
    published = registry_ids(module, "package_id")
    package_id = normalize_address(module.params["package_id"]) if published else PLANNED
    after = {"registry_id": PLANNED, "allowed_owners": sorted(owners or ())}
    after |= {name: getattr(wanted, name) for name in FIXED}
    result = {"changed": True, "package_id": package_id, "registry_id": PLANNED, "digests": [], "gas_mist": 0}
    result |= {"original_package_id": "", "operator_cap_id": "", "migrated": False}
    result["diff"] = {"before": {}, "after": after}
    if not published:
        return result
    async with await connect(module) as chain:
        deployment = await find_registry(chain, chain.address, wanted.name, package_id)
        found = deployment and deployment.registry_id
        allowed, migration = set(), None
        if found is not None:
            registry = Registry(chain, deployment)
            config, migration = await registry.config(), await find_migration(registry)
            compare(config, wanted)
            allowed = set(config.allowed_owners)
            after |= {"registry_id": found, "allowed_owners": sorted(allowed if owners is None else owners)}
            before = after | {"allowed_owners": sorted(allowed)}
            changed = before != after or migration is not None
            result |= {"changed": changed, "registry_id": found, "migrated": migration is not None}
            result["diff"]["before"] = before
        elif module.check_mode:
            result["gas_mist"] = (await chain.simulate(creating_registry(package_id, wanted))).gas_mist
        else:
            deployment, receipt = await create_registry(chain, package_id, wanted)
            result["registry_id"] = after["registry_id"] = found = deployment.registry_id
            result |= {"digests": [receipt.digest], "gas_mist": receipt.gas_mist}
        receipts, registry = [], Registry(chain, deployment) if found else None
        if registry is not None:
            result["operator_cap_id"] = await registry.find_cap("OperatorCap", chain.address) or ""
        if migration is not None and not module.check_mode:
            receipts.append(await chain.execute(migration))
        if owners is not None and owners != allowed and not module.check_mode:
            receipts.append(await registry.set_allowed_owners(owners - allowed, allowed - owners))
        result["digests"] += [receipt.digest for receipt in receipts]
        result["gas_mist"] += sum(receipt.gas_mist for receipt in receipts)
        result["original_package_id"] = (deployment.original_id if deployment else None) or ""
    return result


def main():
    spec = {
        "name": {"type": "str", "required": True},
        "package_id": {"type": "str", "required": True},
        "open": {"type": "bool", "required": True},
        "allowed_owners": {"type": "list", "elements": "str"},
        "min_stake": {"type": "str", "default": "1"},
        "slash_window_ms": {"type": "int", "required": True},
        "unbonding_window_ms": {"type": "int", "required": True},
        "slash_share_bps": {"type": "int", "default": 5000},
        "require_attestation": {"type": "bool", "required": True},
        "state": {"type": "str", "choices": ["present"], "default": "present"},
    }
    run(AnsibleModule(argument_spec=spec | CONNECTION_SPEC | KEY_SPEC, supports_check_mode=True), work)


if __name__ == "__main__":
    main()
